"""What a registry makes of the bucket's messages: the same as every other one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_common.errors import InvalidInput
from pillion_common.models import Registration, State
from pillion_registry.store.mirror import Mirror, News
from pillion_registry.store.nats_bucket import Entry
from pillion_registry.store.nats_wire import Gone, Kept, write

PLACES = ("http://10.0.0.1:80", "http://10.0.0.2:80", "http://10.0.0.3:80")


def value(generation: int, url: str = PLACES[0], state: State = State.UP, name: str = "Log") -> bytes:
    return write(Kept(generation, "10.0.0.9", 1.5, Registration(name, url), state, 2.5))


def lives(seq: int, key: str, generation: int, url: str = PLACES[0], state: State = State.UP, name: str = "Log") -> Entry:
    return Entry(seq, key, value(generation, url, state, name), False)


def dies(seq: int, key: str, reason: str = "") -> Entry:
    return Entry(seq, key, write(Gone(reason)) if reason else b"", True)


def taken(*entries: Entry) -> tuple[Mirror, list[News | None]]:
    mirror = Mirror()
    return mirror, [mirror.take(entry, float(entry.seq)) for entry in entries]


def there(mirror: Mirror) -> dict[str, tuple[int, str]]:
    return {key: (one.kept.generation, one.record.url) for key, one in mirror.instances.items()}


def test_an_instance_comes_changes_and_goes() -> None:
    mirror, news = taken(lives(3, "a", 1, state=State.STARTING), lives(5, "a", 1), dies(9, "a", "deregistered"), dies(10, "a"))
    came, changed, went, nothing = news
    assert came is not None
    assert changed is not None
    assert went is not None
    assert came.one is not None
    assert changed.one is not None
    assert changed.one.record is came.one.record  # the same registration
    assert (changed.revision, changed.one.kept.state) == (5, State.UP)
    assert (went.one, went.gone) == (None, Gone("deregistered"))
    assert nothing is None
    assert (mirror.revision, mirror.instances, mirror.revision_of("a")) == (10, {}, 10)
    assert mirror.old_marks(11.0) == [("a", 10)]
    assert mirror.old_marks(10.0) == []


def test_at_one_place_the_later_registration_stands_whichever_came_first() -> None:
    for order in ((lives(1, "a", 5), lives(2, "b", 6)), (lives(1, "b", 6), lives(2, "a", 5))):
        mirror, _ = taken(*order)
        assert there(mirror) == {"b": (6, PLACES[0])}
        assert set(mirror.losers) == {"a"}
        assert mirror.revision_of("a") in (1, 2)


def test_the_same_place_under_another_name_is_another_place() -> None:
    mirror, _ = taken(lives(1, "a", 5), lives(2, "b", 6, name="Db"))
    assert set(mirror.instances) == {"a", "b"}


def test_who_moves_frees_its_place() -> None:
    mirror, news = taken(lives(1, "a", 1), lives(2, "a", 2, PLACES[1]), lives(3, "b", 1))
    assert there(mirror) == {"a": (2, PLACES[1]), "b": (1, PLACES[0])}
    assert [one.replaced for one in news if one is not None] == [(), (), ()]


def test_a_known_one_that_moves_to_a_taken_place_with_a_lower_generation_is_gone() -> None:
    mirror, news = taken(lives(1, "a", 1), lives(2, "b", 9, PLACES[1]), lives(3, "a", 3, PLACES[1]))
    assert there(mirror) == {"b": (9, PLACES[1])}
    (*_, last) = news
    assert last is not None
    assert (last.instance_id, last.one) == ("a", None)


def test_a_loser_that_is_deleted_changes_nothing_but_the_revision() -> None:
    mirror, news = taken(lives(1, "a", 5), lives(2, "b", 6), dies(3, "a"))
    assert news[-1] is None
    assert (mirror.losers, mirror.revision) == ({}, 3)


def test_what_cannot_be_read_raises_and_counts_as_seen() -> None:
    mirror, _ = taken(lives(1, "a", 5))
    with pytest.raises(InvalidInput):
        mirror.take(Entry(2, "a", b"{}", False), 2.0)
    assert mirror.revision == 2
    assert there(mirror) == {"a": (5, PLACES[0])}
    assert mirror.revision_of("a") == 2  # which whoever writes it next has to name
    mirror.take(lives(3, "a", 6), 3.0)
    assert (mirror.revision_of("a"), mirror.strange) == (3, {})


def test_who_is_missing_was_there_before_the_others_were_listed() -> None:
    mirror, _ = taken(lives(1, "a", 1), lives(2, "b", 2, PLACES[1]), lives(9, "c", 3, PLACES[2]))
    assert list(mirror.missing({"b"}, 8)) == ["a"]


@given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), st.data())
def test_the_newest_messages_of_some_keys_lead_to_the_same_in_any_order(keys: list[str], data: st.DataObject) -> None:
    generations = data.draw(st.permutations(range(1, len(keys) + 1)))
    messages = [(key, generation, data.draw(st.sampled_from(PLACES))) for key, generation in zip(keys, generations, strict=True)]
    first, second = (data.draw(st.permutations(messages)) for _ in range(2))
    results = [taken(*(lives(seq, *one) for seq, one in enumerate(order, 1)))[0] for order in (first, second)]
    best = {url: max(one[1] for one in messages if one[2] == url) for _, _, url in messages}
    assert there(results[0]) == there(results[1]) == {key: (n, url) for key, n, url in messages if best[url] == n}
    assert set(results[0].losers) == set(results[1].losers) == set(keys) - set(results[0].instances)


_step = st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.sampled_from(PLACES)))


@given(st.lists(_step, max_size=40))
def test_the_news_alone_tell_what_is_there(steps: list[tuple[str, str | None]]) -> None:
    """Whoever carries them out one by one has what the mirror has, with no place taken twice."""
    mirror = Mirror()
    copy: dict[str, tuple[int, str]] = {}
    for seq, (key, url) in enumerate(steps, 1):
        news = mirror.take(dies(seq, key) if url is None else lives(seq, key, seq, url), 0.0)
        if news is not None:
            for other in news.replaced:
                del copy[other]
            copy.pop(news.instance_id, None)
            if news.one is not None:
                copy[news.instance_id] = news.one.kept.generation, news.one.record.url
        assert copy == there(mirror)
        places = [url for _, url in copy.values()]
        assert len(places) == len(set(places))
        assert not set(mirror.losers) & set(mirror.instances)
        assert not set(mirror.marks) & set(mirror.instances)

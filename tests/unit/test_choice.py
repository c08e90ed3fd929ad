"""The strategies of a look-up: how evenly, how steadily, and what moves when a provider leaves."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pillion_common.errors import InvalidInput
from pillion_sidecar.table.choice import SPARE, STRATEGIES, Chooser, Wish, read_wish
from pillion_sidecar.wire import Provider


def providers(count: int, first: int = 0, **more: object) -> list[Provider]:
    return [Provider("Db", f"http://10.0.0.{number}:5432", **more) for number in range(first, first + count)]  # type: ignore[arg-type]


def chooser(zone: str = "", seed: int = 7) -> Chooser:
    return Chooser(zone, random.Random(seed).random)


def picks(one: Chooser, of: list[Provider], strategy: str, times: int) -> list[str]:
    return [one.choose(of, Wish(strategy)).url for _ in range(times)]


def test_random_is_even() -> None:
    counts = Counter(picks(chooser(), providers(5), "random", 10_000))
    assert len(counts) == 5
    assert all(1800 < count < 2200 for count in counts.values())


def test_round_robin_takes_each_in_turn_whatever_their_order() -> None:
    one, three = chooser(), providers(3)
    rounds = [picks(one, order, "round-robin", 3) for order in (three, three[::-1], three)]
    assert all(len(set(urls)) == 3 for urls in rounds)


def test_round_robin_goes_on_when_some_come_and_go() -> None:
    one, three = chooser(), providers(3)
    assert picks(one, three, "round-robin", 2) == [three[0].url, three[1].url]
    assert picks(one, three[:2], "round-robin", 2) == [three[0].url, three[1].url]
    assert picks(one, three, "round-robin", 1) == [three[2].url], "who was away the longest is next"


def test_least_recent_begins_with_a_new_one() -> None:
    one, two = chooser(), providers(2)
    picks(one, two, "least-recent", 4)
    assert picks(one, [*two, *providers(1, 9)], "least-recent", 3) == ["http://10.0.0.9:5432", two[0].url, two[1].url]


def test_weighted_is_smooth() -> None:
    a, b, c = (Provider("Db", f"http://{name}:1", weight=weight) for name, weight in (("a", 5), ("b", 1), ("c", 1)))
    assert [url[7] for url in picks(chooser(), [a, b, c], "weighted", 7)] == ["a", "a", "b", "a", "c", "a", "a"]


def test_weighted_is_within_two_percent_of_the_weights() -> None:
    weights = [1, 2, 3, 10, 17, 67]
    of = [Provider("Db", f"http://10.0.0.{weight}:1", weight=weight) for weight in weights]
    counts = Counter(picks(chooser(), of, "weighted", 10_000))
    for provider, weight in zip(of, weights, strict=True):
        assert abs(counts[provider.url] - 100 * weight) <= 0.02 * 100 * weight


def moved(keys: int, before: list[Provider], after: list[Provider]) -> tuple[int, int]:
    """Return how many keys went elsewhere, and how many of those were of a provider that is still there."""
    one = chooser()
    places = [(one.choose(before, Wish("hash", f"key-{key}")), one.choose(after, Wish("hash", f"key-{key}"))) for key in range(keys)]
    changed = [was for was, now in places if was.url != now.url]
    return len(changed), sum(was in after for was in changed)


def test_hash_moves_only_the_keys_of_who_leaves() -> None:
    ten = providers(10)
    for leaving in ten[::4]:
        changed, needlessly = moved(10_000, ten, [provider for provider in ten if provider is not leaving])
        assert changed <= 1200, "at most 12 %"
        assert needlessly == 0


def test_hash_follows_the_weights() -> None:
    of = [Provider("Db", f"http://10.0.0.{place}:1", weight=weight) for place, weight in enumerate((1, 1, 2, 4))]
    one = chooser()
    counts = Counter(one.choose(of, Wish("hash", str(key))).weight for key in range(8000))
    assert counts[4] == pytest.approx(4000, rel=0.06)
    assert counts[2] == pytest.approx(2000, rel=0.1)


def test_hash_does_not_depend_on_the_order_or_the_process() -> None:
    ten = providers(10)
    assert chooser(seed=1).choose(ten, Wish("hash", "ada")) == chooser(seed=2).choose(ten[::-1], Wish("hash", "ada"))


def test_the_own_zone_goes_first_and_any_other_is_better_than_none() -> None:
    near, far = providers(2, zone="a"), providers(2, first=5, zone="b")
    assert set(picks(chooser("a"), near + far, "zone", 100)) == {provider.url for provider in near}
    assert set(picks(chooser("c"), near + far, "zone", 100)) == {provider.url for provider in near + far}
    assert set(picks(chooser(""), near + far, "zone", 100)) == {provider.url for provider in near + far}


@pytest.mark.parametrize("strategy", ["round-robin", "weighted"])
def test_what_is_remembered_of_those_who_left_is_bounded(strategy: str) -> None:
    one = chooser()
    for number in range(1000):
        one.choose([Provider("Db", f"http://10.0.0.1:{number}")], Wish(strategy))
    assert max(len(one._given), len(one._credit)) <= SPARE + 2


@given(st.sampled_from([name for name in STRATEGIES if name != "hash"]), st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_every_choice_is_one_of_those_there(strategy: str, numbers: list[int]) -> None:
    one = chooser("a")
    for number in numbers:
        of = providers(number % 4 + 1, number, zone="a" if number % 2 else None, weight=number + 1)
        assert one.choose(of, Wish(strategy, "k")) in of


def test_what_a_query_wishes() -> None:
    assert read_wish({}, "zone") == Wish("zone")
    assert read_wish({"strategy": "hash", "key": "ada"}, "random") == Wish("hash", "ada")
    wish = read_wish({"tag": "blue,,new", "version": "2"}, "random")
    assert wish.filters
    assert not read_wish({}, "random").filters
    fitting = Provider("Db", "http://a:1", version="2", tags=("new", "blue", "x"))
    assert wish.fits(fitting)
    assert not wish.fits(fitting._replace(tags=("new",)))
    assert not wish.fits(fitting._replace(version="1"))
    assert not wish.fits(Provider("Db", "http://a:1"))


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"strategy": "best"}, "unknown_strategy", "strategy"),
        ({"strategy": "hash"}, "invalid_key", "key"),
        ({"strategy": "hash", "key": "x" * 1025}, "invalid_key", "key"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(query: dict[str, str], code: str, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        read_wish(query, "random")
    assert (raised.value.code, raised.value.field) == (code, field)

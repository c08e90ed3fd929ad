"""Who does what among registries: by their names alone, and nobody for longer than the others believe in it."""

from __future__ import annotations

from collections import Counter

import pytest

from pillion_registry.sharing import FENCE_S, LEASE_S, RENEW_S, Sharing

IDS = [f"Service{number % 40}-{number:04x}" for number in range(3000)]


def member(me: str, *others: str, now: float = 0.0) -> Sharing:
    sharing = Sharing(me)
    sharing.heard_own(now, now)
    for other in others:
        sharing.heard(other, now)
    sharing.look(now)
    return sharing


def owners(sharing: Sharing) -> dict[str, str]:
    return {one: sharing.owner(one) for one in IDS}


def test_before_anybody_is_live_nobody_has_anything() -> None:
    sharing = Sharing("a")
    assert sharing.fenced(0.0)
    assert sharing.lapsed(0.0)
    assert not sharing.look(0.0)
    assert sharing.owner("x") == ""
    assert not sharing.mine("x")


def test_alone_one_has_all() -> None:
    assert set(owners(member("a")).values()) == {"a"}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_shares_are_about_even(count: int) -> None:
    names = [f"registry-{number}-{number * 7919:06x}" for number in range(count)]
    shares = Counter(owners(member(names[0], *names[1:])).values())
    even = len(IDS) / count
    assert set(shares) == set(names)
    assert all(0.85 * even < share < 1.15 * even for share in shares.values()), shares


def test_all_members_come_to_the_same_whoever_they_are() -> None:
    names = ("a-1", "b-2", "c-3")
    found = [owners(member(me, *(one for one in names if one != me))) for me in names]
    assert found[0] == found[1] == found[2]


def test_when_one_dies_only_its_own_move_and_they_are_spread_over_the_others() -> None:
    before = owners(member("a", "b", "c", "d"))
    after = owners(member("a", "b", "c"))
    moved = [one for one in IDS if before[one] != after[one]]
    assert moved == [one for one in IDS if before[one] == "d"]
    spread = Counter(after[one] for one in moved)
    assert all(0.25 < spread[name] / len(moved) < 0.42 for name in "abc"), spread


def test_one_that_is_not_heard_any_more_is_dead_after_its_lease_and_not_before() -> None:
    sharing = member("a", "b", "c")
    for turn in range(1, 10):
        now = turn * RENEW_S
        sharing.heard_own(now, now)
        sharing.heard("b", now)
        changed = sharing.look(now)
        assert sharing.live == (("a", "b", "c") if now <= LEASE_S else ("a", "b"))
        assert changed == (now == LEASE_S + RENEW_S)


def test_one_that_leaves_is_gone_at_once() -> None:
    sharing = member("a", "b")
    sharing.left("b")
    sharing.left("nobody")
    assert sharing.look(0.1)
    assert sharing.live == ("a",)


def test_one_counts_itself_out_before_the_others_do() -> None:
    sharing = member("a", "b")
    assert FENCE_S + RENEW_S <= LEASE_S
    assert not sharing.fenced(FENCE_S)
    assert sharing.fenced(FENCE_S + 0.01)
    assert not sharing.lapsed(LEASE_S)
    assert sharing.lapsed(LEASE_S + 0.01)


def test_what_counts_is_when_the_lease_was_sent_not_when_it_came_back() -> None:
    sharing = member("a")
    sharing.heard_own(1.0, 1.0)
    sharing.heard_own(0.5, 1.0)  # an earlier one, late
    assert sharing.fenced(1.0 + FENCE_S + 0.01)
    assert not sharing.fenced(1.0 + FENCE_S)


def test_who_hears_nothing_changes_nothing() -> None:
    """Without NATS nobody hears anybody: that the others are silent says nothing of them."""
    sharing = member("a", "b", "c")
    assert not sharing.look(LEASE_S + 5)
    assert sharing.live == ("a", "b", "c")


def test_after_a_silence_the_others_have_a_lease_s_time_to_be_heard_again() -> None:
    """Else each would take all for its own until it hears them, and let go again."""
    for silence_s in (FENCE_S + 0.3, LEASE_S + 60):
        sharing = member("a", "b", "c")
        back = silence_s
        sharing.heard_own(back, back)
        assert not sharing.look(back)
        sharing.heard("b", back + 0.4)
        sharing.heard_own(back + 1.4, back + 1.4)
        assert not sharing.look(back + 2.0)
        assert sharing.look(back + 2.1)  # c died meanwhile
        assert sharing.live == ("a", "b")


def test_who_left_meanwhile_is_not_waited_for() -> None:
    sharing = member("a", "b", "c")
    sharing.left("b")
    sharing.heard_own(9.0, 9.0)
    assert sharing.look(9.0)
    assert sharing.live == ("a", "c")

"""A registry among others: whom it hears, and what it makes of hearing nothing of itself."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pillion_common.errors import Unavailable
from pillion_common.nats_link import NatsPlace
from pillion_registry import members
from pillion_registry.members import Members
from pillion_registry.sharing import FENCE_S, LEASE_S
from pillion_registry.store.nats_bucket import Entry


class Lab:
    """One member whose bucket is this object, at a time that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(members, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.link = SimpleNamespace(place=NatsPlace(("nats://h:1",), 1, "p"), stands=True)
        self.happened: list[str] = []
        self.one = Members(
            cast(Any, self.link),
            "r1",
            changed=lambda: self._note("changed"),
            lapsed=lambda: self._note("lapsed"),
            answer=self._answer,
            current=lambda: True,
            catch_up=self._catch_up,
        )
        self.one._tasks = cast(Any, SimpleNamespace(spawn=self._run))
        self.behind = False  # the catalogue is not of this moment, and cannot be brought there
        self.seq = 0

    def _note(self, what: str) -> None:
        self.happened.append(f"{what}: {', '.join(name.partition('-')[0] for name in self.one.sharing.live)}")

    async def _catch_up(self) -> None:
        if self.behind:
            raise Unavailable("NATS does not answer")

    def _run(self, what: str, work: Coroutine[Any, Any, None]) -> SimpleNamespace:
        """Run to its end what waits for nothing."""
        with pytest.raises(StopIteration):
            work.send(None)
        return SimpleNamespace(done=lambda: True)

    async def _answer(self, question: bytes) -> bytes:
        return question

    def hear(self, member: str, number: int = 1, deleted: bool = False, deaf: bool = False) -> None:
        self.seq += 1
        self.one._take(Entry(self.seq, member, json.dumps({"Number": number, "Deaf": deaf}).encode(), deleted))

    def pass_(self, seconds: float, own: bool = True, others: tuple[str, ...] = ()) -> None:
        """Let time pass, in which we hear ourselves and some others twice a second."""
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            self.one._look_for_own()
            self.one._look_once()
            if round(self.now * 10) % 5 == 0:
                if own:
                    self.renew()
                for member in others:
                    self.hear(member)

    def renew(self) -> None:
        number = self.one._number = self.one._number + 1
        if self.one._deaf:
            self.hear(self.one.me, number, deaf=True)
            number = self.one._number = self.one._number + 1
        self.one._sent.append((number, self.now))
        self.hear(self.one.me, number)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


def test_each_start_is_another_member(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab.one.me.startswith("r1-")
    assert lab.one.me != Lab(monkeypatch).one.me


def test_it_comes_up_with_its_own_lease_and_learns_of_others(lab: Lab) -> None:
    assert lab.one.fenced()
    lab.renew()
    lab.hear("r2-a")
    lab.hear("r2-a", 2)
    assert not lab.one.fenced()
    assert lab.happened == ["changed: r1", "lapsed: r1", "changed: r1, r2"]


def test_another_that_falls_silent_is_counted_out_and_one_that_leaves_at_once(lab: Lab) -> None:
    lab.renew()
    lab.hear("r2-a")
    lab.hear("r3-b")
    lab.happened.clear()
    lab.pass_(1.0, others=("r2-a", "r3-b"))
    assert lab.happened == []
    lab.pass_(LEASE_S + 0.6, others=("r2-a",))
    assert lab.happened == ["changed: r1, r2"]
    lab.hear("r2-a", deleted=True)
    assert lab.happened[1:] == ["changed: r1"]


def test_who_hears_nothing_is_fenced_then_lapsed_and_takes_all_anew_when_it_is_back(lab: Lab) -> None:
    lab.renew()
    lab.hear("r2-a")
    lab.pass_(1.0, others=("r2-a",))
    lab.happened.clear()
    lab.pass_(FENCE_S + 0.6, own=False)
    assert lab.one.fenced()
    assert lab.happened == []
    lab.pass_(10.0, own=False)
    assert lab.happened == []  # nobody is taken for dead: it is us who hear nothing
    lab.renew()
    assert lab.happened == ["lapsed: r1, r2"]  # and not as if we were alone
    assert not lab.one.fenced()
    lab.happened.clear()
    lab.pass_(LEASE_S + 0.3)
    assert lab.happened == ["changed: r1"]


def test_who_is_back_first_learns_what_it_has_missed(lab: Lab) -> None:
    lab.behind = True
    lab.renew()
    assert lab.one.fenced()
    assert lab.happened == []
    lab.behind = False
    lab.pass_(0.1)
    assert not lab.one.fenced()
    assert lab.happened == ["changed: r1", "lapsed: r1"]


def test_a_short_silence_is_nothing(lab: Lab) -> None:
    lab.renew()
    lab.pass_(1.0)
    lab.happened.clear()
    lab.pass_(FENCE_S + 0.2, own=False)
    assert lab.one.fenced()
    lab.renew()
    assert (lab.one.fenced(), lab.happened) == (False, [])


def test_a_lease_that_was_sent_long_ago_does_not_end_the_fence(lab: Lab) -> None:
    """A server that stood still hands out what it had: that says nothing of now."""
    lab.renew()
    lab.pass_(1.0)
    number = lab.one._number = lab.one._number + 1
    lab.one._sent.append((number, lab.now))
    lab.pass_(LEASE_S + 1.0, own=False)
    lab.happened.clear()
    lab.hear(lab.one.me, number)
    assert lab.one.fenced()
    assert lab.happened == []
    lab.hear(lab.one.me, number)  # twice
    lab.hear(lab.one.me, 999)  # never sent
    assert lab.one.fenced()


def test_what_is_no_lease_is_passed_over(lab: Lab) -> None:
    lab.one._take(Entry(1, lab.one.me, b"what?", False))
    assert lab.one.fenced()


def test_who_hears_nothing_of_itself_gives_its_lease_up_and_needs_a_new_one(lab: Lab) -> None:
    """Where only the way to it is cut, the others hear it: they need not wait for the end of the lease."""
    lab.renew()
    under_way = lab.one._number = lab.one._number + 1
    lab.one._sent.append((under_way, lab.now + FENCE_S))
    lab.pass_(FENCE_S + 0.2, own=False)
    assert not lab.one._deaf
    lab.pass_(0.2, own=False)
    assert lab.one._deaf
    assert lab.one._renew_now.is_set()
    lab.happened.clear()
    lab.hear(lab.one.me, under_way)  # the others have heard that one before, too
    assert lab.one.fenced()
    lab.hear(lab.one.me, under_way + 1, deaf=True)
    assert lab.one.fenced()
    assert not lab.one._deaf
    lab.renew()
    assert (lab.one.fenced(), lab.happened) == (False, ["lapsed: r1"])


def test_nobody_gives_up_a_lease_that_it_could_not_even_send(lab: Lab) -> None:
    lab.renew()
    lab.pass_(1.0)
    lab.link.stands = False
    lab.pass_(FENCE_S + 0.4, own=False)
    assert not lab.one._deaf
    assert lab.one.fenced()


def test_another_that_gives_its_lease_up_is_counted_out_at_once(lab: Lab) -> None:
    lab.renew()
    lab.hear("r2-a")
    lab.happened.clear()
    lab.hear("r2-a", 2, deaf=True)
    assert lab.happened == ["changed: r1"]
    lab.hear("r2-a", 3)
    assert lab.happened[1:] == ["changed: r1, r2"]


def test_after_a_silence_that_was_everybodys_nobody_takes_all_for_its_own(lab: Lab) -> None:
    lab.renew()
    lab.hear("r2-a")
    lab.pass_(LEASE_S + 1.0, own=False)
    lab.happened.clear()
    lab.hear("r2-a", 2, deaf=True)
    lab.renew()
    lab.hear("r2-a", 3, deaf=True)
    assert lab.happened == ["lapsed: r1, r2"]
    lab.pass_(LEASE_S + 0.2, others=("r2-a",))
    lab.hear("r2-a", 4, deaf=True)
    assert lab.happened[1:] == ["changed: r1"]

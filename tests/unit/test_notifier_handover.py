"""A notifier beside others: what it may send, when, and how it settles what nobody knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from pillion_common.errors import PeerError
from pillion_common.http.answers import Answer
from pillion_common.models import ProviderEntry, Registration
from pillion_common.networks import LOOPBACK, TargetRule
from pillion_registry import notifier
from pillion_registry.catalog import Catalog, Record
from pillion_registry.channels import Channels
from pillion_registry.dependent import Delivery, Dependent, Knowledge, restore, settle
from pillion_registry.notifier import Notifier, Standing
from pillion_registry.provider_set import ProviderSet
from pillion_registry.store.base import Known

URL = "http://127.0.0.1:1"
W, X, Y, Z = (ProviderEntry("Db", f"{URL}/{name}") for name in "wxyz")


class Line:
    """A channel that keeps what was sent; its answers are given by hand."""

    def __init__(self) -> None:
        self.patches: list[dict[str, Any]] = []
        self.waiting: list[Callable[[Any], None]] = []

    def send(self, data: bytes, on_done: Callable[[Any], None], timeout_s: float) -> None:
        self.patches.append(json.loads(data.partition(b"\r\n\r\n")[2]))
        self.waiting.append(on_done)

    def answer(self, outcome: Answer | PeerError | None = None) -> None:
        self.waiting.pop(0)(outcome or Answer(200, (), b""))

    def close(self) -> None:
        pass


class Exchange(Channels):
    def __init__(self, line: Line) -> None:
        super().__init__(TargetRule(LOOPBACK), lambda instance_id: None)
        self.line = line

    def get(self, record: Record, url: object) -> Any:
        return self.line

    def open(self, record: Record, url: object) -> Any:
        return self.line


class Lab:
    """A notifier with one dependent of Db; `asked` are the words that are waited for before a patch, `kept` those after one."""

    def __init__(self) -> None:
        self.catalog = Catalog(100)
        self.line = Line()
        self.asked: list[tuple[Delivery, Callable[[bool], None]]] = []
        self.kept: list[tuple[Known, Callable[[], None]]] = []
        self.may = True
        self.notifier = Notifier(
            self.catalog, Exchange(self.line), self._keep, epoch="e", timeout_s=1.0, token=None,
            on_telling=self._ask, may_tell=lambda: self.may,
        )  # fmt: skip

    def _ask(self, _: Dependent, delivery: Delivery, then: Callable[[bool], None]) -> None:
        self.asked.append((delivery, then))

    def _keep(self, _: Dependent, known: Known, then: Callable[[], None]) -> None:
        self.kept.append((known, then))

    def add(self, instance_id: str, name: str, *requires: str, protocol: int | None = None) -> Record:
        url = f"{URL}/{instance_id}"
        given = Registration(name, url, requires, url, url, instance_id=instance_id, protocol=protocol)
        self.catalog.accept(self.catalog.decide(given, "127.0.0.1", 0.0))
        instance = self.catalog.get(instance_id)
        assert instance is not None
        self.catalog.passed(instance, 0.0)
        return instance.record

    def watch(self, protocol: int | None = None, known: Known | None = None, doubts: tuple[ProviderEntry, ...] = ()) -> Record:
        record = self.add("shop", "Shop", "Db", protocol=protocol)
        self.notifier.watch(record, known, doubts)
        return record

    def standing(self) -> Standing:
        standing = self.notifier.standing("shop")
        assert standing is not None
        return standing

    async def allow(self) -> None:
        self.asked.pop(0)[1](True)
        await turns()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def urls(patch: dict[str, Any], what: str) -> set[str]:
    return {entry["URL"] for entry in patch.get(what) or []}


@pytest.fixture
async def lab() -> Lab:
    return Lab()


async def test_a_classic_dependent_is_sent_nothing_before_it_is_kept_what_it_will_be_told(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    (delivery, _) = lab.asked[0]
    assert lab.line.patches == []
    assert {entry.url for entry in delivery.patch.added or ()} == {X.url}
    assert lab.standing().sending_since_s is not None
    await lab.allow()
    assert [urls(patch, "Added") for patch in lab.line.patches] == [{X.url}]
    lab.line.answer()
    assert [{name: [entry.url for entry in entries] for name, entries in known.items()} for known, _ in lab.kept] == [{"Db": [X.url]}]


async def test_the_next_patch_waits_until_the_last_answer_is_kept(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    lab.line.answer()
    lab.add("y", "Db")
    lab.notifier.changed(["Db"])
    await turns()
    assert lab.asked == []
    lab.kept.pop()[1]()
    await turns()
    await lab.allow()
    assert urls(lab.line.patches[-1], "Added") == {Y.url}


async def test_what_has_changed_by_the_answer_is_told_at_once_and_kept_together_with_it(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    lab.add("y", "Db")
    lab.notifier.changed(["Db"])
    lab.line.answer()
    await turns()
    assert lab.kept == []
    await lab.allow()
    assert urls(lab.line.patches[-1], "Added") == {Y.url}
    lab.line.answer()
    assert [{entry.url for entry in known["Db"]} for known, _ in lab.kept] == [{X.url, Y.url}]


async def test_an_answer_is_kept_by_itself_where_nothing_comes_next_after_all(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "BACKOFF_BASE_S", 0.01)
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    lab.add("y", "Db")
    lab.line.answer()
    await turns()
    lab.catalog.remove("y", "deregistered")
    lab.asked.pop(0)[1](False)  # y could not be kept, and is gone when it is tried again
    async with asyncio.timeout(2):
        while not lab.kept:
            await asyncio.sleep(0.005)
    assert [{entry.url for entry in known["Db"]} for known, _ in lab.kept] == [{X.url}]


async def test_what_may_not_be_sent_is_tried_again_with_the_truth_of_then(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "BACKOFF_BASE_S", 0.01)
    lab.add("x", "Db")
    lab.watch()
    await turns()
    lab.asked.pop(0)[1](False)
    assert lab.line.patches == []
    assert lab.standing().fault == "what it knows could not be kept"
    lab.add("y", "Db")
    async with asyncio.timeout(2):
        while not lab.asked:
            await asyncio.sleep(0.005)
    await lab.allow()
    assert urls(lab.line.patches[0], "Added") == {X.url, Y.url}


async def test_a_word_about_one_that_is_told_by_somebody_else_by_now_sends_nothing(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    lab.notifier.forget("shop")
    await lab.allow()
    assert (lab.line.patches, lab.kept) == ([], [])


async def test_an_answer_that_comes_after_the_dependent_was_given_away_keeps_nothing(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    lab.notifier.forget("shop")
    lab.line.answer()
    await turns()
    assert lab.kept == []


@pytest.mark.parametrize("protocol", [None, 2])
async def test_while_nobody_may_be_told_patches_are_held_back(lab: Lab, protocol: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "HELD_BACK_S", 0.01)
    lab.may = False
    lab.add("x", "Db")
    lab.watch(protocol)
    for _ in range(3):
        await asyncio.sleep(0.02)
        if lab.asked:
            await lab.allow()
    assert lab.line.patches == []
    lab.may = True
    async with asyncio.timeout(2):
        while not lab.line.patches:
            await asyncio.sleep(0.005)
            if lab.asked:
                await lab.allow()
    assert urls(lab.line.patches[0], "Added") == {X.url}


async def test_a_new_style_dependent_needs_no_keeping_and_gets_the_whole_truth(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch(2)
    await turns()
    assert lab.asked == []
    assert (lab.line.patches[0]["Full"], urls(lab.line.patches[0], "Added")) == (True, {X.url})


async def test_what_is_in_doubt_is_taken_from_it_before_anything_else(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch(None, {"Db": (Y,)}, (X,))  # it knows y, which is gone, and may have been told of x
    await turns()
    await lab.allow()
    assert [(urls(patch, "Added"), urls(patch, "Removed")) for patch in lab.line.patches] == [(set(), {X.url})]
    lab.line.answer()
    await turns()
    assert (urls(lab.line.patches[1], "Added"), urls(lab.line.patches[1], "Removed")) == ({X.url}, set())
    assert (lab.asked, lab.kept) == ([], [])  # what was kept before holds for it too, so x is away no longer than it has to be
    lab.line.answer()
    await turns()
    assert lab.kept == []  # that is kept before the next patch
    await lab.allow()
    assert (urls(lab.line.patches[2], "Added"), urls(lab.line.patches[2], "Removed")) == (set(), {Y.url})
    lab.line.answer()
    lab.kept.pop()[1]()
    await turns()
    assert lab.asked == []


async def test_it_stays_in_doubt_until_it_has_acknowledged(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "BACKOFF_BASE_S", 0.01)
    lab.add("x", "Db")
    lab.watch(None, {}, (X,))
    await turns()
    await lab.allow()
    lab.line.answer(Answer(500, (), b""))
    async with asyncio.timeout(2):
        while not lab.asked:
            await asyncio.sleep(0.005)
    await lab.allow()
    assert [urls(patch, "Removed") for patch in lab.line.patches] == [{X.url}, {X.url}]


async def test_what_was_given_back_without_an_answer_is_in_doubt_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "BACKOFF_BASE_S", 0.01)
    lab.add("x", "Db")
    lab.watch(None, {}, (X,))
    await turns()
    await lab.allow()
    lab.line.answer()
    assert urls(lab.line.patches[1], "Added") == {X.url}
    lab.line.answer(PeerError("timed out"))
    async with asyncio.timeout(2):
        while not lab.asked:
            await asyncio.sleep(0.005)
    await lab.allow()
    lab.line.answer()
    lab.line.answer()
    assert [(urls(patch, "Added"), urls(patch, "Removed")) for patch in lab.line.patches[2:]] == [(set(), {X.url}), ({X.url}, set())]
    await turns()
    assert [{entry.url for entry in known["Db"]} for known, _ in lab.kept] == [{X.url}]


def test_settling_takes_the_doubts_out_of_what_is_known() -> None:
    known = Knowledge(MappingProxyType({"Db": ProviderSet({X.url: X, Y.url: Y}), "Log": None}), None)
    planned = settle(known, (X,), 7, "e")
    assert planned.delivery is not None
    patch, result = planned.delivery
    assert (patch.added, patch.removed, patch.revision, patch.epoch) == ((), (X,), 7, "e")
    assert {name: told and set(told.entries) for name, told in result.sets.items()} == {"Db": {Y.url}, "Log": None}
    assert planned.known is known


def test_what_was_taken_in_doubt_is_given_back_as_far_as_it_is_true() -> None:
    truth = {"Db": ProviderSet({X.url: X, Z.url: Z}), "Log": ProviderSet({})}
    known = Knowledge(MappingProxyType({"Db": ProviderSet({W.url: W}), "Log": None}), None)
    delivery = restore(known, (X, Y), lambda name: truth[name], 7, "e")
    assert delivery is not None
    assert (delivery.patch.added, delivery.patch.removed, delivery.patch.revision) == ((X,), (), 7)  # z is no doubt: it comes later
    assert {name: told and set(told.entries) for name, told in delivery.result.sets.items()} == {"Db": {W.url, X.url}, "Log": None}
    assert restore(known, (Y,), lambda name: truth[name], 7, "e") is None
    assert restore(known, (ProviderEntry("Other", X.url),), lambda name: truth[name], 7, "e") is None


async def test_who_finishes_begins_no_patch_and_waits_for_what_is_under_way(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    finishing = asyncio.create_task(lab.notifier.finish(5.0))
    await asyncio.sleep(0.03)
    lab.line.answer()
    lab.add("y", "Db")
    lab.notifier.changed(["Db"])
    await asyncio.sleep(0.03)
    assert not finishing.done()  # the answer is not kept yet
    lab.kept.pop()[1]()
    await asyncio.wait_for(finishing, 1)
    assert (lab.asked, len(lab.line.patches)) == ([], 1)


async def test_who_finishes_waits_no_longer_than_it_may(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    await asyncio.wait_for(lab.notifier.finish(0.05), 1)


async def test_one_that_another_goes_on_with_is_left_when_what_is_under_way_was_answered_and_kept(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    left: list[str] = []
    lab.notifier.retire("shop", lambda: left.append("shop"))
    lab.add("y", "Db")
    lab.notifier.changed(["Db"])
    await turns()
    assert left == []
    lab.line.answer()
    await turns()
    (known, then) = lab.kept.pop()
    assert [entry.url for entry in known["Db"]] == [f"{URL}/x"]
    assert left == []
    then()
    await turns()
    assert left == ["shop"]
    assert lab.notifier.standing("shop") is None
    assert (lab.asked, len(lab.line.patches)) == ([], 1)  # of y the other one tells


async def test_one_whose_patch_under_way_fails_is_left_to_the_other(lab: Lab) -> None:
    lab.add("x", "Db")
    lab.watch()
    await turns()
    await lab.allow()
    left: list[str] = []
    lab.notifier.retire("shop", lambda: left.append("shop"))
    lab.line.answer(PeerError("timed out"))
    await turns()
    assert left == ["shop"]
    assert lab.kept == []
    assert lab.notifier.standing("shop") is None


async def test_one_to_whom_nothing_is_under_way_is_left_at_once(lab: Lab) -> None:
    lab.watch()
    await turns()
    left: list[str] = []
    lab.notifier.retire("shop", lambda: left.append("shop"))
    assert left == ["shop"]
    assert lab.notifier.standing("shop") is None


async def test_a_doubt_that_was_settled_is_kept_where_nothing_comes_next(lab: Lab) -> None:
    lab.watch(None, {}, (X,))
    await turns()
    await lab.allow()
    lab.line.answer()
    await turns()
    assert [known for known, _ in lab.kept] == [{"Db": ()}]
    assert lab.asked == []

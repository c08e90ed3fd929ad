"""The notifier: one plan and one encoding for all who know the same, and nobody's trouble is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pillion_common.errors import PeerError, PeerTimedOut
from pillion_common.http.answers import Answer
from pillion_common.models import Registration, encode
from pillion_common.networks import LOOPBACK, TargetRule
from pillion_registry import notifier
from pillion_registry.catalog import Catalog, Record
from pillion_registry.channels import Channels
from pillion_registry.notifier import Notifier

OK = Answer(200, (), b"")


class Line:
    """A channel that keeps what was sent on it, and answers it as it is told to."""

    def __init__(self, outcome: Answer | PeerError | None) -> None:
        self.sent: list[bytes] = []
        self.outcome = outcome  # None: never

    def send(self, data: bytes, on_done: Callable[[Any], None], timeout_s: float, *, retry: bool = False) -> None:
        self.sent.append(data)
        if self.outcome is not None:
            asyncio.get_running_loop().call_soon(on_done, self.outcome)


class Exchange(Channels):
    """Gives each instance a line of its own."""

    def __init__(self) -> None:
        super().__init__(TargetRule(LOOPBACK), lambda instance_id: None)
        self.lines: dict[str, Line] = {}

    def get(self, record: Record, url: object) -> Any:
        return self.lines.setdefault(record.instance_id, Line(OK))


class Lab:
    def __init__(self) -> None:
        self.catalog = Catalog(1000)
        self.exchange = Exchange()
        self.notifier = Notifier(self.catalog, self.exchange, lambda *_: None, epoch="e", timeout_s=1.0, token=None)

    def register(self, instance_id: str, name: str, *requires: str) -> None:
        url = f"http://127.0.0.1:1/{instance_id}"
        given = Registration(name, url, requires, url, url, instance_id=instance_id, protocol=2)
        self.catalog.accept(self.catalog.decide(given, "127.0.0.1", 0.0))
        instance = self.catalog.get(instance_id)
        assert instance is not None
        self.notifier.watch(instance.record)

    def up(self, instance_id: str) -> None:
        instance = self.catalog.get(instance_id)
        assert instance is not None
        self.catalog.passed(instance, 0.0)
        self.notifier.changed([instance.name])


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_change_is_encoded_once_for_all_who_know_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    monkeypatch.setattr(notifier, "encode", lambda patch: encoded.append(patch) or encode(patch))
    lab = Lab()
    for number in range(50):
        lab.register(f"d{number}", "Portald", "Db")
        await settle()  # each is told at a revision of its own
    for number in range(3):
        lab.register(f"db{number}", "Db")
    lab.up("db0")
    await settle()
    encoded.clear()
    lab.up("db1")
    await settle()
    lab.up("db2")
    await settle()
    assert [[entry.instance_id for entry in patch.added] for patch in encoded] == [["db1"], ["db2"]]
    bodies = {line.sent[-1].partition(b"\r\n\r\n")[2] for name, line in lab.exchange.lines.items() if name.startswith("d")}
    assert len(bodies) == 1


async def test_what_changed_is_planned_anew_for_those_who_know_the_same_as_before() -> None:
    lab = Lab()
    lab.register("d", "Portald", "Db")
    lab.register("db", "Db")
    await settle()
    lab.exchange.lines["d"].outcome = PeerTimedOut("silent")
    lab.up("db")
    await settle()
    lab.catalog.remove("db", "gone")
    lab.exchange.lines["d"].outcome = OK
    lab.notifier.kick("d")
    await settle()
    assert len(lab.exchange.lines["d"].sent) == 2, "it came and went unseen: there is nothing to tell"


async def test_one_that_never_answers_and_one_that_fails_change_nothing_for_the_others() -> None:
    lab = Lab()
    for name in ("hangs", "fails", "well"):
        lab.register(name, "Portald", "Db")
    await settle()
    lab.exchange.lines["hangs"].outcome = None
    lab.exchange.lines["fails"].outcome = PeerTimedOut("silent")
    lab.register("db0", "Db")
    lab.register("db1", "Db")
    lab.up("db0")
    await settle()
    lab.up("db1")
    await settle()
    assert {name: len(line.sent) for name, line in lab.exchange.lines.items()} == {"hangs": 2, "fails": 2, "well": 3}


async def test_a_fault_of_ours_about_one_dependent_is_logged_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab()
    for name in ("a", "b"):
        lab.register(name, "Portald", "Db")
    tell = lab.notifier._tell

    def fail_for_a(outbox: Any) -> None:
        if outbox.dependent.instance_id == "a":
            raise RuntimeError("a fault")
        tell(outbox)

    monkeypatch.setattr(lab.notifier, "_tell", fail_for_a)
    await settle()
    assert "no patch for a: a fault" in caplog.text
    assert list(lab.exchange.lines) == ["b"]
    lab.notifier.forget("a")

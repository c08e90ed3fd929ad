"""What the log service is told of the registry's events: in order, each once, and how many are missing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pillion_common.errors import PeerRefused
from pillion_common.http.answers import Answer
from pillion_common.models import Registration
from pillion_common.trust import Token
from pillion_registry import timeline
from pillion_registry.catalog import Catalog, Instance, Record
from pillion_registry.events import Event
from pillion_registry.timeline import Timeline

NOW_S = 1769860800.123
OK = Answer(200, (), b"{}")


class Line:
    """A channel whose answers are told, one for each request; the last one again and again."""

    def __init__(self, *outcomes: Answer | PeerRefused) -> None:
        self.outcomes = list(outcomes)
        self.bodies: list[bytes] = []
        self.heads: list[tuple[str, tuple[str, ...]]] = []
        self.closed = False

    async def request(self, method: str, target: str, *, body: bytes, headers: tuple[str, ...], timeout_s: float) -> Answer:
        self.bodies.append(body)
        self.heads.append((f"{method} {target}", headers))
        await asyncio.sleep(0)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, PeerRefused):
            raise outcome
        return outcome

    def close(self) -> None:
        self.closed = True


class Lab:
    def __init__(self, *providers: str, service: str = "LogService", token: Token | None = None, trusted: bool = False) -> None:
        self.catalog = Catalog(100)
        self.lines = {url: Line(OK) for url in providers}
        self.timeline = Timeline(self.catalog, self._open, service, token, lambda: NOW_S)
        for url in providers:
            self.register("LogService", url, trusted)
        self._task: asyncio.Task[None] | None = None

    def register(self, name: str, url: str, trusted: bool = False) -> Instance:
        decision = self.catalog.decide(Registration(name, url), "10.0.0.7", NOW_S, trusted)
        self.catalog.accept(decision)
        instance = self.catalog.get(decision.record.instance_id)
        assert instance is not None
        self.catalog.passed(instance, NOW_S)
        return instance

    def _open(self, record: Record, url: object) -> Any:
        return self.lines[record.url]

    async def start(self) -> None:
        self._task = asyncio.create_task(self.timeline.run())

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def happened(self, kind: str, reason: str | None = None) -> None:
        self.timeline.note(Event(1, NOW_S, 1, kind, "GradingService", "grading-1", "http://10.0.0.7:6000", reason=reason))

    def sent(self, url: str) -> list[dict[str, Any]]:
        return [json.loads(line) for body in self.lines[url].bodies for line in body.splitlines()]


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "LINGER_S", 0.001)
    monkeypatch.setattr(timeline, "BACKOFF_BASE_S", 0.001)


LOG = "http://10.0.0.9:4000"
OTHER = "http://10.0.0.8:4000/base"


async def test_event_becomes_an_entry_about_the_instance() -> None:
    lab = Lab(LOG)
    await lab.start()
    lab.happened("down", "connection refused")
    await until(lambda: lab.sent(LOG))
    (entry,) = lab.sent(LOG)
    assert entry.pop("Source").startswith("registry/")
    assert entry == {
        "Time": "2026-01-31T12:00:00.123Z",
        "Service": "registry",
        "Level": "warning",
        "Message": "GradingService at http://10.0.0.7:6000 is down: connection refused",
        "Instance": "grading-1",
        "Seq": 1,
        "Subject": "GradingService",
        "Event": "down",
        "Reason": "connection refused",
        "URL": "http://10.0.0.7:6000",
    }
    assert lab.lines[LOG].heads == [("POST /logs", ("Content-Type: application/x-ndjson",))]
    await lab.end()
    assert lab.lines[LOG].closed


@pytest.mark.parametrize(
    ("kind", "reason", "message"),
    [
        ("up", None, "GradingService at http://10.0.0.7:6000 is up"),
        ("left", "deregistered", "GradingService at http://10.0.0.7:6000 has left: deregistered"),
        ("undrained", None, "GradingService at http://10.0.0.7:6000 is offered again"),
    ],
)
async def test_event_is_told_in_words(kind: str, reason: str | None, message: str) -> None:
    lab = Lab(LOG)
    lab.happened(kind, reason)
    await lab.start()
    await until(lambda: lab.sent(LOG))
    (entry,) = lab.sent(LOG)
    assert (entry["Event"], entry["Message"], entry["Level"], entry.get("Reason")) == (kind, message, "info", reason)
    await lab.end()


async def test_what_concerns_no_instance_is_told_without_one() -> None:
    lab = Lab(LOG)
    lab.timeline.note(Event(1, NOW_S, 1, "started", reason="the registry started with 3 instances"))
    shop = lab.register("Shop", "http://10.0.0.7:7000")
    for _ in range(2):
        lab.catalog.missed(shop, "did not answer within 2 s", 9, NOW_S)
        lab.timeline.missed(shop, "did not answer within 2 s")  # once is enough
    await lab.start()
    await until(lambda: lab.sent(LOG))
    first, second = lab.sent(LOG)
    assert (first["Message"], first["Event"]) == ("the registry started with 3 instances", "started")
    assert not {"Subject", "Instance", "URL"} & first.keys()
    assert (second["Subject"], second["Event"], second["Level"]) == ("Shop", "suspect", "warning")
    await lab.end()


async def test_batch_is_sent_again_as_it_was_until_somebody_acknowledges_it() -> None:
    lab = Lab(LOG, OTHER)
    lab.lines[LOG].outcomes = [PeerRefused("refused"), OK]
    lab.lines[OTHER].outcomes = [Answer(503, (), b"busy"), OK]
    lab.happened("down", "one")
    await lab.start()
    await until(lambda: len(lab.lines[LOG].bodies) == 2)
    lab.happened("up")
    await until(lambda: len(lab.lines[LOG].bodies) == 3)
    assert lab.lines[LOG].bodies[0] == lab.lines[LOG].bodies[1] == lab.lines[OTHER].bodies[0]
    assert [entry["Seq"] for entry in lab.sent(LOG)] == [1, 1, 2]
    assert lab.lines[OTHER].heads[0][0] == "POST /base/logs"
    await lab.end()


async def test_events_wait_while_no_log_service_is_up_and_the_oldest_give_way(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timeline, "MAX_WAITING", 10)
    lab = Lab()
    lab.lines[LOG] = Line(OK)
    await lab.start()
    for number in range(3):
        lab.happened("down", str(number))
    await until(lambda: lab.timeline._batch)  # made before it was seen that nobody takes it
    for number in range(3, 20):
        lab.happened("down", str(number))
    lab.register("LogService", LOG)
    lab.happened("up", "20")
    await until(lambda: len(lab.sent(LOG)) == 14)
    sent = lab.sent(LOG)
    assert [entry["Seq"] for entry in sent] == [1, 2, 3, 11, *range(12, 22)]
    assert (sent[3]["Gap"], sent[3]["Service"], sent[3]["From"]) == (8, "registry", "2026-01-31T12:00:00.123Z")
    assert sent[3]["Message"] == "8 events of the registry are missing: no log service took them, and it holds 10"
    assert [record.message for record in caplog.records if "the oldest are dropped" in record.message] == [
        "10 events wait for a log service; from now on the oldest are dropped, and counted"
    ]
    await lab.end()


async def test_classic_log_service_is_asked_once_and_left_alone() -> None:
    lab = Lab(LOG, OTHER)
    lab.lines[LOG].outcomes = [Answer(404, (), b"")]
    await lab.start()
    for number in range(3):
        lab.happened("down", str(number))
        await until(lambda number=number: len(lab.lines[OTHER].bodies) == number + 1)
    assert len(lab.lines[LOG].bodies) == 1
    await lab.end()


@pytest.mark.parametrize(("trusted", "headers"), [(True, 2), (False, 1)])
async def test_token_is_sent_only_to_those_who_registered_with_it(trusted: bool, headers: int) -> None:
    lab = Lab(LOG, token=Token("a-token-of-the-tests-0123456789"), trusted=trusted)
    lab.happened("down", "x")
    await lab.start()
    await until(lambda: lab.lines[LOG].heads)
    assert len(lab.lines[LOG].heads[0][1]) == headers
    await lab.end()


async def test_nothing_is_noted_where_nobody_is_to_be_told() -> None:
    lab = Lab(service="")
    lab.happened("down", "x")
    assert not lab.timeline._waiting


async def test_many_events_go_in_batches() -> None:
    lab = Lab(LOG)
    for number in range(1_200):
        lab.happened("down", str(number))
    await lab.start()
    await until(lambda: len(lab.sent(LOG)) == 1_200)
    assert [len(body.splitlines()) for body in lab.lines[LOG].bodies] == [500, 500, 200]
    await lab.end()

"""The prober: what a check that got no answer means, and what it does not."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from async_peer import peer_that, silent

from pillion_common.http.answers import Answer
from pillion_common.models import Registration
from pillion_common.networks import LOOPBACK, TargetRule
from pillion_common.tasks import Supervisor
from pillion_registry.catalog import Record
from pillion_registry.channels import Channels
from pillion_registry.lag import LagMeter
from pillion_registry.prober import MAX_REASON_CHARS, Finding, Prober, Verdict, _judge, tidy


class Lag(LagMeter):
    """Says what the test wants: was this process late itself?"""

    def __init__(self, late: bool) -> None:
        super().__init__(0.5)
        self._late = late

    def late_within(self, seconds: float) -> bool:
        return self._late


@pytest.mark.parametrize(("late", "verdicts"), [(True, []), (False, [Verdict.MISSED])])
async def test_silence_counts_only_if_we_were_not_late_ourselves(late: bool, verdicts: list[Verdict]) -> None:
    findings: list[Finding] = []

    def note(record: Record, finding: Finding) -> bool:
        findings.append(finding)
        return False

    tasks = Supervisor()
    channels = Channels(TargetRule(LOOPBACK), lambda instance_id: None)
    async with peer_that(silent) as peer:
        prober = Prober(channels, Lag(late), note, interval_s=30.0, timeout_s=0.1)
        tasks.keep("prober", prober.run())
        prober.watch(Record("a", 1, "127.0.0.1", 0.0, Registration("A", peer.url, heartbeat_url=peer.url)))
        await asyncio.sleep(0.25)
        await tasks.stop()
        channels.close()
        await asyncio.sleep(0.05)  # the peer sees its connection end
    assert [finding.verdict for finding in findings] == verdicts


async def test_checks_spread_evenly_over_the_interval_however_many_came_at_once() -> None:
    channels = Channels(TargetRule(LOOPBACK), lambda instance_id: None)
    prober = Prober(channels, Lag(False), lambda record, finding: False, interval_s=3.0, timeout_s=1.0)
    for number in range(100):
        url = f"http://127.0.0.1:1/{number}"
        prober.watch(Record(f"i{number}", number, "127.0.0.1", 0.0, Registration("A", url, heartbeat_url=url)), delay_s=60.0)
    turns = sorted(prober._next_turn(target, 1000.0) for target in prober._targets.values())
    assert 1000.0 < turns[0] < 1000.06
    assert 1002.94 < turns[-1] <= 1003.0
    gaps = [later - earlier for earlier, later in itertools.pairwise(turns)]
    assert max(gaps) < 0.06  # 0.03 each if they were spread by hand


async def test_an_instance_that_is_up_and_registers_again_keeps_its_turn() -> None:
    channels = Channels(TargetRule(LOOPBACK), lambda instance_id: None)
    prober = Prober(channels, Lag(False), lambda record, finding: False, interval_s=3.0, timeout_s=1.0)
    url = "http://127.0.0.1:1/"
    prober.watch(Record("a", 1, "127.0.0.1", 0.0, Registration("A", url, heartbeat_url=url)), delay_s=60.0)
    due = prober._targets["a"].due
    again = Record("a", 2, "127.0.0.1", 0.0, Registration("A", url, heartbeat_url=url))
    prober.watch(again, healthy=True)
    assert prober._targets["a"].due == due
    assert prober._targets["a"].record is again


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"State":"down","Reason":"exit code 2: gone"}', "exit code 2: gone"),
        (b'{"State":"starting","Reason":"not yet"}', "not yet"),
        (b"out of order\n", "out of order"),
        (b"", "its heartbeat answered 503"),
        (b'{"State":"down","Reason":"\\u001b[2J a\\u0007\\n b"}', "[2J a b"),
    ],
)
def test_the_reason_of_a_503_is_what_the_heartbeat_says(body: bytes, reason: str) -> None:
    assert _judge(Answer(503, (), body)) == Finding(Verdict.FAILED, reason)


def test_a_reason_is_bounded() -> None:
    assert tidy("x" * 100_000) == "x" * MAX_REASON_CHARS

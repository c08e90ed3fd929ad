"""The prober: what a check that got no answer means, and what it does not."""

from __future__ import annotations

import asyncio

import pytest
from async_peer import peer_that, silent

from pillion_common.models import Registration
from pillion_common.tasks import Supervisor
from pillion_common.trust import LOOPBACK, TargetRule
from pillion_registry.catalog import Record
from pillion_registry.channels import Channels
from pillion_registry.lag import LagMeter
from pillion_registry.prober import Finding, Prober, Verdict


class Lag(LagMeter):
    """Says what the test wants: was this process late itself?"""

    def __init__(self, late: bool) -> None:
        super().__init__()
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
    channels = Channels(TargetRule(LOOPBACK), lambda instance_id, generation: None)
    async with peer_that(silent) as peer:
        prober = Prober(channels, tasks, Lag(late), note, interval_s=30.0, timeout_s=0.1)
        tasks.keep("prober", prober.run())
        prober.watch(Record("a", 1, "127.0.0.1", 0.0, Registration("A", peer.url, heartbeat_url=peer.url)))
        await asyncio.sleep(0.25)
        await tasks.stop()
        channels.close()
    assert [finding.verdict for finding in findings] == verdicts

"""A rolling restart loses no request; the figures for five instances and five runs are `scripts/bench rolling`."""

from __future__ import annotations

from pathlib import Path

from rolling_fleet import Fleet


def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    with Fleet(tmp_path, 3) as fleet:
        outcome = fleet.under_load(100, fleet.restart_all)
    assert outcome.failures == []
    assert outcome.requests > 200

"""Back-off, lag and the clock's text, with a clock and dice of our own: nothing here waits."""

from __future__ import annotations

import pytest

from pillion_common.backoff import Backoff
from pillion_common.clock import parse_rfc3339, rfc3339
from pillion_registry.lag import TICK_S, LagMeter


def test_delays_grow_to_the_cap_and_start_anew_after_a_success() -> None:
    backoff = Backoff(0.1, 1.0, rand=lambda: 1.0)
    assert [round(backoff.next_delay(), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_delay() == pytest.approx(0.1)


def test_a_delay_is_never_nothing_and_never_over_the_cap() -> None:
    low, high = Backoff(0.1, 10.0, rand=lambda: 0.0), Backoff(0.1, 10.0, rand=lambda: 1.0)
    for _ in range(5000):
        assert low.next_delay() > 0
        assert high.next_delay() <= 10.0


def test_two_crowds_do_not_come_back_as_one() -> None:
    assert len({Backoff(1.0, 10.0).next_delay() for _ in range(100)}) > 90


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_in_time_was_never_late() -> None:
    clock = Clock()
    meter = LagMeter(0.5, clock)
    clock.now += 0.5
    meter.observe()
    assert not meter.late_within(1e9)


def test_a_pause_is_seen_at_once_and_forgotten_after_its_time() -> None:
    clock = Clock()
    meter = LagMeter(0.5, clock)
    clock.now += 3.0
    assert meter.late_within(0.1)
    meter._expected = clock.now + 100
    clock.now += 2.0
    assert meter.late_within(2.0)
    assert not meter.late_within(1.9)


async def test_the_running_meter_keeps_its_own_expectation() -> None:
    import asyncio

    meter = LagMeter(5.0)
    task = asyncio.create_task(meter.run())
    await asyncio.sleep(3 * TICK_S)
    assert not meter.late_within(60.0)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize(
    ("epoch_s", "text"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1769860800.123, "2026-01-31T12:00:00.123Z"), (1769860800.75, "2026-01-31T12:00:00.750Z")],
)
def test_a_time_as_text(epoch_s: float, text: str) -> None:
    assert rfc3339(epoch_s) == text
    assert parse_rfc3339(text) == pytest.approx(epoch_s, abs=0.001)


def test_a_time_just_before_the_full_second_stays_a_time() -> None:
    assert rfc3339(1769860800.9999) in ("2026-01-31T12:00:00.999Z", "2026-01-31T12:00:01.000Z")


def test_a_time_without_an_offset_is_utc() -> None:
    assert parse_rfc3339("1970-01-01T01:00:00") == 3600.0
    assert parse_rfc3339("1970-01-01T01:00:00+01:00") == 0.0
    with pytest.raises(ValueError):
        parse_rfc3339("yesterday")

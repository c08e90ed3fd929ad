"""To which of several log services lines go, when one fails."""

from __future__ import annotations

from pillion_sidecar.logs.targets import CAP_S, Targets

A, B = "http://a", "http://b"


class Bench:
    def __init__(self, rand: float = 0.5) -> None:
        self.now = 100.0
        self.targets = Targets(lambda: self.now, lambda: rand)


def test_it_stays_with_one_that_takes_lines_whoever_else_is_there() -> None:
    bench = Bench(rand=0.0)
    assert bench.targets.choose([B]) == B
    assert [bench.targets.choose([A, B]) for _ in range(5)] == [B] * 5


def test_one_that_fails_is_left_for_another_and_it_stays_there() -> None:
    bench = Bench(rand=0.0)
    assert bench.targets.choose([A, B]) == A
    bench.targets.failed(A)
    assert bench.targets.choose([A, B]) == B
    bench.now += 60
    assert bench.targets.choose([A, B]) == B


def test_one_that_fails_alone_is_tried_again_later_each_time() -> None:
    bench = Bench(rand=0.99999)
    pauses = []
    for _ in range(8):
        assert bench.targets.choose([A]) == A
        bench.targets.failed(A)
        assert bench.targets.choose([A]) == ""
        pauses.append(round(bench.targets.pause_s(), 3))
        bench.now += bench.targets.pause_s()
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    bench.targets.took(A)
    bench.targets.failed(A)
    assert round(bench.targets.pause_s(), 3) == 0.1


def test_what_one_wishes_itself_is_heeded_up_to_a_minute() -> None:
    bench = Bench()
    bench.targets.choose([A])
    bench.targets.failed(A, wish_s=7)
    assert bench.targets.pause_s() == 7
    bench.targets.failed(A, wish_s=86400)
    assert bench.targets.pause_s() == 60


def test_the_shortest_time_is_waited_for() -> None:
    bench = Bench()
    bench.targets.failed(A, wish_s=7)
    bench.targets.failed(B, wish_s=3)
    assert bench.targets.choose([A, B]) == ""
    assert bench.targets.pause_s() == 3


def test_one_that_has_gone_is_forgotten_and_all_may_be_forgiven() -> None:
    bench = Bench()
    bench.targets.failed(A, wish_s=30)
    assert bench.targets.choose([B]) == B
    assert bench.targets.choose([A]) == A, "who was away is somebody new"
    bench.targets.failed(A, wish_s=30)
    bench.targets.forgive()
    assert bench.targets.choose([A]) == A


def test_without_anybody_it_waits_for_the_table() -> None:
    bench = Bench()
    assert bench.targets.choose([]) == ""
    assert bench.targets.pause_s() == CAP_S

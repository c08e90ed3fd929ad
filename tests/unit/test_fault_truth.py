"""The account of what dependents should know: it notices each kind of wrong table, and lets what may be pass."""

from __future__ import annotations

from truth import Truth

URL, OTHER = "http://127.0.0.1:1", "http://127.0.0.1:2"


def known(dependents: int = 1) -> Truth:
    """Return an account in which all know a healthy provider since second 1."""
    truth = Truth({f"d{n}": ["Db"] for n in range(dependents)} | {"idle": ["Mail"]})
    truth.change(URL, "Db", True, 0.0)
    for n in range(dependents):
        truth.added(f"d{n}", "Db", URL, 1.0, appends=True)
    assert truth.all_settled
    return truth


def test_a_change_is_told_when_all_who_require_it_have_it() -> None:
    truth = Truth({"a": ["Db"], "b": ["Db", "Mail"], "c": ["Mail"]})
    truth.begin(0.0)
    truth.change(URL, "Db", True, 1.0)
    truth.added("a", "Db", URL, 1.5, appends=True)
    assert not truth.settled(URL)
    truth.added("b", "Db", URL, 3.0, appends=False)
    assert (truth.settled(URL), truth.told, truth.slowest_s) == (True, 1, 2.0)
    truth.look(100.0)
    truth.compare()
    assert truth.faults == []


def test_an_entry_that_is_not_there_in_time_is_missing_once() -> None:
    truth = Truth({"a": ["Db"], "b": ["Db"]}, bound_s=5.0)
    truth.begin(0.0)
    truth.change(URL, "Db", True, 1.0)
    truth.look(5.9)
    assert truth.missing == 0
    truth.look(6.1)
    truth.look(7.0)
    assert (truth.missing, len(truth.faults)) == (2, 1)


def test_one_that_is_there_still_is_lingering() -> None:
    truth = known(3)
    truth.begin(2.0)
    truth.change(URL, "Db", False, 2.0)
    truth.removed("d0", "Db", URL, 2.1)
    truth.look(7.1)
    assert (truth.lingering, truth.missing) == (2, 0)


def test_time_counts_from_the_fault_and_not_at_all_while_nobody_can_write() -> None:
    truth = known()
    truth.change(URL, "Db", False, 2.0)
    truth.begin(6.0)
    truth.look(10.9)
    assert truth.lingering == 0
    truth.begin(None)
    truth.look(50.0)
    assert truth.lingering == 0
    truth.begin(50.0)
    truth.look(55.1)
    assert truth.lingering == 1


def test_an_entry_appended_twice_is_doubled_and_stays_so_until_it_is_removed_twice() -> None:
    truth = known()
    truth.added("d0", "Db", URL, 2.0, appends=True)
    assert truth.doubled == 1
    truth.removed("d0", "Db", URL, 3.0)
    assert truth.tables["d0"]["Db", URL] == 1
    assert truth.withdrawn == 0


def test_who_does_not_append_is_not_doubled() -> None:
    truth = known()
    truth.added("d0", "Db", URL, 2.0, appends=False)
    assert (truth.doubled, truth.faults) == (0, [])


def test_a_healthy_one_may_be_missing_for_a_moment() -> None:
    truth = known()
    truth.removed("d0", "Db", URL, 2.0)
    truth.look(2.4)
    truth.added("d0", "Db", URL, 2.45, appends=True)
    truth.look(9.0)
    assert (truth.withdrawn, truth.faults) == (0, [])


def test_a_healthy_one_that_is_missing_for_longer_is_a_wrong_withdrawal() -> None:
    truth = known(2)
    truth.removed("d0", "Db", URL, 2.0)
    truth.look(2.6)
    truth.look(2.7)
    assert truth.withdrawn == 1
    truth.removed("d1", "Db", URL, 3.0)
    truth.added("d1", "Db", URL, 3.6, appends=True)  # before anybody looked
    assert truth.withdrawn == 2


def test_one_that_is_not_healthy_or_may_be_either_may_be_withdrawn() -> None:
    truth = known()
    truth.change(URL, "Db", None, 2.0)
    truth.removed("d0", "Db", URL, 2.1)
    truth.look(30.0)
    truth.change(URL, "Db", False, 30.0)
    truth.look(60.0)
    truth.compare()
    assert (truth.faults, truth.settled(URL)) == ([], True)


def test_a_removal_of_what_is_not_there_is_needless_and_no_fault() -> None:
    truth = known()
    truth.removed("d0", "Db", OTHER, 2.0)
    assert (truth.needless, truth.faults) == (1, [])


def test_a_whole_truth_replaces_what_was_there() -> None:
    truth = known()
    truth.change(OTHER, "Db", True, 2.0)
    truth.replaced("d0", ["Db"], [("Db", OTHER)], 2.1)
    assert truth.settled(OTHER)
    truth.look(3.0)
    assert truth.withdrawn == 1


def test_in_the_end_all_is_compared() -> None:
    truth = known(2)
    truth.removed("d0", "Db", URL, 2.0)
    truth.added("d1", "Db", "http://127.0.0.1:9", 2.0, appends=True)
    truth.added("idle", "Db", URL, 2.0, appends=True)
    truth.compare()
    assert truth.missing == 1
    assert len(truth.faults) == 3

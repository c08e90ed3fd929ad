"""What a registry among others does where its own word did not count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pillion_common.errors import PillionError, StorageFull
from pillion_common.models import State
from pillion_registry.shared_registry import SharedRegistry


@pytest.mark.parametrize(
    ("fault", "state", "checks"),
    [
        (None, State.UP, ["i1"]),  # something else came first
        (None, State.DOWN, []),  # it has become so
        (StorageFull("no room"), State.UP, []),  # see proposals.py
    ],
)
def test_one_is_looked_at_again_only_where_something_else_came_first(fault: PillionError | None, state: State, checks: list[str]) -> None:
    checked: list[str] = []
    ended: list[object] = []
    it = SimpleNamespace(
        keeping=SimpleNamespace(note=lambda _: None),
        prober=SimpleNamespace(check_soon=checked.append),
        _proposals=SimpleNamespace(end=lambda *told: ended.append(told)),
        _catalog={"i1": SimpleNamespace(state=state)},
        _own={"i1"},
    )
    SharedRegistry._settled(cast(Any, it), "i1", State.DOWN, fault)
    assert checked == checks
    assert ended == [("i1", State.DOWN, fault)]

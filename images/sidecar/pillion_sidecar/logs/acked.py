"""How far the log service has stored what a spool had, as the spool's file `acked` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pillion_common.clock import rfc3339
from pillion_sidecar.logs import segments as files


class Acked(NamedTuple):
    """Up to where the log service has stored everything, and the time of the last entry of it."""

    generation: int = 0
    seq: int = 0
    time: str = ""


def read_acked(path: str, clock: Callable[[], float]) -> Acked:
    """Return what a file says: `17 2 2026-01-31T12:00:00.123Z` (Seq, generation, time); where it says less: nothing, as of now."""
    seq, generation, since, *_ = [*files.read_text(path).split(), "", "", ""]
    place = int(generation) if generation.isdecimal() else 0, int(seq) if seq.isdecimal() else 0
    return Acked(*place, since or rfc3339(clock()))

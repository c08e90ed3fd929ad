"""Our own registry on NATS, beside the one on SQLite: one replica, or three, on three NATS servers."""

from __future__ import annotations

import nats_lab

NAME = "pillion-nats"
THREE = "pillion-nats-3"
UNSYNCED = "pillion-nats-os"


def installed() -> bool:
    return bool(nats_lab.PROGRAM)

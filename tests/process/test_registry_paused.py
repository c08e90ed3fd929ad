"""A registry that was paused must not take its own absence for the silence of others."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack

import requests
from classic import Classic
from programs import eventually, program

# The peers live in this process: the time-out has to be far above any pause of its own, the registry's pause above the time-out.
QUICK = ("--heartbeat-interval", "100ms", "--heartbeat-timeout", "1s", "--heartbeat-misses", "1")
PAUSE_S = 1.5


def test_a_registry_that_was_paused_withdraws_nobody() -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Classic()) for _ in range(20)]
        registry = stack.enter_context(program("registry", "--store", "memory:", *QUICK))
        for number, peer in enumerate(peers):
            assert peer.register(registry.url, f"S{number}").status_code == 200
        eventually(lambda: len(requests.get(f"{registry.url}/services?state=up", timeout=5).json()["Services"]) == 20)
        for peer in peers:
            peer.heartbeat_delay_s = 0.2
        # So checks are under way at any moment, and their time-outs run off while the registry stands still.
        for _ in range(3):
            os.kill(registry.process.pid, signal.SIGSTOP)
            time.sleep(PAUSE_S)
            os.kill(registry.process.pid, signal.SIGCONT)
            time.sleep(0.6)
        assert registry.events("instance_down") == []
        assert len(requests.get(f"{registry.url}/services?state=up", timeout=5).json()["Services"]) == 20

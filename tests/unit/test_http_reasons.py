"""The reasons of statuses: those of the standard library, without what it costs a sidecar to load them from there."""

from __future__ import annotations

import os
import subprocess
import sys
from http import HTTPStatus

from pillion_common.http.message import REASONS


def test_the_reasons_of_statuses_are_those_of_the_standard_library() -> None:
    assert {status.value: status.phrase.encode() for status in HTTPStatus if status != HTTPStatus.IM_A_TEAPOT} == REASONS


def test_a_sidecar_loads_neither_them_nor_a_source_of_lines_that_is_off() -> None:
    code = "from pillion_common import tls; tls.keep_out(); import pillion_sidecar.__main__, sys; print(*sys.modules)"
    # What measures how much of the code is run loads more.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    loaded = set(run.stdout.split())
    assert "pillion_sidecar.logs.spool" in loaded
    assert not {"http", "zlib", "glob"} & loaded
    assert not {
        name for name in loaded if name.startswith(("pillion_sidecar.logs.sources", "pillion_sidecar.logs.sync", "pillion_common.syslog"))
    }

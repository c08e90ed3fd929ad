"""Shared by all tests: on CI nothing may be skipped, for a check that did not run proves nothing."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from typing import Any

import pytest
from chromium import browser, page  # noqa: F401 - fixtures, here so that all suites share one browser


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep what was collected out of the collector's sight: going over it pauses this process, and the peers that live in it, for 0.3 s."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped on CI, where it has to run: {reason}"
    return report

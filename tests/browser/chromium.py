"""A real browser for tests: the fixtures `browser` and `page`, imported by the topmost conftest: Playwright starts once a process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Nothing is fetched but the pages under test.
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that PILLION_CHROMIUM names."""
    program = os.environ.get("PILLION_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed; install it, or set PILLION_CHROMIUM to a Chromium program")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; an error in its console fails the test, so a page that breaks its own policy is found."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    # A notice or a problem page is meant to be a 4xx or 5xx, which Chromium calls an error as well.
    assert [error for error in errors if "the server responded with a status of" not in error] == []

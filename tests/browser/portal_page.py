"""Portald's pages as a person uses them, over any running stack: the steps and checks, no set-up.

Each function takes a Playwright page and Portald's URL. Every wait is bounded by WAIT_MS.
"""

from __future__ import annotations

from playwright.sync_api import Page, expect

WAIT_MS = 10_000
NOTICE = "GradingService is not available right now"


def open_students(page: Page, portal_url: str) -> None:
    """Open the start page, which leads to the list."""
    page.goto(portal_url + "/", timeout=WAIT_MS)
    expect(page.get_by_role("heading", level=1)).to_have_text("Students", timeout=WAIT_MS)


def student_names(page: Page) -> list[str]:
    """Return the names in the list, in its order."""
    return page.locator("table.students tbody th").all_inner_texts()


def open_student(page: Page, portal_url: str, name: str) -> None:
    """Follow the link of a student in the list."""
    open_students(page, portal_url)
    page.get_by_role("link", name=name, exact=True).click(timeout=WAIT_MS)
    expect(page.get_by_role("heading", level=1)).to_have_text(name, timeout=WAIT_MS)


def average(page: Page) -> str:
    """Return the average on a student's page, such as 88.6."""
    return page.locator(".average strong").inner_text(timeout=WAIT_MS)


def grades(page: Page) -> list[list[str]]:
    """Return the grades on a student's page as [title, type, score], in the order of the table."""
    return [row.locator("th, td").all_inner_texts() for row in page.locator("table.grades tbody tr").all()]


def add_grade(page: Page, title: str, kind: str, score: str) -> None:
    """Fill in the form on a student's page and send it."""
    page.get_by_label("Title").fill(title, timeout=WAIT_MS)
    page.get_by_label("Type").select_option(kind, timeout=WAIT_MS)
    page.get_by_label("Score").fill(score, timeout=WAIT_MS)
    with page.expect_navigation(timeout=WAIT_MS):
        page.get_by_role("button").click(timeout=WAIT_MS)


def expect_problem(page: Page, field: str, message: str) -> None:
    """The problem stands at its field, and the field is marked and has the focus."""
    control = page.get_by_label(field)
    expect(control).to_have_attribute("aria-invalid", "true", timeout=WAIT_MS)
    expect(control).to_have_accessible_description(message, timeout=WAIT_MS)
    expect(control).to_be_focused(timeout=WAIT_MS)


def expect_notice(page: Page, timeout_ms: float = WAIT_MS) -> None:
    """The notice that GradingService is not there is shown."""
    expect(page.get_by_role("heading", level=1)).to_have_text(NOTICE, timeout=timeout_ms)


def expect_back(page: Page, heading: str, timeout_ms: float = WAIT_MS) -> None:
    """The page comes back by itself: nothing is clicked or loaded here."""
    expect(page.get_by_role("heading", level=1)).to_have_text(heading, timeout=timeout_ms)

"""The log service's page in a real browser: following, paging, filters, and hostile messages that stay text."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Page, expect
from programs import Program, program

WAIT_S = 10


@pytest.fixture
def log() -> Iterator[Program]:
    with program("log", "--store", "memory:") as running:
        yield running


def add(log: Program, *messages: str, service: str = "GradingService", **fields: object) -> None:
    body = "\n".join(json.dumps({"Service": service, "Message": message, **fields}) for message in messages)
    assert requests.post(log.url + "/logs", data=body, timeout=WAIT_S).json()["Accepted"] == len(messages)


def messages(page: Page) -> list[str]:
    return page.locator("#entries .message").all_inner_texts()


def test_page_shows_the_newest_entries_and_follows(page: Page, log: Program) -> None:
    add(log, *(f"m{number}" for number in range(250)))
    page.goto(log.url + "/")
    expect(page.locator("#entries li")).to_have_count(200)
    expect(page.get_by_text("Following.")).to_be_visible()
    add(log, "as it happens", Level="error")
    expect(page.locator("#entries li").last).to_contain_text("as it happens")
    assert messages(page) == [*(f"m{number}" for number in range(50, 250)), "as it happens"]
    page.get_by_role("button", name="Older entries").click()
    expect(page.locator("#entries li")).to_have_count(251)
    assert messages(page)[:50] == [f"m{number}" for number in range(50)]
    expect(page.get_by_text("This is all there is.")).to_be_visible()


def test_filters_are_kept_in_the_address(page: Page, log: Program) -> None:
    add(log, "GET /students", "POST /grades")
    add(log, "GET /portal", service="Portald", Level="error")
    page.goto(log.url + "/")
    expect(page.locator("#entries li")).to_have_count(3)
    page.get_by_label("Text").fill("get /")
    page.get_by_label("any case").check()
    page.get_by_label("Text").press("Enter")
    expect(page.locator("#entries li")).to_have_count(2)
    page.reload()
    expect(page.locator("#entries li")).to_have_count(2)
    page.get_by_label("Level").select_option(label="error and worse")
    page.get_by_label("follow").uncheck()
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#entries li")).to_have_count(1)
    assert messages(page) == ["GET /portal"]


def test_what_is_wrong_is_said(page: Page, log: Program) -> None:
    page.goto(log.url + "/")
    page.get_by_label("Text").fill("(")
    page.get_by_label("regular expression").check()
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#said.fault")).to_contain_text("re is not a regular expression of RE2: missing )")


HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "\x1b[31mred\x1b[0m \u202eturned\u202c \x00 \U000e0041",
    "</script></li></ol>{{constructor}}",
    "a\r\nb",
]


def test_hostile_messages_stay_text(page: Page, log: Program) -> None:
    add(log, *HOSTILE, Instance="<b>i</b>", Level="<i>x</i>")
    page.goto(log.url + "/")
    expect(page.locator("#entries li")).to_have_count(len(HOSTILE))
    assert messages(page) == [
        HOSTILE[0],
        HOSTILE[1],
        r"\x1b[31mred\x1b[0m \u202eturned\u202c \x00 \u{e0041}",
        HOSTILE[3],
        r"a\r\nb",
    ]
    assert page.title() == "Log"
    assert page.locator("#entries script, #entries img, #entries b, #entries i").count() == 0


def test_nothing_but_the_pages_own_script_may_run(log: Program) -> None:
    policy = requests.get(log.url + "/", timeout=WAIT_S).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(page: Page, log: Program, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 390, "height": 844})
    add(log, "x" * 500, "short", Level="warning", Instance="grading-1")
    page.goto(log.url + "/")
    expect(page.locator("#entries li")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]

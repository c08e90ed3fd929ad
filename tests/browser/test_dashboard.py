"""The registry's dashboard in a real browser: it shows what is there and why, at once, and never takes what it shows for markup."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from classic import Classic
from playwright.sync_api import Browser, Page, expect
from programs import Program
from registry_lab import port_of, registry, wait_for

EVIL = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def running() -> Iterator[Program]:
    with registry() as running:
        yield running


def service(page: Page, name: str) -> object:
    return page.locator(f'.service[data-name="{name}"]')


def state_of(page: Page, peer: Classic) -> object:
    return page.locator(".instance", has_text=peer.url).locator(".state")


def test_an_empty_registry_says_what_to_do(running: Program, page: Page) -> None:
    page.goto(running.url + "/")
    expect(page.get_by_text("Nothing is registered yet.")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("live")
    expect(page.locator("#events li")).to_contain_text("the registry started with 0 instances")


def test_a_provider_that_dies_is_down_on_the_page_at_once_with_its_reason_and_comes_back(running: Program, page: Page) -> None:
    with Classic() as peer, Classic() as other:
        peer.register(running.url, "GradingService", Version="2.1", Zone="eu", Tags=["fast"])
        other.register(running.url, "Portald", ["GradingService"])
        wait_for(running, peer.url, "up")
        wait_for(running, other.url, "up")
        page.goto(running.url + "/")
        expect(state_of(page, peer)).to_have_text("up")
        expect(page.locator(".instance", has_text=peer.url)).to_contain_text("version 2.1, zone eu, fast")
        expect(page.locator("#missing")).to_be_hidden()
        assert page.locator("#counts").inner_text() == "2 up"
        peer.die()
        began = time.monotonic()
        expect(state_of(page, peer)).to_have_text("down", timeout=2000)
        assert time.monotonic() - began < 1.5  # the checks are 200 ms apart here
        expect(page.locator(".instance", has_text=peer.url).locator(".reason")).to_contain_text("refused")
        expect(page.locator("#missing")).to_contain_text("GradingService: 0 of 1 up, required by Portald")
        expect(page.locator("#events li").first).to_contain_text("down")
        assert page.title() == "Pillion: something is down"
        peer.come_back()
        expect(state_of(page, peer)).to_have_text("up")
        expect(page.locator("#missing")).to_be_hidden()


def test_what_is_missing_names_what_may_have_been_meant(running: Program, page: Page) -> None:
    with Classic() as peer, Classic() as other:
        peer.register(running.url, "GradingService")
        other.register(running.url, "Portald", ["GradingServce"])
        page.goto(running.url + "/")
        expect(page.locator("#missing")).to_contain_text(
            "GradingServce: nobody has registered it, required by Portald; did you mean GradingService?"
        )


def test_what_an_operator_does_is_shown_with_the_name(running: Program, page: Page) -> None:
    with Classic() as peer:
        known = peer.register(running.url, "Db").json()["InstanceID"]
        wait_for(running, peer.url, "up")
        page.goto(running.url + "/")
        expect(state_of(page, peer)).to_have_text("up")
        requests.post(f"{running.url}/services/{known}/drain", json={"Reason": "a new disk"}, headers={"X-Pillion-By": "ann"}, timeout=5)
        expect(state_of(page, peer)).to_have_text("draining")
        expect(page.locator("#events li").first).to_contain_text("a new disk (by ann at 127.0.0.1)")
        requests.post(f"{running.url}/services/{known}/forget", timeout=5)
        expect(page.get_by_text("Nothing is registered yet.")).to_be_visible()


def test_nothing_that_is_registered_is_taken_for_markup(running: Program, page: Page) -> None:
    with Classic() as peer:
        peer.heartbeat, peer.body = 503, EVIL.encode()
        peer.register(running.url, "Db", Version=EVIL, Zone="<script>document.title='owned'</script>", Tags=[EVIL])
        wait_for(running, peer.url, "starting")
        page.goto(running.url + "/")
        expect(page.locator(".instance .about")).to_contain_text(EVIL)
        expect(page.locator(".instance .reason")).to_have_text(EVIL)
        assert page.locator("#services img, #services script").count() == 0
        assert page.title() == "Pillion"


def test_a_registry_that_is_away_is_told_and_its_return_shows_the_truth(browser: Browser, tmp_path: Path) -> None:
    store = ("--store", f"sqlite:{tmp_path}/registry.db")
    with Classic() as peer, browser.new_context() as context:  # of its own: connections that fail are errors in its console
        page = context.new_page()
        with registry(*store) as first:
            peer.register(first.url, "Db")
            wait_for(first, peer.url, "up")
            page.goto(first.url + "/")
            expect(state_of(page, peer)).to_have_text("up")
            port = port_of(first)
        expect(page.get_by_role("status")).to_have_text("the registry does not answer; this is what was known last", timeout=10_000)
        expect(state_of(page, peer)).to_have_text("up")
        peer.die()
        with registry(*store, "--listen", f"127.0.0.1:{port}"):
            expect(page.get_by_role("status")).to_have_text("live", timeout=15_000)
            expect(state_of(page, peer)).to_have_text("down")


def test_the_filter_finds_by_name_state_and_tag(running: Program, page: Page) -> None:
    with Classic() as one, Classic() as two:
        one.register(running.url, "Db", Tags=["fast"])
        two.heartbeat = 503
        two.register(running.url, "Shop")
        wait_for(running, one.url, "up")
        page.goto(running.url + "/")
        expect(page.locator(".service")).to_have_count(2)
        for words, name in [("fast", "Db"), ("starting", "Shop"), ("db UP", "Db")]:
            page.get_by_label("Filter").fill(words)
            expect(page.locator(".service h3")).to_have_text([name])
        page.get_by_label("Filter").fill("nonsense")
        expect(page.get_by_text("Nothing fits this filter.")).to_be_visible()


def test_the_page_fits_a_phone_and_both_schemes(browser: Browser, running: Program) -> None:
    folder = os.environ.get("PILLION_SCREENSHOTS")
    with Classic() as one, Classic() as two, Classic() as three:
        one.register(running.url, "GradingService", Version="2.1", Zone="eu-central", Tags=["fast"])
        two.register(running.url, "Portald", ["GradingService", "LogServce"])
        three.register(running.url, "LogService")
        for peer in (one, two, three):
            wait_for(running, peer.url, "up")
        three.die()
        wait_for(running, three.url, "down")
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(running.url + "/")
            expect(page.locator(".instance")).to_have_count(3)
            expect(page.locator("#missing")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == width
            if folder:
                page.screenshot(path=f"{folder}/dashboard-{width}-{scheme}.png", full_page=True)
            context.close()


def test_the_page_has_a_strict_policy_and_needs_nothing_from_elsewhere(running: Program, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(running.url + "/")
    expect(page.get_by_role("status")).to_have_text("live")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert asked
    assert all(url.startswith(running.url + "/") for url in asked)
    assert requests.get(running.url + "/dashboard/../settings.py", timeout=5).status_code == 404
    assert requests.get(running.url + "/dashboard/index.html", timeout=5).status_code == 404

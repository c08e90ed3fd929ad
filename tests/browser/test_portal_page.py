"""Portald in a real browser: the list, a grade added, an error at its field, the notice and the way back."""

from __future__ import annotations

import portal_page
from demo_stubs import App, StubSidecar, running
from playwright.sync_api import Page, expect


def test_the_students_are_listed(page: Page, portal_url: str) -> None:
    portal_page.open_students(page, portal_url)
    assert portal_page.student_names(page) == ["Lisa Vega", "Omar Haddad", "Mei Tanaka", "Jonas Lindqvist", "Amara Okafor"]


def test_a_grade_that_was_added_is_in_the_table_and_in_the_average(page: Page, portal_url: str) -> None:
    portal_page.open_student(page, portal_url, "Lisa Vega")
    assert portal_page.average(page) == "89.0"
    portal_page.add_grade(page, "Quiz 3", "Quiz", "87")
    assert portal_page.grades(page) == [
        ["Quiz 1", "Quiz", "85"],
        ["Quiz 2", "Quiz", "92"],
        ["Midterm", "Test", "88"],
        ["Final", "Exam", "91"],
        ["Quiz 3", "Quiz", "87"],
    ]
    assert portal_page.average(page) == "88.6"


def test_an_error_stands_at_its_field_and_what_was_typed_can_be_corrected(page: Page, portal_url: str) -> None:
    portal_page.open_student(page, portal_url, "Mei Tanaka")
    portal_page.add_grade(page, "Quiz <3>", "Test", "187")
    portal_page.expect_problem(page, "Score", "Score must be from 0 to 100: 187 is not.")
    expect(page.get_by_label("Title")).to_have_value("Quiz <3>")
    expect(page.get_by_label("Type")).to_have_value("Test")
    portal_page.add_grade(page, "Quiz <3>", "Test", "18.7")
    assert portal_page.grades(page)[-1] == ["Quiz <3>", "Test", "18.7"]


def test_the_notice_is_shown_while_the_provider_is_gone_and_the_page_comes_back_by_itself(
    page: Page, portal_url: str, sidecar: StubSidecar
) -> None:
    there = sidecar.provider_url
    portal_page.open_students(page, portal_url)
    sidecar.provider_url = None
    page.reload()
    portal_page.expect_notice(page)
    expect(page.get_by_text("No instance of GradingService is up: start one.")).to_be_visible()
    sidecar.provider_url = there
    portal_page.expect_back(page, "Students")


def test_a_grade_typed_while_the_provider_was_gone_is_kept_and_can_be_sent_again(
    page: Page, portal_url: str, grading: App, grading_command: list[str], sidecar: StubSidecar
) -> None:
    portal_page.open_student(page, portal_url, "Omar Haddad")
    assert grading.terminate() == 0
    portal_page.add_grade(page, "Quiz 3", "Quiz", "90")
    portal_page.expect_notice(page)
    expect(page.get_by_text("The grade was not saved.")).to_be_visible()
    with running(grading_command, sidecar.url) as again:
        sidecar.provider_url = again.url
        with page.expect_navigation():
            page.get_by_role("button", name="Send it again").click()
        assert portal_page.grades(page)[-1] == ["Quiz 3", "Quiz", "90"]


def test_the_form_works_by_keyboard_alone_at_phone_width(page: Page, portal_url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    portal_page.open_student(page, portal_url, "Lisa Vega")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_label("Title").focus()
    page.keyboard.type("Quiz 3")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type("87")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert portal_page.grades(page)[-1] == ["Quiz 3", "Test", "87"]

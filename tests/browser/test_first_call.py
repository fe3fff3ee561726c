"""The page before anybody has called: it teaches the next step."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.axe import obstacles
from tests.browser.serving import PATIENCE, Server
from tests.browser.viewing import PHONE, Viewers


def test_the_page_without_calls_tells_what_to_do(server: Server, viewers: Viewers) -> None:
    for how in ({}, {"color_scheme": "dark"}, PHONE):
        viewer = viewers.comes_in(**how)
        first = viewer.page.get_by_role("region", name="Your first call")
        expect(first.get_by_role("button", name="Start the demo call")).to_be_visible()
        expect(first.get_by_role("group", name="Command")).to_contain_text("simulate")
        expect(viewer.page.get_by_role("region", name="Live now")).to_have_count(0)
        assert obstacles(viewer.page) == []


def test_the_demo_call_is_started_from_the_page_and_its_words_come(server: Server, viewers: Viewers) -> None:
    viewer = viewers.comes_in()
    viewer.page.get_by_role("button", name="Start the demo call").click()
    viewer.page.wait_for_url("**/calls/CA*", timeout=PATIENCE * 1000)
    expect(viewer.connection).to_have_text("Live")
    expect(viewer.interims.or_(viewer.finals).first).to_contain_text("calling", ignore_case=True)
    other = viewers.comes_in()
    expect(other.page.locator("article[data-state='live']")).to_have_count(1)
    expect(other.page.get_by_role("region", name="Your first call")).to_have_count(0)

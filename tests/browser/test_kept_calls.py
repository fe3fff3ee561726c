"""Calls that were kept: found, looked through, shown with what happened on them, and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.browser.kept import Kept, Missed, Replaced, Said, keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer

MANY: Final = 70  # calls: more than are shown at once
EVENTFUL: Final = f"CA{'8' * 32}"
UNWANTED: Final = f"CA{'9' * 32}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server with many calls."""
    many = (Kept(f"CA{number:032}", [Said("inbound", f"Number {number}.", 0, 900)]) for number in range(MANY))
    with serving(tmp_path_factory.mktemp("server"), **speech.settings) as started:
        keep(started.database_url, *many, eventful_call(), sample_call(UNWANTED, caller="+442079460000"))
        yield started


def eventful_call() -> Kept:
    """One service is lost and another takes over; seconds are missing."""
    return Kept(
        EVENTFUL,
        [Said("inbound", "First.", 0, 900), Said("inbound", "Last.", 9000, 9900, service="Gladia")],
        missed=[Missed("inbound", 2000, 5000)],
        replaced=[Replaced("Deepgram", "Gladia", "Deepgram's connection broke.", 6000)],
    )


def test_older_calls_are_shown_when_asked_for(viewer: Viewer) -> None:
    calls = viewer.page.get_by_role("region", name="Earlier").get_by_role("article")
    expect(calls.first).to_have_attribute("data-call-sid", UNWANTED)
    more = viewer.page.get_by_role("button", name="Show more", exact=True)
    more.click()
    expect(calls).to_have_count(MANY + 2)
    expect(more).to_be_hidden()
    expect(calls.last).to_have_attribute("data-call-sid", f"CA{0:032}")


def test_calls_are_found_by_number(viewer: Viewer) -> None:
    calls = viewer.page.get_by_role("region", name="Earlier").get_by_role("article")
    viewer.page.get_by_role("textbox", name="Number").fill("20794")
    viewer.page.get_by_role("button", name="Search", exact=True).click()
    expect(calls).to_have_count(1)
    expect(calls).to_have_attribute("data-call-sid", UNWANTED)
    viewer.page.get_by_role("button", name="Clear").click()
    expect(calls.nth(1)).to_have_attribute("data-call-sid", EVENTFUL)


def test_what_happened_is_shown_where_it_happened(viewer: Viewer) -> None:
    viewer.opens_call(EVENTFUL)
    expect(viewer.finals).to_have_count(2)
    order = viewer.conversation.locator("article[data-id], [data-notice]").evaluate_all(
        "(all) => all.map((one) => one.dataset.notice ?? one.querySelector('.text').textContent)"
    )
    order = [what for what in order if what != "call.started"]
    assert order == ["First.", "gap", "service.replaced", "Last.", "call.ended"]
    expect(viewer.notice("gap")).to_contain_text("0:02")
    expect(viewer.notice("service.replaced")).to_contain_text("Gladia")


def test_a_call_is_deleted_when_that_was_confirmed(viewer: Viewer) -> None:
    viewer.opens_call(UNWANTED)
    button = viewer.page.get_by_role("button", name="Delete")
    dialog = viewer.page.get_by_role("dialog", name="Delete this call")
    button.click()
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    button.click()
    dialog.get_by_role("button", name="Delete it").click()
    expect(viewer.page.get_by_role("heading", name="Calls", exact=True)).to_be_visible()
    expect(viewer.call(UNWANTED)).to_have_count(0)
    assert viewer.context.request.get(f"{viewer.url}/api/calls/{UNWANTED}").status == 404

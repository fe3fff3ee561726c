"""Calls that were kept: found, looked through, shown with what happened on them, and deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.calling import Call
from tests.browser.kept import Kept, Missed, Replaced, Said, keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers

MANY: Final = 70  # calls: more than are shown at once
EVENTFUL: Final = f"CA{'8' * 32}"
UNWANTED: Final = f"CA{'9' * 32}"
GONE: Final = f"CA{'6' * 32}"
OLDEST: Final = f"CA{'7' * 32}"
ITS_NUMBER: Final = "+33100000001"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server with many calls."""
    oldest = Kept(OLDEST, [Said("inbound", "Number none, and the oldest.", 0, 900)], caller=ITS_NUMBER)
    many = (Kept(f"CA{number:032}", [Said("inbound", f"Number {number}.", 0, 900)]) for number in range(MANY))
    with serving(tmp_path_factory.mktemp("server"), **speech.settings) as started:
        gone = sample_call(GONE, recording=str(started.sample_recording()))
        keep(started.database_url, oldest, *many, gone, eventful_call(), sample_call(UNWANTED, caller="+442079460000"))
        yield started


@pytest.fixture
def earlier(viewer: Viewer) -> Locator:
    """The calls in the list that have ended."""
    return viewer.page.get_by_role("region", name="Earlier").get_by_role("article")


@pytest.fixture
def places(viewer: Viewer) -> Locator:
    """Where the words that were searched for were said."""
    return viewer.page.get_by_role("region", name="Found").get_by_role("link")


def search(viewer: Viewer, *, words: str, number: str) -> None:
    """Fills both fields, and sends them."""
    viewer.page.get_by_role("searchbox", name="Search what was said").fill(words)
    viewer.page.get_by_role("textbox", name="Number").fill(number)
    viewer.page.get_by_role("button", name="Search", exact=True).click()


def eventful_call() -> Kept:
    """One service is lost and another takes over; seconds are missing."""
    return Kept(
        EVENTFUL,
        [Said("inbound", "First.", 0, 900), Said("inbound", "Last.", 9000, 9900, service="Gladia")],
        missed=[Missed("inbound", 2000, 5000)],
        replaced=[Replaced("Deepgram", "Gladia", "Deepgram's connection broke.", 6000)],
    )


def test_older_calls_are_shown_when_asked_for(viewer: Viewer, earlier: Locator) -> None:
    expect(earlier.first).to_have_attribute("data-call-sid", UNWANTED)
    more = viewer.page.get_by_role("button", name="Show more", exact=True)
    more.click()
    expect(earlier).to_have_count(MANY + 4)
    expect(more).to_be_hidden()
    expect(earlier.last).to_have_attribute("data-call-sid", OLDEST)


def test_what_could_not_be_had_is_asked_for_again_and_what_was_there_stays(
    viewer: Viewer, earlier: Locator, places: Locator
) -> None:
    viewer.may_lose_network = True
    trouble = viewer.page.get_by_role("alert")
    viewer.page.route("**/api/*cursor=*", lambda route: route.abort())
    viewer.page.get_by_role("button", name="Show more", exact=True).click()
    expect(trouble).to_have_text("The server cannot be reached.")
    search(viewer, words="number", number="")
    expect(viewer.page.get_by_text(re.compile(r"^The newest \d+ places$"))).to_be_visible()
    were_there = places.count()
    viewer.page.get_by_role("button", name="Show more places").click()
    expect(viewer.page.locator("#found-count")).to_have_text("The server cannot be reached.")
    expect(places).to_have_count(were_there)
    viewer.page.unroute("**/api/*cursor=*")
    viewer.page.get_by_role("button", name="Show more places").click()
    expect(places.nth(were_there)).to_be_visible()
    viewer.page.get_by_role("button", name="Show more", exact=True).click()
    expect(earlier.last).to_have_attribute("data-call-sid", OLDEST)
    expect(trouble).to_have_count(0)


def test_calls_are_found_by_number(viewer: Viewer, earlier: Locator) -> None:
    viewer.page.get_by_role("textbox", name="Number").fill("20794")
    viewer.page.get_by_role("button", name="Search", exact=True).click()
    expect(earlier).to_have_count(1)
    expect(earlier).to_have_attribute("data-call-sid", UNWANTED)
    viewer.page.get_by_role("button", name="Clear").click()
    expect(earlier.nth(1)).to_have_attribute("data-call-sid", EVENTFUL)


def test_words_and_a_number_are_searched_together_and_kept_in_the_address(
    viewer: Viewer, earlier: Locator, places: Locator
) -> None:
    search(viewer, words="number", number="+3310")  # said on every call; of this number it is the oldest
    expect(places).to_contain_text(["Number none, and the oldest."])
    expect(earlier).to_have_count(1)
    expect(earlier).to_have_attribute("data-call-sid", OLDEST)
    assert viewer.page.url == f"{viewer.url}/?q=number&number=%2B3310"
    viewer.page.reload()
    expect(places).to_contain_text(["Number none, and the oldest."])
    expect(earlier).to_have_count(1)
    places.click()
    expect(viewer.finals).to_have_text(["Number none, and the oldest."])
    viewer.page.go_back()
    expect(places).to_have_count(1)
    expect(viewer.page.get_by_role("textbox", name="Number")).to_have_value("+3310")
    search(viewer, words="number", number="")
    expect(earlier.first).to_have_attribute("data-call-sid", UNWANTED)
    expect(places.first).to_contain_text("+442079460000")
    search(viewer, words="number", number="99999")
    expect(viewer.page.get_by_text("Nothing was found")).to_be_visible()
    expect(viewer.page.get_by_text("No call has such a number.")).to_be_visible()
    viewer.page.get_by_role("button", name="Clear").click()
    expect(earlier.first).to_have_attribute("data-call-sid", UNWANTED)
    expect(viewer.page.get_by_role("region", name="Found")).to_have_count(0)
    assert viewer.page.url == f"{viewer.url}/"


def test_a_call_that_is_gone_before_it_is_shown_is_told_as_gone(viewer: Viewer) -> None:
    viewer.may_lose_network = True
    gone: dict[str, Any] = {"status": HTTPStatus.NOT_FOUND, "json": {"detail": "There is no such call."}}
    viewer.page.route("**/transcript.json", lambda route: route.fulfill(**gone))
    viewer.opens(f"/calls/{EVENTFUL}")
    expect(viewer.page.get_by_role("alert")).to_have_text("There is no such call.")
    expect(viewer.connection).to_have_text("No longer shown")
    expect(viewer.page.locator("#announcer")).to_have_text("No longer shown.")


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


def test_who_looks_at_a_call_that_was_deleted_elsewhere_is_told(viewers: Viewers, viewer: Viewer) -> None:
    viewer.may_lose_network = True  # a 404 is told on the console too
    viewer.opens_call(GONE)
    page = viewer.page
    recording = page.get_by_role("region", name="Recording")
    expect(recording).to_be_visible()
    elsewhere = viewers.comes_in()
    elsewhere.opens_call(GONE)
    elsewhere.page.get_by_role("button", name="Delete").click()
    elsewhere.page.get_by_role("button", name="Delete it").click()
    expect(elsewhere.page.get_by_role("heading", name="Calls", exact=True)).to_be_visible()
    recording.get_by_role("button", name="Play").click()
    expect(recording).to_contain_text("The recording cannot be played.")
    for name, does in (("Share", "Make a link"), ("Delete", "Delete it")):
        page.get_by_role("button", name=name).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name=does).click()
        expect(dialog.get_by_role("alert")).to_have_text("There is no such call.")
        page.keyboard.press("Escape")
    for name in ("Text", "JSON", "SRT", "WebVTT"):
        page.get_by_role("navigation", name="Export").get_by_role("link", name=name).click()
        expect(page.get_by_role("alert")).to_have_text("There is no such call.")
    expect(viewer.finals).to_have_count(12)
    expect(recording).to_contain_text("The recording cannot be played.")
    expect(recording.get_by_role("button", name="Play")).to_be_visible()


def test_a_call_that_comes_in_is_shown_if_it_has_the_number_that_is_searched(
    server: Server, viewers: Viewers, viewer: Viewer
) -> None:
    everybody = viewers.comes_in()
    expect(everybody.connection).to_have_text("Live")
    viewer.opens("/?q=nobody&number=%2B3310")
    expect(viewer.connection).to_have_text("Live")
    other, searched = (Call(server.media_url, **{"from": caller}) for caller in ("+15550123", ITS_NUMBER))
    with other.stream():
        expect(everybody.call(other.sid)).to_have_attribute("data-state", "live")
        with searched.stream():
            expect(viewer.call(searched.sid)).to_have_attribute("data-state", "live")
            expect(viewer.call(other.sid)).to_have_count(0)
            viewer.page.get_by_role("button", name="Clear").click()
            expect(viewer.call(other.sid)).to_have_attribute("data-state", "live")

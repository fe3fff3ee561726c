"""The page of a call that several services hear, in a window with room for one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, expect

from standins.gladia import GladiaServer
from tests.browser.axe import obstacles
from tests.browser.calling import Call
from tests.browser.kept import Kept, Said, keep
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers

SERVICES: Final = ("Deepgram", "Gladia")
KEPT: Final = f"CA{'2' * 32}"
NARROW: Final[dict[str, Any]] = {"viewport": {"width": 360, "height": 640}}
TURNS: Final = 60
TURN_MS: Final = 4000

# When that was said which stands at the top of what can be read, in milliseconds.
READ_NOW: Final = """() => {
  const top = document.querySelector("#sides").getBoundingClientRect().bottom;
  const segments = [...document.querySelectorAll(".segment")];
  return Number(segments.find((one) => one.getBoundingClientRect().bottom > top).dataset.startMs);
}"""

# Scrolls down, and gives how far: what comes near gets its real height only then, which may move what is read.
SCROLL_AND_REST: Final = """async () => {
  scrollTo(0, 1500);
  for (let rested = 0, before = scrollY; rested < 5; rested = scrollY === before ? rested + 1 : 0, before = scrollY) {
    await new Promise(requestAnimationFrame);
  }
  return scrollY;
}"""

NOTE_TOLD: Final = """(announcer) => {
  window.told = [];
  new MutationObserver(() => window.told.push(announcer.textContent)).observe(announcer, { childList: true });
}"""


def kept_call() -> Kept:
    """Of what one service heard, the other made five times as much."""
    said = [
        Said("inbound", f"{service} has heard number {turn}. " * times, turn * TURN_MS, turn * TURN_MS + 900, service)
        for turn in range(TURNS)
        for service, times in zip(SERVICES, (1, 5), strict=True)
    ]
    return Kept(KEPT, said, services=list(SERVICES))


@pytest.fixture(scope="module")
def other() -> Speech:
    """What is said by the second service."""
    return Speech()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech, other: Speech) -> Iterator[Server]:
    """A server whose calls two services hear, with one that was kept."""
    with GladiaServer(ear=other.ear) as gladia:
        both = {"SPEECH_SERVICES": "deepgram,gladia", "GLADIA_URL": gladia.url, "GLADIA_API_KEY": "key"}
        with serving(tmp_path_factory.mktemp("server"), **speech.settings, **both) as started:
            keep(started.database_url, kept_call())
            yield started


def texts_of(viewer: Viewer, service: str) -> Locator:
    """What a service has understood for good."""
    return viewer.conversation.locator(f"article[data-service='{service}'][data-id] .text")


def choice(viewer: Viewer, service: str) -> Locator:
    """What is pressed to see this service's column."""
    return viewer.page.get_by_role("group", name="Column").get_by_role("radio", name=service)


def test_what_is_said_now_is_in_view_and_the_column_that_is_not_shown_moves_nothing(
    server: Server, speech: Speech, other: Speech, viewers: Viewers
) -> None:
    viewer = viewers.comes_in(**NARROW)
    call = Call(server.media_url)
    with call.stream():
        viewer.opens_call(call.sid)
        viewer.page.locator("#announcer").evaluate(NOTE_TOLD)
        for number in range(8):
            for service, name in zip((speech, other), SERVICES, strict=True):
                service.hears("inbound", f"{name} has understood number {number}, which takes a while.")
            for name in SERVICES:
                expect(texts_of(viewer, name)).to_have_count(number + 1)
        for service in (speech, other):
            service.seems_to_hear("inbound", "what is being said")
        expect(viewer.interims).to_have_count(2)
        expect(viewer.conversation.locator("article[data-interim][data-service='Deepgram']")).to_be_in_viewport(ratio=1)
        stood = texts_of(viewer, "Deepgram").last.bounding_box()
        for number in range(8, 11):
            other.hears("outbound", f"Gladia has understood number {number}, which takes a while.")
        expect(texts_of(viewer, "Gladia")).to_have_count(11)
        assert texts_of(viewer, "Deepgram").last.bounding_box() == stood

        choice(viewer, "Deepgram").focus()
        viewer.page.keyboard.press("ArrowRight")
        expect(choice(viewer, "Gladia")).to_be_checked()
        expect(texts_of(viewer, "Gladia").last).to_be_in_viewport(ratio=1)
        expect(texts_of(viewer, "Deepgram").last).to_be_hidden()
        assert "Gladia" not in " ".join(viewer.page.evaluate("() => window.told")), "everything is told twice"
        other.hears("outbound", "Gladia is read out now.")
        expect(viewer.page.locator("#announcer")).to_contain_text("Gladia is read out now.")
        assert obstacles(viewer.page) == []
    assert sorted(viewer.said) == sorted(viewer.kept(call.sid))


def test_who_looks_at_another_column_stays_at_the_same_time(viewers: Viewers) -> None:
    viewer = viewers.comes_in(**NARROW)
    viewer.opens_call(KEPT)
    for turn in (14, 34, 49):  # of five turns in a slice, the last
        choice(viewer, "Gladia").press("Space")
        texts_of(viewer, "Gladia").nth(turn).evaluate("(text) => text.scrollIntoView()")
        assert abs(viewer.page.evaluate(READ_NOW) - turn * TURN_MS) <= TURN_MS
        for service in ("Deepgram", "Gladia"):
            choice(viewer, service).press("Space")
            expect(choice(viewer, service)).to_be_checked()
            assert abs(viewer.page.evaluate(READ_NOW) - turn * TURN_MS) <= 2 * TURN_MS


@pytest.mark.parametrize("service", SERVICES)
def test_a_link_to_a_second_leads_to_it_in_the_column_that_is_shown(viewers: Viewers, service: str) -> None:
    viewer = viewers.comes_in(**NARROW)
    viewer.opens_call(KEPT)
    choice(viewer, service).press("Space")
    for turn in (33, 7):
        viewer.page.evaluate("(second) => { location.hash = `t=${second}`; }", turn * TURN_MS // 1000)
        marked = viewer.conversation.locator("article[aria-current='true']")
        expect(marked).to_have_count(1)
        expect(marked).to_contain_text(f"{service} has heard number {turn}.")
        expect(marked).to_be_in_viewport()


def test_the_row_that_switches_is_one_line_and_stays_in_view(viewers: Viewers) -> None:
    viewer = viewers.comes_in(**NARROW)
    viewer.opens_call(KEPT)
    row = viewer.page.get_by_role("group", name="Column")
    height = row.evaluate("(row) => row.offsetHeight")
    at = viewer.page.evaluate(SCROLL_AND_REST)
    assert at > 1000
    expect(row).to_be_in_viewport(ratio=1)
    choice(viewer, "Gladia").focus()
    assert viewer.page.evaluate("() => scrollY") == at, "the focus moves what is read"
    assert 24 <= row.evaluate("(row) => row.offsetHeight") == height <= 44
    row.get_by_text("Gladia").click()  # as a finger does
    expect(texts_of(viewer, "Deepgram").first).to_be_hidden()


def test_a_service_that_listens_to_a_later_stream_only_has_a_column_of_its_own(server: Server, viewer: Viewer) -> None:
    call = Call(server.media_url, service="gladia")
    with call.stream():
        viewer.opens_call(call.sid)
    expect(viewer.connection).to_have_text("Call ended")
    with Call(server.media_url, sid=call.sid).stream():
        expect(viewer.notice("call.resumed")).to_have_count(1)
        viewer.opens_call(call.sid)
        expect(viewer.page.get_by_role("group", name="Column").locator("label")).to_have_text(["Gladia", "Deepgram"])


def test_a_wide_window_shows_all_columns_and_has_nothing_to_choose(viewer: Viewer) -> None:
    viewer.opens_call(KEPT)
    row = viewer.page.get_by_role("group", name="Column")
    expect(row.get_by_role("radio")).to_have_count(0)
    for service in SERVICES:
        expect(row.get_by_text(service)).to_be_visible()
        expect(texts_of(viewer, service).first).to_be_in_viewport()

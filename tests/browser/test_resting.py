"""A page that nobody sees, and one whose computer slept: the line is let go, and nothing is missed."""

from __future__ import annotations

from typing import Final

from playwright.sync_api import Page, Request, expect

from tests.browser.calling import Call
from tests.browser.serving import Server
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer

LIVE: Final = "/api/live?"
UNSEEN_MS: Final = 61_000
AN_HOUR_S: Final = 3600


def be_seen(page: Page, *, is_seen: bool) -> None:
    """The window is brought to the front, or put away."""
    page.evaluate(
        """isSeen => {
            Object.defineProperty(document, "hidden", { value: !isSeen, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_seen,
    )


def test_a_page_that_nobody_sees_lets_its_line_go_and_catches_up_when_it_is_seen(
    server: Server, speech: Speech, viewer: Viewer
) -> None:
    viewer.may_lose_network = True
    viewer.page.clock.install()
    call = Call(server.media_url)
    with call.stream():
        speech.hears("inbound", "One.")
        with viewer.page.expect_request(lambda asked: LIVE in asked.url) as line:
            viewer.opens_call(call.sid)
        expect(viewer.connection).to_have_text("Live")
        expect(viewer.finals).to_have_text(["One."])
        be_seen(viewer.page, is_seen=False)
        with viewer.page.expect_event("requestfailed", lambda asked: asked == line.value):
            viewer.page.clock.fast_forward(UNSEEN_MS)
        speech.hears("inbound", "Two.")
        speech.hears("outbound", "Three.")
        server.line("FINAL.*Three")
        viewer.page.clock.fast_forward(UNSEEN_MS)
        assert viewer.said == ["One."]
        be_seen(viewer.page, is_seen=True)
        expect(viewer.connection).to_have_text("Live")
        expect(viewer.finals).to_have_count(3)
    expect(viewer.connection).to_have_text("Call ended")
    assert viewer.said == viewer.kept(call.sid)


def test_a_line_that_slept_with_its_computer_is_replaced(server: Server, speech: Speech, viewer: Viewer) -> None:
    viewer.may_lose_network = True
    viewer.page.clock.install()
    speech.forget()
    call = Call(server.media_url)
    with call.stream():
        speech.hears("inbound", "Before.")
        with viewer.page.expect_request(lambda asked: LIVE in asked.url) as line:
            viewer.opens_call(call.sid)
        expect(viewer.connection).to_have_text("Live")
        given_up: list[Request] = []
        viewer.page.on("requestfailed", lambda asked: given_up.append(asked))  # it takes no built-in
        while line.value not in given_up:  # news may come right after it has awoken, as from a line that lives
            awake_at = viewer.page.evaluate("() => Date.now()") / 1000 + AN_HOUR_S
            viewer.page.clock.set_system_time(awake_at)  # and no timer has run meanwhile
            be_seen(viewer.page, is_seen=True)
            viewer.page.wait_for_timeout(100)
        expect(viewer.connection).to_have_text("Live")
        speech.hears("inbound", "After.")
        expect(viewer.finals).to_have_text(["Before.", "After."])

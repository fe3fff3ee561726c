"""A page that has lost its server, or whose server was started anew, catches up: no line missing, none doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.calling import Call
from tests.browser.line import Line, line_to
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers

SILENT_MS: Final = 41_000  # after which a line is given up


@pytest.fixture(scope="module")
def line(server: Server) -> Iterator[Line]:
    """What lies between a viewer and the server."""
    with line_to(server.port) as laid:
        yield laid


def far_away(viewers: Viewers, line: Line) -> Viewer:
    """A viewer whom a cut of the line does not surprise."""
    viewer = viewers.comes_in(url=line.url)
    viewer.may_lose_network = True
    return viewer


def has_not_been_loaded_anew(viewer: Viewer) -> bool:
    """Whether it is still the document in which `viewer.page` was marked."""
    return bool(viewer.page.evaluate("() => window.isMarked === true"))


def mark(viewer: Viewer) -> None:
    """Marks the document."""
    viewer.page.evaluate("() => { window.isMarked = true; }")


def test_who_lost_the_network_and_returns_has_missed_nothing(
    server: Server, speech: Speech, viewers: Viewers, line: Line
) -> None:
    viewer, call = far_away(viewers, line), Call(server.media_url)
    with call.stream():
        speech.hears("inbound", "One.")
        viewer.opens_call(call.sid)
        mark(viewer)
        speech.seems_to_hear("inbound", "two is on")
        expect(viewer.interims).to_have_text(["two is on"])
        line.cut()
        expect(viewer.connection).to_have_attribute("data-state", "waiting")
        for text in ("Two.", "Three.", "Four."):
            speech.hears("inbound", text)
        speech.hears("outbound", "Five.")
        server.line("FINAL.*Five")
        line.mend()
        expect(viewer.connection).to_have_text("Live")
        expect(viewer.finals).to_have_count(5)
        speech.hears("inbound", "Six.")
        expect(viewer.finals).to_have_count(6)
        expect(viewer.interims).to_have_count(0)
        for _ in range(3):  # and a line that comes and goes
            line.cut()
            expect(viewer.connection).to_have_attribute("data-state", "waiting")
            speech.hears("outbound", "Once more.")
            line.mend()
            expect(viewer.connection).to_have_text("Live")
        expect(viewer.finals).to_have_count(9)
    expect(viewer.connection).to_have_text("Call ended")
    assert viewer.said == viewer.kept(call.sid)
    assert has_not_been_loaded_anew(viewer)


def test_a_call_that_ended_meanwhile_is_shown_as_ended(
    server: Server, speech: Speech, viewers: Viewers, line: Line
) -> None:
    viewer, call = far_away(viewers, line), Call(server.media_url)
    with call.stream():
        viewer.opens_call(call.sid)
        expect(viewer.connection).to_have_text("Live")
        line.cut()
        expect(viewer.connection).to_have_attribute("data-state", "waiting")
        speech.hears("inbound", "Nobody saw this.")
    server.line(f"Call CA..{call.sid[-6:]} ended")
    line.mend()
    expect(viewer.connection).to_have_text("Call ended")
    expect(viewer.finals).to_have_text(["Nobody saw this."])
    expect(viewer.notice("call.ended")).to_have_count(1)


def test_a_browser_that_knows_it_is_offline_says_so(server: Server, speech: Speech, viewer: Viewer) -> None:
    viewer.may_lose_network = True
    expect(viewer.connection).to_have_text("Live")
    viewer.context.set_offline(True)
    expect(viewer.connection).to_have_text("Offline")
    viewer.context.set_offline(False)
    expect(viewer.connection).to_have_text("Live")


def test_a_line_on_which_no_answer_comes_is_given_up(viewer: Viewer) -> None:
    viewer.may_lose_network = True
    viewer.page.clock.install()
    viewer.page.route("**/api/live", lambda route: None)
    with viewer.page.expect_request("**/api/live"):
        viewer.opens()
    expect(viewer.connection).to_have_text("Connecting")
    viewer.page.clock.fast_forward(SILENT_MS)
    expect(viewer.connection).to_have_attribute("data-state", "waiting")
    viewer.page.unroute("**/api/live")
    expect(viewer.connection).to_have_text("Live")


def test_how_a_service_is_nobody_knows_while_the_line_is_lost(server: Server, viewers: Viewers, line: Line) -> None:
    viewer, call = far_away(viewers, line), Call(server.media_url)
    service = viewer.page.get_by_role("region", name="Services").get_by_role("listitem")
    with call.stream():
        viewer.opens_call(call.sid)
        expect(service).to_have_attribute("data-state", "listening")
        line.cut()
        expect(viewer.connection).to_have_attribute("data-state", "waiting")
        expect(service).to_have_text("Deepgram")
        expect(service).not_to_have_attribute("data-state", "listening")
        line.mend()
        expect(service).to_have_attribute("data-state", "listening")
        expect(service).to_contain_text("Deepgram listening")
    expect(service).to_have_text("Deepgram")


def test_the_list_of_calls_catches_up_too(server: Server, speech: Speech, viewers: Viewers, line: Line) -> None:
    viewer, missed = far_away(viewers, line), Call(server.media_url)
    mark(viewer)
    expect(viewer.connection).to_have_text("Live")
    line.cut()
    expect(viewer.connection).to_have_attribute("data-state", "waiting")
    with missed.stream():
        speech.hears("inbound", "Nobody saw that this call came in.")
        server.line("FINAL.*came in")
    line.mend()
    expect(viewer.call(missed.sid)).to_have_count(1)
    expect(viewer.call(missed.sid)).to_have_attribute("data-state", "ended")
    assert has_not_been_loaded_anew(viewer)


def test_a_server_that_is_killed_in_mid_call_is_back_without_a_reload_or_a_login(
    tmp_path: Path, speech: Speech, browser: Browser
) -> None:
    with serving(tmp_path, **speech.settings) as server, Viewers(browser, server) as viewers:
        viewer, call = viewers.comes_in(), Call(server.media_url)
        viewer.may_lose_network = True
        with call.stream():
            speech.hears("inbound", "Before the crash.")
            viewer.opens_call(call.sid)
            mark(viewer)
            expect(viewer.finals).to_have_text(["Before the crash."])
            speech.forget()
            server.kill()
            expect(viewer.connection).to_have_attribute("data-state", "waiting")
        server.start()
        with call.stream():  # Twilio has connected anew: the same call, another stream
            expect(viewer.connection).to_have_text("Live")
            speech.hears("inbound", "After the crash.")
            expect(viewer.finals).to_have_text(["Before the crash.", "After the crash."])
            expect(viewer.notice("call.resumed")).to_have_count(1)
            speech.seems_to_hear("outbound", "so it goes")
            expect(viewer.interims).to_have_text(["so it goes"])
        expect(viewer.connection).to_have_text("Call ended")
        assert viewer.said == viewer.kept(call.sid)
        assert has_not_been_loaded_anew(viewer)

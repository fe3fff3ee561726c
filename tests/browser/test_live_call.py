"""The page of a call that runs, and the list of calls."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from standins.ear import Word
from tests.browser.calling import Call
from tests.browser.line import line_to
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers

HARDLY_ANY_SHIFT = 0.02  # https://web.dev/articles/cls calls up to 0.1 good
LATER_MS = 100  # of audio


def test_words_grow_in_place_and_become_final(server: Server, speech: Speech, viewer: Viewer) -> None:
    call = Call(server.media_url)
    with call.stream():
        speech.hears("outbound", "Harbor Books, how can I help you?")
        viewer.opens_call(call.sid)
        expect(viewer.connection).to_have_text("Live")
        expect(viewer.finals).to_have_text(["Harbor Books, how can I help you?"])
        shift_before = viewer.layout_shift
        speech.seems_to_hear("inbound", "hi I")
        expect(viewer.interims).to_have_text(["hi I"])
        line = viewer.conversation.locator("article[data-interim]").element_handle()
        for text in ("hi I would like", "hi I would like to check on an order", "hi I would like to check on"):
            speech.seems_to_hear("inbound", text)
            expect(viewer.interims).to_have_text([text])
        speech.hears("inbound", "Hi, I would like to check on an order.")
        expect(viewer.interims).to_have_count(0)
        expect(viewer.finals).to_have_text(
            ["Harbor Books, how can I help you?", "Hi, I would like to check on an order."]
        )
        assert line.evaluate("(line) => line.isConnected && line.hasAttribute('data-id')"), "it is another element"
        assert "Hi, I would like to check on an order." in line.inner_text()
        assert viewer.layout_shift - shift_before < HARDLY_ANY_SHIFT
    assert viewer.said == viewer.kept(call.sid)


def test_both_may_speak_at_once_and_a_long_talk_stays_in_sight(server: Server, speech: Speech, viewer: Viewer) -> None:
    call = Call(server.media_url)
    with call.stream():
        speech.seems_to_hear("inbound", "I only wanted to")
        viewer.opens_call(call.sid)
        speech.seems_to_hear("outbound", "one moment")
        expect(viewer.interims).to_have_text(["I only wanted to", "one moment"])
        for number in range(30):
            speech.hears(("inbound", "outbound")[number % 2], f"This is sentence number {number}, which takes a while.")
            expect(viewer.finals).to_have_count(number + 1)
        expect(viewer.finals.last).to_be_in_viewport()
        assert viewer.said == viewer.kept(call.sid)


def test_a_reader_who_has_scrolled_back_is_left_there(server: Server, speech: Speech, viewer: Viewer) -> None:
    call = Call(server.media_url)
    now = viewer.page.get_by_role("button", name="Jump to now")
    with call.stream():
        for number in range(30):
            speech.hears("inbound", f"This is sentence number {number}, which takes a while.")
        viewer.opens_call(call.sid)
        expect(viewer.finals).to_have_count(30)
        viewer.finals.first.scroll_into_view_if_needed()
        viewer.page.mouse.move(640, 400)
        viewer.page.mouse.wheel(0, -10_000)
        expect(now).to_be_visible()
        speech.hears("inbound", "And this is new.")
        expect(viewer.finals).to_have_count(31)
        expect(viewer.finals.first).to_be_in_viewport()
        expect(viewer.finals.last).not_to_be_in_viewport()
        now.click()
        expect(viewer.finals.last).to_be_in_viewport()
        expect(now).to_be_hidden()


def test_two_viewers_see_the_same(server: Server, speech: Speech, viewers: Viewers) -> None:
    first, second = viewers.comes_in(), viewers.comes_in()
    call = Call(server.media_url)
    with call.stream():
        speech.seems_to_hear("inbound", "is anybody")
        first.opens_call(call.sid)
        speech.hears("inbound", "Is anybody there?")
        speech.seems_to_hear("outbound", "I am")
        second.opens_call(call.sid)  # in the middle of a sentence
        for viewer in (first, second):
            expect(viewer.finals).to_have_text(["Is anybody there?"])
            expect(viewer.interims).to_have_text(["I am"])
        speech.hears("outbound", "I am here.")
        for viewer in (first, second):
            expect(viewer.finals).to_have_text(["Is anybody there?", "I am here."])
    for viewer in (first, second):
        expect(viewer.connection).to_have_text("Call ended")
        expect(viewer.notice("call.ended")).to_have_count(1)
        assert viewer.said == viewer.kept(call.sid)


def test_calls_come_and_end_in_the_list_by_themselves(server: Server, speech: Speech, viewer: Viewer) -> None:
    call = Call(server.media_url, **{"from": "+15550123", "to": "+15550199"})
    expect(viewer.connection).to_have_text("Live")
    with call.stream():
        expect(viewer.call(call.sid)).to_have_attribute("data-state", "live")
        speech.seems_to_hear("inbound", "it is about")
        expect(viewer.call(call.sid).locator(".newest")).to_contain_text("it is about")
        speech.hears("inbound", "It is about a parcel.")
        expect(viewer.call(call.sid).locator(".newest")).to_contain_text("It is about a parcel.")
        live = viewer.page.get_by_role("region", name="Live now")
        expect(live.get_by_role("article", name="+15550123")).to_have_count(1)
    expect(viewer.call(call.sid)).to_have_attribute("data-state", "ended")
    earlier = viewer.page.get_by_role("region", name="Earlier")
    expect(earlier.get_by_role("article").first).to_have_attribute("data-call-sid", call.sid)
    earlier.get_by_role("link", name="+15550123").first.click()
    expect(viewer.finals).to_have_text(["It is about a parcel."])


def test_a_service_that_is_lost_and_comes_back_is_shown_where_it_happened(
    tmp_path: Path, speech: Speech, browser: Browser
) -> None:
    with line_to(int(speech.server.url.rpartition(":")[2])) as line:
        settings = speech.settings | {"DEEPGRAM_URL": line.url.replace("http", "ws")}
        with serving(tmp_path, **settings) as server, Viewers(browser, server) as viewers:
            viewer = viewers.comes_in()
            call = Call(server.media_url)
            service = viewer.page.get_by_role("region", name="Services").locator('[data-service="Deepgram"]')
            with call.stream():
                speech.hears("inbound", "Before.")
                viewer.opens_call(call.sid)
                expect(service).to_have_attribute("data-state", "listening")
                speech.seems_to_hear("inbound", "this will be")
                expect(viewer.interims).to_have_text(["this will be"])
                speech.forget()
                line.cut()
                expect(service).to_have_attribute("data-state", "lost")
                expect(viewer.interims).to_have_count(0)
                expect(viewer.notice("service.lost")).to_have_count(1)
                line.mend()
                expect(service).to_have_attribute("data-state", "listening")
                expect(viewer.notice("service.back")).to_have_count(1)
                # What the service hears now began where it had been final, so its clock does, too.
                so_far = viewer.asks(f"/api/calls/{call.sid}/transcript.json")
                back_ms = next(event["at_ms"] for event in so_far["events"] if event["kind"] == "service.back")
                after_ms = back_ms + LATER_MS - so_far["segments"][0]["end_ms"]
                speech.hears_words("inbound", (Word("After.", after_ms, after_ms + 100),), is_final=True)
                expect(viewer.finals).to_have_text(["Before.", "After."])
            assert viewer.said == viewer.kept(call.sid)
            order = viewer.conversation.locator("article[data-id], [data-notice^='service']").evaluate_all(
                "(all) => all.map((one) => one.dataset.notice ?? one.querySelector('.text').textContent)"
            )
            assert order == ["Before.", "service.lost", "service.back", "After."]

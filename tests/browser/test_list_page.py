"""The list of calls stays calm and where the reader left it; and the page says how it stands, to whoever looks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Locator, expect

from relay.passes import Kind, Passes, Scope
from standins.gladia import GladiaServer
from tests.browser.axe import obstacles
from tests.browser.calling import Call
from tests.browser.kept import Kept, Said, keep
from tests.browser.line import line_to
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import PHONE, Viewer, Viewers

MANY: Final = 120  # calls: more than two pages of the list
LONG_SAID: Final = [
    Said("inbound", f"Sentence number {number}.", number * 900, number * 900 + 800) for number in range(40)
]
OLDEST: Final = f"CA{0:032}"
FAR_DOWN: Final = f"CA{MANY - 70:032}"
UNWANTED: Final = f"CA{MANY - 80:032}"
TALKED: Final = f"CA{'7' * 32}"
LOW: Final = {"width": 740, "height": 360}  # a phone on its side
HIDDEN: Final = 'Object.defineProperty(document, "hidden", { get: () => !window.isSeen })'
BE_SEEN: Final = '() => { window.isSeen = true; document.dispatchEvent(new Event("visibilitychange")); }'
MORE_THAN_LINES: Final = 7  # browsers have six to a server
LONG_AGO_S: Final = 2 * 3600
SILENT_MS: Final = 6000  # after which another service may tell
SOON_S: Final = 15  # seconds that may pass until a clock is stopped, and that no line is given up for
LINGERS_MS: Final = 301_000  # for which a call that has ended is followed
SHOWS_ITS_END: Final = """(one) => {
    const [shown, said] = [one, one.firstElementChild].map((each) => each.getBoundingClientRect());
    return said.bottom < shown.bottom + 1;
}"""
SHOWN_SO_FAR: Final = """(one) => {
    window.shown = [];
    new MutationObserver(() => window.shown.push(one.textContent)).observe(one, { childList: true, subtree: true });
}"""


class Second(Speech):
    """A service that listens beside the first."""

    def __init__(self) -> None:
        super().__init__()
        self.gladia = GladiaServer(ear=self.ear)


@pytest.fixture(scope="module")
def second() -> Iterator[Second]:
    """Another service, which hears the same."""
    service = Second()
    with service.gladia:
        yield service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech, second: Second) -> Iterator[Server]:
    """A server with two services and many calls."""
    both = {"SPEECH_SERVICES": "deepgram,gladia", "GLADIA_URL": second.gladia.url, "GLADIA_API_KEY": "key"}
    many = (
        Kept(f"CA{number:032}", [Said("inbound", "Hello.", 0, 900)], caller=f"+1555{number:07}")
        for number in range(MANY)
    )
    with serving(tmp_path_factory.mktemp("server"), **speech.settings, **both) as started:
        keep(started.database_url, *many, Kept(TALKED, LONG_SAID))
        yield started


@pytest.fixture
def called(server: Server, speech: Speech, second: Second) -> Iterator[Call]:
    """A call that runs."""
    speech.forget()
    second.forget()
    call = Call(server.media_url, **{"from": "+15550123", "to": "+15550199"})
    with call.stream():
        yield call


def top_of(shown: Locator) -> float:
    """Where it begins in the window."""
    box = shown.bounding_box()
    assert box is not None
    return box["y"]


def ends(server: Server, kind: Kind) -> None:
    """Ends all passes of a kind, as somebody at the server would."""
    for each in list(server.passes.all()):
        if each.kind is kind:
            server.passes.end(each.id)


def earlier(viewer: Viewer) -> Locator:
    """The calls that are over."""
    return viewer.page.get_by_role("region", name="Earlier").get_by_role("article")


# --- How the page stands with the server ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", f"/calls/{TALKED}"])
def test_a_low_window_has_the_connection_in_view_however_far_down_it_is(viewers: Viewers, path: str) -> None:
    viewer = viewers.comes_in(viewport=LOW)
    viewer.opens(path)
    if path != "/":
        expect(viewer.conversation).to_have_attribute("data-ready", "true")
    last = viewer.finals.last if path != "/" else viewer.page.get_by_role("button", name="Show more", exact=True)
    last.scroll_into_view_if_needed()
    expect(last).to_be_in_viewport()
    expect(viewer.connection).to_be_in_viewport(ratio=1)
    top = viewer.page.get_by_role("banner").bounding_box()
    assert top is not None
    assert top["height"] <= LOW["height"] / 8, "little is left for what was said"
    assert obstacles(viewer.page) == []


def test_tabs_that_were_opened_behind_others_take_no_line_from_them(viewer: Viewer) -> None:
    viewer.context.add_init_script(HIDDEN)
    tabs = [viewer.context.new_page() for _ in range(MORE_THAN_LINES)]
    for tab in tabs:
        tab.goto(f"{viewer.url}/calls/{TALKED}")
        expect(tab.get_by_role("log")).to_have_attribute("data-ready", "true")
    tabs[0].goto(viewer.url)
    connection = tabs[0].get_by_role("status", name="Connection")
    expect(connection).to_have_text("Connecting")
    tabs[0].evaluate(BE_SEEN)
    expect(connection).to_have_text("Live")
    expect(tabs[0].get_by_role("article").first).to_be_visible()


def test_who_was_logged_out_is_offered_to_log_in_and_led_back_to_the_second(server: Server, viewers: Viewers) -> None:
    viewer = viewers.comes_in()
    viewer.may_lose_network = True
    viewer.opens_call(TALKED, "#t=9")
    expect(viewer.page.get_by_role("button", name="Log out")).to_be_visible()
    ends(server, Kind.SESSION)
    expect(viewer.connection).to_have_attribute("data-state", "logged-out")
    expect(viewer.page.get_by_role("button", name="Log out")).to_have_count(0)
    viewer.connection.get_by_role("link", name="Log in").click()
    logs_in(viewer, server)
    expect(viewer.conversation.locator("article[aria-current='true']")).to_contain_text("Sentence number 10.")


def test_who_was_logged_out_is_told_so_for_as_long_as_they_look(server: Server, viewers: Viewers) -> None:
    viewer = viewers.comes_in()
    viewer.may_lose_network = True
    viewer.page.clock.install()
    viewer.opens_call(TALKED)
    ends(server, Kind.SESSION)
    expect(viewer.connection).to_have_attribute("data-state", "logged-out")
    viewer.page.clock.fast_forward(LINGERS_MS)
    assert viewer.connection.get_attribute("data-state") == "logged-out"


def test_a_stranger_with_a_link_to_a_second_is_led_on_to_it(server: Server, viewers: Viewers) -> None:
    stranger = viewers.stranger()
    stranger.opens(f"/calls/{TALKED}#t=9")
    expect(stranger.page.get_by_text("ask whoever sent it to you")).to_be_visible()
    assert obstacles(stranger.page) == []
    logs_in(stranger, server)
    expect(stranger.conversation.locator("article[aria-current='true']")).to_contain_text("Sentence number 10.")


def logs_in(viewer: Viewer, server: Server) -> None:
    viewer.page.get_by_label("Token").fill(server.access_path.rpartition("/")[2])
    viewer.page.get_by_role("button", name="Log in").click()


def test_who_comes_by_a_link_that_has_expired_is_told_to_ask_for_a_new_one(server: Server, viewers: Viewers) -> None:
    earlier = Passes(server.folder / "access", now=lambda: time.time() - LONG_AGO_S)
    link = earlier.issue(Kind.SHARE, {Scope.READ}, for_s=LONG_AGO_S // 2, call_sid=TALKED)
    guest = viewers.stranger()
    guest.may_lose_network = True
    guest.opens(f"/share/{link}")
    expect(guest.page.get_by_role("heading", name="Link expired")).to_be_visible()
    expect(guest.page.get_by_role("alert")).to_contain_text("Ask whoever sent it to you for a new one.")
    expect(guest.page.get_by_label("Token")).to_have_count(0)
    assert obstacles(guest.page) == []


def test_a_guest_whose_link_ends_is_not_asked_to_log_in(server: Server, viewers: Viewers) -> None:
    guest = viewers.stranger()
    guest.may_lose_network = True
    guest.opens(f"/share/{server.passes.issue(Kind.SHARE, {Scope.READ}, for_s=LONG_AGO_S, call_sid=TALKED)}")
    expect(guest.finals).to_have_count(len(LONG_SAID))
    ends(server, Kind.SHARE)
    expect(guest.connection).to_have_text("Link expired: ask for a new one")
    expect(guest.page.get_by_role("link", name="Log in")).to_have_count(0)


# --- What keeps calls from coming through ---------------------------------------------------------------------------


def test_a_stream_that_twilio_could_not_open_is_told_until_a_later_call_begins(
    tmp_path: Path, speech: Speech, browser: Browser
) -> None:
    with serving(tmp_path, **speech.settings) as server, Viewers(browser, server) as viewers:
        viewer = viewers.comes_in()
        told = viewer.page.get_by_role("region", name="A call did not come through")
        nobody_yet = viewer.page.get_by_text("Nobody has called yet.")
        expect(nobody_yet).to_be_visible()
        expect(told).to_be_hidden()
        reports(server, f"CA{'9' * 32}", "31920 - WebSocket handshake error wss://calls.example.com/media/s3cr3t")
        expect(told).to_contain_text("31920 - WebSocket handshake error (URL)")
        expect(told).to_contain_text("Today, ")
        expect(told).to_contain_text("Is the path right")
        expect(nobody_yet).to_be_hidden()
        expect(viewer.page.locator("#announcer")).to_contain_text("A call did not come through.")
        for how in ({}, {"color_scheme": "dark"}, {"forced_colors": "active"}, PHONE):
            late = viewers.comes_in(**how)
            expect(late.page.get_by_role("region", name="A call did not come through")).to_be_visible()
            assert obstacles(late.page) == []
        call = Call(server.media_url)
        speech.forget()
        with call.stream():
            expect(viewer.call(call.sid)).to_be_visible()
            expect(told).to_be_hidden()
            viewer.page.locator("#unopened-error").evaluate(SHOWN_SO_FAR)
            reports(server, call.sid, "31930 - Buffer overflow")  # of a call that has begun
            reports(server, f"CA{'8' * 32}", "31901 - Stream timed out")
            expect(told).to_contain_text("31901")
            assert viewer.page.evaluate("() => window.shown") == ["31901 - Stream timed out"]
        assert late.page.reload()
        expect(late.page.get_by_role("region", name="A call did not come through")).to_contain_text("31901")
        assert top_of(told) < top_of(viewer.call(call.sid))


def reports(server: Server, call_sid: str, error: str) -> None:
    """Twilio says that a stream failed."""
    said = {"CallSid": call_sid, "StreamSid": f"MZ{'9' * 32}", "StreamEvent": "stream-error", "StreamError": error}
    with urlopen(f"{server.url}/stream-status/{server.passes.stream_key}", urlencode(said).encode()) as answer:
        assert answer.status == HTTPStatus.NO_CONTENT


# --- The list -------------------------------------------------------------------------------------------------------


def test_a_reader_who_had_more_calls_shown_finds_them_where_they_were_after_a_loss(
    server: Server, viewers: Viewers
) -> None:
    missed = Call(server.media_url)
    with line_to(server.port) as line:
        viewer = viewers.comes_in(url=line.url)
        viewer.may_lose_network = True
        viewer.page.get_by_role("button", name="Show more", exact=True).click()
        viewer.call(FAR_DOWN).scroll_into_view_if_needed()
        was_there = top_of(viewer.call(FAR_DOWN))
        line.cut()
        expect(viewer.connection).to_have_attribute("data-state", "waiting")
        with missed.stream():
            pass
        server.line(f"Call CA..{missed.sid[-6:]} ended")
        elsewhere, ours = viewers.comes_in(), {"Origin": server.url}
        assert elsewhere.context.request.delete(f"{elsewhere.url}/api/calls/{UNWANTED}", headers=ours).ok
        line.mend()
        expect(viewer.call(missed.sid)).to_have_attribute("data-state", "ended")
        expect(viewer.call(UNWANTED)).to_have_count(0)
        expect(viewer.call(FAR_DOWN)).to_be_in_viewport()
        assert abs(top_of(viewer.call(FAR_DOWN)) - was_there) < 1
        expect(earlier(viewer)).to_have_count(MANY + 1)
        expect(earlier(viewer).last).to_have_attribute("data-call-sid", OLDEST)


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_hops_while_somebody_speaks_and_the_newest_words_are_seen(
    speech: Speech, viewers: Viewers, called: Call, width: int
) -> None:
    viewer = viewers.comes_in(viewport={"width": width, "height": 640})
    newest, below = viewer.call(called.sid).locator(".newest"), earlier(viewer).first
    expect(viewer.call(called.sid)).to_have_attribute("data-state", "live")
    expect(viewer.page.locator("#live-calls article")).to_have_count(1)  # the call of the test before has ended
    was_there = top_of(below)
    for text in ("yes", f"{'yes and then ' * 30}the end", "no"):
        speech.seems_to_hear("inbound", text)
        expect(newest).to_contain_text(text[-20:])
        assert newest.evaluate(SHOWS_ITS_END)
        assert top_of(below) == was_there
    speech.hears("outbound", "Well.")
    expect(newest).to_contain_text("Well.")
    assert top_of(below) == was_there


def test_of_two_services_that_hear_the_same_one_is_shown(
    speech: Speech, second: Second, viewer: Viewer, called: Call
) -> None:
    newest = viewer.call(called.sid).locator(".newest")
    viewer.page.clock.install()
    viewer.opens("/")
    expect(viewer.call(called.sid)).to_have_attribute("data-state", "live")
    viewer.page.clock.pause_at(viewer.page.evaluate("() => Date.now()") / 1000 + SOON_S)
    newest.evaluate(SHOWN_SO_FAR)
    for number in range(3):
        speech.seems_to_hear("inbound", f"this is number {number}")
        expect(newest).to_have_text(f"this is number {number}")
        second.seems_to_hear("inbound", f"these are numbers {number}")
    second.hears("outbound", "Another side may be told by another.")
    expect(newest).to_have_text("Another side may be told by another.")
    assert [text for text in viewer.page.evaluate("() => window.shown") if text.startswith("these")] == []
    viewer.page.clock.fast_forward(SILENT_MS)
    second.seems_to_hear("inbound", "the first one is silent")
    expect(newest).to_have_text("the first one is silent")


def test_a_call_whose_numbers_nobody_knows_is_named_by_its_sid(server: Server, viewer: Viewer) -> None:
    call = Call(server.media_url)
    with call.stream():
        expect(viewer.call(call.sid)).to_have_accessible_name(f"Call CA…{call.sid[-6:]}")


def test_yesterday_is_the_day_before_today_also_when_clocks_were_changed(viewers: Viewers) -> None:
    viewer = viewers.comes_in(timezone_id="Europe/Berlin")
    viewer.page.clock.set_fixed_time("2026-03-30T12:00:00Z")  # the 29th had 23 hours
    moment = "async (at) => (await import('/static/times.js')).moment(at)"
    assert viewer.page.evaluate(moment, "2026-03-29T22:30:00Z") == "Today, 00:30"
    assert viewer.page.evaluate(moment, "2026-03-28T23:30:00Z") == "Yesterday, 00:30"
    assert viewer.page.evaluate(moment, "2026-03-28T22:30:00Z") == "28 March, 23:30"


@pytest.mark.parametrize("written", ["+1 555 000 0042", "(555) 000-0042", "555.0000.042", "\u202a+15550000042\u202c"])
def test_a_number_is_found_as_people_write_it(viewer: Viewer, written: str) -> None:
    viewer.page.get_by_role("textbox", name="Number").fill(written)
    viewer.page.get_by_role("button", name="Search", exact=True).click()
    expect(earlier(viewer)).to_have_count(1)
    expect(earlier(viewer)).to_have_attribute("data-call-sid", f"CA{42:032}")

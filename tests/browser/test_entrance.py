"""Coming in, going out, and what a shared link shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Page, expect

from relay.passes import Kind, Passes, Scope
from tests.browser.calling import Call
from tests.browser.kept import keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers

PASSWORD: Final = "correct horse battery staple"
SHARED: Final = f"CA{'1' * 32}"
OTHER: Final = f"CA{'2' * 32}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server with a password, and two calls."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, VIEWER_PASSWORD=PASSWORD, **speech.settings) as started:
        keep(started.database_url, sample_call(SHARED), sample_call(OTHER, caller="+15550177"))
        yield started


@pytest.fixture
def viewer(viewers: Viewers) -> Viewer:
    """Somebody who has logged in."""
    somebody = viewers.stranger()
    somebody.opens("/")
    log_in(somebody.page, PASSWORD)
    expect(somebody.call(SHARED)).to_be_visible()
    return somebody


def log_in(page: Page, password: str) -> None:
    """Fills the form, and sends it."""
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def ended(server: Server, kind: Kind) -> None:
    """Ends all passes of a kind, as somebody at the server would."""
    for each in list(server.passes.all()):
        if each.kind is kind:
            server.passes.end(each.id)


def link_to(viewer: Viewer, sid: str, hours: int) -> str:
    """Shares a call by the page's own dialog."""
    viewer.opens_call(sid)
    viewer.page.get_by_role("button", name="Share").click()
    dialog = viewer.page.get_by_role("dialog", name="Share this call")
    dialog.get_by_role("spinbutton", name="Hours").fill(str(hours))
    dialog.get_by_role("button", name="Make a link").click()
    link = dialog.get_by_role("textbox", name="Link")
    expect(link).not_to_have_value("")
    return link.input_value()


def test_a_stranger_is_led_to_the_login_and_on_to_where_they_wanted(viewers: Viewers) -> None:
    stranger = viewers.stranger()
    stranger.may_lose_network = True  # a wrong password is told on the console too
    stranger.opens(f"/calls/{SHARED}")
    expect(stranger.page.get_by_role("heading", name="Log in")).to_be_visible()
    log_in(stranger.page, "something else")
    expect(stranger.page.get_by_role("alert")).to_be_visible()
    log_in(stranger.page, PASSWORD)
    expect(stranger.finals).to_have_count(12)
    assert stranger.page.url.endswith(f"/calls/{SHARED}")


def test_who_logs_out_is_out_in_every_window(viewers: Viewers, viewer: Viewer) -> None:
    viewer.opens_call(SHARED)
    other = viewer.context.new_page()
    other.goto(viewer.url)
    viewer.may_lose_network = True  # its feed ends with the session
    other.get_by_role("button", name="Log out").click()
    expect(other.get_by_role("heading", name="Log in")).to_be_visible()
    viewer.opens("/")
    expect(viewer.page.get_by_role("heading", name="Log in")).to_be_visible()


def test_an_open_page_is_told_that_its_session_is_over(server: Server, speech: Speech, viewer: Viewer) -> None:
    call = Call(server.media_url)
    with call.stream():
        speech.hears("inbound", "This may be seen.")
        viewer.opens_call(call.sid)
        expect(viewer.connection).to_have_text("Live")
        expect(viewer.finals).to_have_text(["This may be seen."])
        viewer.may_lose_network = True
        ended(server, Kind.SESSION)
        expect(viewer.connection).to_have_attribute("data-state", "logged-out")
        speech.hears("inbound", "This may not.")
        server.line("FINAL.*This may not")
    viewer.connection.get_by_role("link", name="Log in").click()
    log_in(viewer.page, PASSWORD)
    expect(viewer.finals).to_have_text(["This may be seen.", "This may not."])


def test_a_shared_link_shows_that_call_and_no_other(server: Server, viewers: Viewers, viewer: Viewer) -> None:
    link = link_to(viewer, SHARED, hours=2)
    guest = viewers.stranger()
    guest.page.goto(link)
    expect(guest.finals).to_have_count(12)
    assert guest.said == viewer.kept(SHARED)
    expect(guest.page.get_by_role("link", name="Calls", exact=True)).to_have_count(0)
    expect(guest.page.get_by_role("button", name="Share")).to_have_count(0)
    expect(guest.page.get_by_role("button", name="Delete")).to_have_count(0)
    guest.may_lose_network = True
    for path in ("/", f"/calls/{OTHER}", f"/api/calls/{OTHER}/transcript.json", "/api/calls", "/api/search?q=order"):
        answer = guest.context.request.get(guest.url + path, max_redirects=0)
        assert answer.status in (303, 401, 403), path
        assert "+15550177" not in answer.text()
    ended(server, Kind.SHARE)
    guest.page.reload()
    expect(guest.finals).to_have_count(0)
    assert guest.context.request.get(f"{guest.url}/api/calls/{SHARED}/transcript.json").status == 401
    late = viewers.stranger()
    late.may_lose_network = True
    late.page.goto(link)
    expect(late.page.get_by_role("alert")).to_contain_text("expired")


def test_a_shared_link_expires(server: Server, viewers: Viewers) -> None:
    two_hours_ago = Passes(server.folder / "access", now=lambda: time.time() - 2 * 3600)
    link = two_hours_ago.issue(Kind.SHARE, {Scope.READ}, for_s=3600, call_sid=SHARED)
    guest = viewers.stranger()
    guest.may_lose_network = True
    guest.opens(f"/share/{link}")
    expect(guest.page.get_by_role("alert")).to_contain_text("expired")
    expect(guest.finals).to_have_count(0)

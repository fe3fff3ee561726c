"""All of the page without a mouse, and seen where one is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.calling import Call
from tests.browser.kept import keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers

PASSWORD: Final = "correct horse battery staple"
SID: Final = f"CA{'3' * 32}"
STEPS_MOST: Final = 60  # presses of Tab to anything on a page

# Whether what has the focus can be seen to have it: by an outline, a shadow or a border that it has not without.
LOOKS_FOCUSED: Final = """() => {
  const one = document.activeElement;
  if (one === document.body) return true;  // from the last element to the browser's own, and on to the first
  const look = () => {
    const { outlineStyle, outlineWidth, outlineColor, boxShadow, borderColor, backgroundColor } = getComputedStyle(one);
    const outline = outlineStyle === "none" ? "none" : `${outlineStyle} ${outlineWidth} ${outlineColor}`;
    return [outline, boxShadow, borderColor, backgroundColor].join("; ");
  };
  const focused = look();
  one.blur();
  const blurred = look();
  one.focus({ focusVisible: true });
  return focused !== blurred;
}"""

# Notes what an element says from now on.
NOTE_TEXTS: Final = """(one) => {
  window.told = [];
  new MutationObserver(() => window.told.push(one.textContent)).observe(one, { childList: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server with a password and a recorded call."""
    with serving(tmp_path_factory.mktemp("server"), VIEWER_PASSWORD=PASSWORD, **speech.settings) as started:
        keep(started.database_url, sample_call(SID, recording=str(started.sample_recording())))
        yield started


def walk_to(page: Page, target: Locator) -> None:
    """Presses Tab until it is there, and looks at every step whether one sees where one is."""
    for _ in range(STEPS_MOST):
        page.keyboard.press("Tab")
        at = page.evaluate("() => document.activeElement.outerHTML.slice(0, 200)")
        assert page.evaluate(LOOKS_FOCUSED), f"the focus is not to be seen: {at}"
        if target.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {target}")


def test_log_in_find_open_jump_play_export_share_and_log_out(viewers: Viewers) -> None:
    viewer = viewers.stranger()
    page = viewer.page
    logs_in(viewer)
    searches(viewer)
    page.keyboard.press("Enter")
    expect(viewer.finals).to_have_count(12)
    expect(viewer.conversation.locator("article[aria-current='true']")).to_contain_text("forty two Park Avenue")
    jumps(viewer)
    plays(viewer)
    exports(viewer)
    shares(viewer)
    page.reload()
    walk_to(page, page.get_by_role("button", name="Log out"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def logs_in(viewer: Viewer) -> None:
    viewer.opens("/")
    password = viewer.page.get_by_label("Password")
    expect(password).to_be_focused()
    viewer.page.keyboard.type(PASSWORD)
    viewer.page.keyboard.press("Enter")
    expect(viewer.call(SID)).to_be_visible()


def searches(viewer: Viewer) -> None:
    page = viewer.page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    walk_to(page, page.get_by_role("searchbox", name="Search what was said"))
    page.keyboard.type("park avenue")
    page.keyboard.press("Enter")
    found = page.get_by_role("region", name="Found")
    expect(found.locator("mark").first).to_be_visible()
    walk_to(page, found.get_by_role("link").first)


def jumps(viewer: Viewer) -> None:
    page = viewer.page
    time = viewer.conversation.locator("article[data-id]").nth(1).locator("a.time")
    walk_to(page, time)
    page.keyboard.press("Enter")
    expect(viewer.conversation.locator("article[aria-current='true']")).to_contain_text("check on an order")
    assert "#t=" in page.url


def plays(viewer: Viewer) -> None:
    page = viewer.page
    recording = page.get_by_role("region", name="Recording")
    page.reload()
    expect(recording).to_be_visible()  # it is the last that comes: Tab leads to it then
    walk_to(page, recording.get_by_role("button", name="Play"))
    page.keyboard.press("Enter")
    expect(recording.get_by_role("button", name="Pause")).to_be_visible()
    expect(viewer.conversation.locator(".word[aria-current='true']")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(recording.get_by_role("button", name="Play")).to_be_visible()
    position = recording.get_by_role("slider", name="Position")
    before = position.get_attribute("aria-valuenow") or ""
    position.focus()
    page.keyboard.press("ArrowRight")
    expect(position).not_to_have_attribute("aria-valuenow", before)
    assert float(position.get_attribute("aria-valuenow") or 0) > float(before)


def exports(viewer: Viewer) -> None:
    page = viewer.page
    walk_to(page, page.get_by_role("navigation", name="Export").get_by_role("link", name="Text"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert "Boston" in download.value.path().read_text()


def shares(viewer: Viewer) -> None:
    page = viewer.page
    page.reload()
    expect(viewer.finals).to_have_count(12)
    button = page.get_by_role("button", name="Share")
    walk_to(page, button)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Share this call")
    walk_to(page, dialog.get_by_role("button", name="Make a link"))
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("textbox", name="Link")).not_to_have_value("")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()


def test_a_screen_reader_is_told_finals_only(server: Server, speech: Speech, viewers: Viewers) -> None:
    viewer = viewers.stranger()
    logs_in(viewer)
    call = Call(server.media_url)
    announcer = viewer.page.locator("#announcer")
    with call.stream():
        speech.hears("inbound", "This was said before.")
        viewer.opens_call(call.sid)
        viewer.waits_until_kept(call.sid, ["This was said before."])
        viewer.opens_call(call.sid)  # which shows it as what was said before
        expect(viewer.connection).to_have_text("Live")
        expect(announcer).to_have_attribute("aria-live", "polite")
        announcer.evaluate(NOTE_TEXTS)
        speech.seems_to_hear("inbound", "this is an interim")
        expect(viewer.interims).to_have_text(["this is an interim"])
        speech.hears("inbound", "This is final.")
        expect(announcer).to_contain_text("This is final.")
        told = " ".join(viewer.page.evaluate("() => window.told"))
        assert "interim" not in told
        assert "before" not in told
    others = viewer.page.locator("[aria-live]:not([aria-live=off]):not(#announcer)")
    expect(others).to_have_count(0)

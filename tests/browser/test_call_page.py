"""The page of one call in windows of every size: what is looked at is in view, and nothing covers it or cuts it off."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import FloatRect, Locator, expect

from tests.browser.calling import Call
from tests.browser.kept import Kept, keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import DESK, Viewer, Viewers

RECORDED: Final = f"CA{'4' * 32}"
SILENT: Final = f"CA{'5' * 32}"
SIZES: Final[dict[str, dict[str, Any]]] = {
    "desk": {"viewport": DESK},
    "wide": {"viewport": {"width": 1280, "height": 520}},
    "phone": {"viewport": {"width": 360, "height": 640}},
    "low": {"viewport": {"width": 740, "height": 360}},
}
FASTEST: Final = 16  # times as fast as it was said: no browser plays faster
AROUND: Final = 6.0  # pixels of colour, or of an outline, around what a link leads to
ROW: Final = 40.0  # pixels: one line, and not two
A_LITTLE: Final = 8.0  # pixels between a sentence and a button

# From the edges of what is coloured to those of the slice it stands in: left, top and right.
ROOM_AROUND: Final = """(segment, coloured) => {
  const inner = (segment.querySelector(coloured) ?? segment).getBoundingClientRect();
  const outer = segment.closest(".slice").getBoundingClientRect();
  return [inner.left - outer.left, inner.top - outer.top, outer.right - inner.right];
}"""

# Whether something else lies over the middle of an element.
IS_COVERED: Final = """(one) => {
  const { left, top, width, height } = one.getBoundingClientRect();
  return document.elementFromPoint(left + width / 2, top + height / 2) !== one;
}"""

# Scrolls until the middle of an element has just gone under what sticks at the top.
PUT_UNDER: Final = """(one) => {
  const sticky = [...document.querySelectorAll(".top, .sides")].map((each) => each.getBoundingClientRect().bottom);
  const { top, bottom } = one.getBoundingClientRect();
  scrollBy(0, (top + bottom) / 2 + 3 - Math.max(...sticky));
}"""

# Notes, frame by frame, the word that is marked (of several, that which began last), and whether it can be seen.
WATCH_MARKED: Final = f"""() => {{
  const isCovered = {IS_COVERED};
  window.marked = new Set();
  window.covered = new Set();
  const look = () => {{
    const marked = [...document.querySelectorAll(".word[aria-current]")];
    const [word] = marked.sort((one, other) => other.dataset.startMs - one.dataset.startMs);
    if (word) window.marked.add(word.textContent);
    if (word && isCovered(word)) window.covered.add(word.textContent);
    requestAnimationFrame(look);
  }};
  look();
}}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server with a recorded call, and one on which nobody said anything."""
    with serving(tmp_path_factory.mktemp("server"), **speech.settings) as started:
        recorded = sample_call(RECORDED, recording=str(started.sample_recording()))
        keep(started.database_url, recorded, Kept(SILENT, [], duration_ms=4000))
        yield started


def player_of(viewer: Viewer) -> Locator:
    """The player, once it is there."""
    player = viewer.page.get_by_role("region", name="Recording")
    expect(player).to_be_visible()
    return player


def box_of(shown: Locator) -> FloatRect:
    """Where it stands in the window."""
    box = shown.bounding_box()
    assert box is not None
    return box


def bottom_of(shown: Locator) -> float:
    """Where it ends."""
    box = box_of(shown)
    return box["y"] + box["height"]


def marked_words(viewer: Viewer) -> Locator:
    return viewer.conversation.locator(".word[aria-current='true']")


def marked_segment(viewer: Viewer) -> Locator:
    return viewer.conversation.locator("article[aria-current='true']")


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_the_word_that_is_heard_is_never_behind_the_player(viewers: Viewers, size: str) -> None:
    viewer = viewers.comes_in(**SIZES[size])
    viewer.opens_call(RECORDED)
    viewer.page.evaluate(WATCH_MARKED)
    player_of(viewer).get_by_role("button", name="Play").click()
    viewer.page.locator("audio").evaluate(f"(audio) => {{ audio.playbackRate = {FASTEST}; }}")
    viewer.page.wait_for_function("() => document.querySelector('audio').ended")
    assert viewer.page.evaluate("() => window.marked.size") > 0
    assert viewer.page.evaluate("() => [...window.covered]") == []


def test_after_a_jump_no_word_from_before_it_stays_marked(viewer: Viewer) -> None:
    viewer.opens_call(RECORDED)
    slider = player_of(viewer).get_by_role("slider", name="Position")
    for nowhere in ("Home", "End"):
        slider.press("PageUp")
        slider.press("Shift+ArrowLeft")
        expect(marked_words(viewer)).to_have_count(1)
        slider.press(nowhere)
        expect(marked_words(viewer)).to_have_count(0)


def test_a_recording_that_is_gone_is_told_to_everybody(server: Server, viewer: Viewer) -> None:
    sid, recording = f"CA{'6' * 32}", server.folder / "gone.wav"
    shutil.copy(server.sample_recording(), recording)
    keep(server.database_url, sample_call(sid, recording=str(recording)))
    viewer.opens_call(sid)
    player = player_of(viewer)
    recording.unlink()
    viewer.may_lose_network = True
    player.get_by_role("button", name="Play").click()
    expect(player).to_contain_text("The recording cannot be played.")
    expect(viewer.page.locator("#announcer")).to_contain_text("The recording cannot be played.")
    player.get_by_role("slider", name="Position").press("ArrowRight")
    expect(player).to_contain_text("The recording cannot be played.")


@pytest.mark.parametrize("size", ["wide", "phone", "low"])
def test_what_has_the_focus_is_not_covered_and_what_sticks_moves_nothing(viewers: Viewers, size: str) -> None:
    viewer = viewers.comes_in(**SIZES[size])
    viewer.opens_call(RECORDED)
    play = player_of(viewer).get_by_role("button", name="Play")
    viewer.conversation.focus()
    times = viewer.conversation.locator("a.time")
    for key, shown in [("Tab", times.all()), ("Shift+Tab", times.all()[-2::-1])]:
        for time in shown:
            viewer.page.keyboard.press(key)
            expect(time).to_be_focused()
            assert not time.evaluate(IS_COVERED), f"{key} went to {time.text_content()}, which cannot be seen"
    times.nth(4).evaluate(PUT_UNDER)
    times.nth(5).evaluate("(time) => time.focus({ preventScroll: true })")
    viewer.page.keyboard.press("Shift+Tab")
    assert not times.nth(4).evaluate(IS_COVERED), "it stands below the names of the columns"
    at = viewer.page.evaluate("() => scrollY")
    assert at > 0
    for sticky in (play, viewer.page.get_by_role("link", name="Calls"), viewer.page.get_by_label("Speed")):
        sticky.focus()
        assert viewer.page.evaluate("() => scrollY") == at


def test_back_to_the_address_without_a_second_nothing_is_marked(viewer: Viewer) -> None:
    viewer.opens_call(RECORDED)
    viewer.conversation.locator("a.time").nth(1).click()
    expect(marked_segment(viewer)).to_have_count(1)
    viewer.page.go_back()
    expect(marked_segment(viewer)).to_have_count(0)


@pytest.mark.parametrize(("size", "coloured"), [("desk", ".text"), ("phone", "article")])
def test_the_colour_around_a_linked_second_is_not_cut_off(viewers: Viewers, size: str, coloured: str) -> None:
    """A browser paints nothing beyond the edges of a box that it lays out only near the view."""
    viewer = viewers.comes_in(**SIZES[size])
    for second, track in (("1", "outbound"), ("5", "inbound")):  # the first segment of its minute, and the other side
        viewer.opens_call(RECORDED, f"#t={second}")
        expect(marked_segment(viewer)).to_have_attribute("data-track", track)
        left, top, right = marked_segment(viewer).evaluate(ROOM_AROUND, coloured)
        assert min(left, top, right) >= AROUND
    assert viewer.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_a_call_on_which_nobody_spoke_says_so(viewer: Viewer) -> None:
    viewer.opens_call(SILENT)
    nothing = viewer.page.get_by_text("Nothing was said on this call.")
    expect(nothing).to_be_visible()
    expect(viewer.notice("call.ended")).to_be_visible()
    assert bottom_of(nothing) <= box_of(viewer.notice("call.ended"))["y"]


def test_the_buttons_of_a_dialog_stand_apart_from_what_it_says(viewer: Viewer) -> None:
    viewer.opens_call(RECORDED)
    viewer.page.get_by_role("button", name="Delete").click()
    dialog = viewer.page.get_by_role("dialog", name="Delete this call")
    said = dialog.get_by_text("are gone for good")
    for name in ("Delete it", "Keep it"):
        assert box_of(dialog.get_by_role("button", name=name))["y"] - bottom_of(said) > A_LITTLE


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_how_far_a_service_is_behind_is_in_view_at_the_end_of_a_long_call(
    server: Server, speech: Speech, viewers: Viewers, size: str
) -> None:
    viewer = viewers.comes_in(**SIZES[size])
    call = Call(server.media_url)
    speech.forget()
    behind = viewer.page.locator("#sides").get_by_text(re.compile(r"^Deepgram \d+(\.\d)? s behind$"))
    with call.stream():
        viewer.opens_call(call.sid)
        speech.hears("inbound", "This is the first sentence.")
        expect(viewer.finals).to_have_count(1)
        services = viewer.page.get_by_role("region", name="Services")
        expect(services).to_be_in_viewport()
        expect(services).to_contain_text("behind")
        expect(behind).to_be_hidden()  # it would be told twice
        for number in range(20):
            speech.hears("outbound", f"This is sentence number {number}, which takes a while.")
        expect(viewer.finals).to_have_count(21)
        expect(viewer.finals.last).to_be_in_viewport()
        expect(behind).to_be_visible()
        expect(behind).to_be_in_viewport(ratio=1)
        assert not behind.evaluate(IS_COVERED)
        assert box_of(viewer.page.locator("#sides"))["height"] <= ROW
    expect(behind).to_have_count(0)

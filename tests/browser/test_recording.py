"""A recorded call: its waveform is looked at, and its words are heard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.calling import Call
from tests.browser.kept import keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer

SID: Final = f"CA{'4' * 32}"
LENGTH_S: Final = 43.24

# In which of ten parts of a canvas something is drawn that reaches beyond a tenth of its height.
LOUD_PARTS: Final = """(canvas) => {
  const { width, height } = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const pixels = copy.getImageData(0, 0, width, height).data;
  const loud = new Set();
  for (let x = 0; x < width; x++) {
    const column = new Set();
    for (let y = 0; y < height; y++) if (pixels[(y * width + x) * 4 + 3] > 0) column.add(y);
    if (column.size > height / 10) loud.add(Math.floor((x * 10) / width));
  }
  return [...loud].sort();
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server that records, with a recorded call."""
    with serving(tmp_path_factory.mktemp("server"), RECORD="wav", **speech.settings) as started:
        keep(started.database_url, sample_call(SID, recording=str(started.sample_recording())))
        yield started


@pytest.fixture
def player(viewer: Viewer) -> Locator:
    """The player on the page of the recorded call."""
    viewer.opens_call(SID)
    recording = viewer.page.get_by_role("region", name="Recording")
    expect(recording).to_be_visible()
    return recording


def word(viewer: Viewer, line: int, text: str) -> Locator:
    """A word that can be clicked: they are when somebody points at their line."""
    article = viewer.conversation.locator("article[data-id]").nth(line)
    article.hover()
    return article.locator(".word").filter(has_text=text).first


def position(player: Locator) -> float:
    """Where it plays, in seconds."""
    at: Any = player.page.evaluate("() => document.querySelector('audio').currentTime")
    return float(at)


def now_playing(viewer: Viewer) -> Locator:
    return viewer.conversation.locator(".word[aria-current='true']")


def test_the_waveform_shows_who_spoke_when(viewer: Viewer, player: Locator) -> None:
    parts = {}
    for track in ("inbound", "outbound"):
        canvas = player.locator(f"[data-track='{track}'] canvas")
        expect(canvas).to_be_visible()
        viewer.page.wait_for_function(f"(canvas) => ({LOUD_PARTS})(canvas).length > 0", arg=canvas.element_handle())
        parts[track] = canvas.evaluate(LOUD_PARTS)
    assert 0 in parts["outbound"]  # "Thank you for calling", 1.0 to 4.4 s
    assert 0 not in parts["inbound"]
    assert 1 in parts["inbound"]  # "Hi, I would like", 5.0 to 8.7 s
    assert parts["inbound"] != parts["outbound"]


def test_what_plays_is_marked_word_by_word(viewer: Viewer, player: Locator) -> None:
    word(viewer, 0, "calling").click()
    expect(now_playing(viewer)).to_have_text("calling")
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    for text in ("Harbor", "Books."):
        expect(now_playing(viewer)).to_have_text(text)
    player.get_by_role("button", name="Pause").click()
    assert 2.4 < position(player) < 4.5


def test_a_word_that_is_clicked_is_heard(viewer: Viewer, player: Locator) -> None:
    word(viewer, 8, "Park").click()
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    expect(now_playing(viewer)).to_have_count(1)
    assert 31.0 < position(player) < 33.2
    word(viewer, 1, "Hi,").click()
    expect(now_playing(viewer)).to_have_count(1)
    assert 5.0 <= position(player) < 9.0


def test_a_link_to_a_second_begins_there(viewer: Viewer) -> None:
    viewer.opens_call(SID, "#t=31.5")
    current = viewer.conversation.locator("article[aria-current='true']")
    expect(current).to_contain_text("forty two Park Avenue")
    expect(current).to_be_in_viewport()
    viewer.page.get_by_role("region", name="Recording").get_by_role("button", name="Play").click()
    expect(now_playing(viewer)).to_have_count(1)
    assert 31.5 <= position(viewer.page.locator("main")) < 40


def test_a_call_that_was_recorded_while_one_watched_can_be_heard(
    server: Server, speech: Speech, viewer: Viewer
) -> None:
    call = Call(server.media_url)
    with call.stream():
        viewer.opens_call(call.sid)
        for text in ("This is recorded.", "All of it is."):
            speech.hears("inbound", text)
        expect(viewer.finals).to_have_count(2)
    recording = viewer.page.get_by_role("region", name="Recording")
    expect(recording).to_be_visible()
    recording.get_by_role("button", name="Play").click()
    viewer.page.wait_for_function("() => document.querySelector('audio').ended")


def test_a_call_that_was_not_recorded_has_no_player(server: Server, viewer: Viewer) -> None:
    silent = f"CA{'5' * 32}"
    keep(server.database_url, sample_call(silent))
    viewer.opens_call(silent)
    expect(viewer.finals).to_have_count(12)
    expect(viewer.page.get_by_role("region", name="Recording")).to_have_count(0)

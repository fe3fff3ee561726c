"""A recorded call: its waveform is looked at, and its words are heard."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.calling import Call
from tests.browser.kept import Kept, Said, keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer

SID: Final = f"CA{'4' * 32}"
LOOKED_BY_MS: Final = 15_000
SOME_WORDS: Final = 3  # marked one after the other
REACHES: Final = "(ms) => document.querySelector('#waves').ariaValueMax * 1000 > ms - 1000"  # whole seconds

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


def start_of(viewer: Viewer, line: int, text: str) -> int:
    """When a word was said, in milliseconds."""
    words = viewer.asks(f"/api/calls/{SID}/transcript.json")["segments"][line]["words"]
    return next(int(word["start_ms"]) for word in words if word["text"] == text)


def position(player: Locator) -> float:
    """Where it plays, in seconds."""
    at: Any = player.page.evaluate("() => document.querySelector('audio').currentTime")
    return float(at)


# Notes from now on to where the page moves the sound, in milliseconds, and where it is once it was moved.
NOTE_SEEKS: Final = """() => {
  const audio = document.querySelector("audio");
  const { get, set } = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime");
  window.sought = [];
  window.arrived = [];
  Object.defineProperty(audio, "currentTime", {
    configurable: true,
    get: () => get.call(audio),
    set: (seconds) => {
      window.sought.push(Math.round(seconds * 1000));
      set.call(audio, seconds);
    },
  });
  audio.addEventListener("seeked", () => window.arrived.push(Math.round(audio.currentTime * 1000)));
}"""

# Notes from now on each word that is marked: what it is, when it begins, and how far the sound is, in milliseconds.
NOTE_MARKED: Final = """() => {
  const audio = document.querySelector("audio");
  window.marked = new Map();
  new MutationObserver((changes) => {
    for (const { target } of changes.filter(({ target }) => target.matches(".word[aria-current='true']"))) {
      const startMs = Number(target.dataset.startMs);
      window.marked.set(startMs, [target.textContent, startMs, audio.currentTime * 1000]);
    }
  }).observe(document.querySelector("#conversation"), { attributeFilter: ["aria-current"], subtree: true });
}"""


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
    transcript = viewer.asks(f"/api/calls/{SID}/transcript.json")
    spoken = [(word["text"], word["start_ms"]) for segment in transcript["segments"] for word in segment["words"]]
    viewer.page.evaluate(NOTE_MARKED)
    word(viewer, 0, "calling").click()
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    viewer.page.wait_for_function("(words) => window.marked.size > words", arg=SOME_WORDS)
    player.get_by_role("button", name="Pause").click()
    marked = viewer.page.evaluate("() => [...window.marked.values()]")
    assert marked[0][0] == "calling"
    to_come = iter(spoken)  # a browser that is held up leaves some out
    assert all((text, start_ms) in to_come for text, start_ms, _ in marked)
    assert all(start_ms <= round(at_ms) for _, start_ms, at_ms in marked)


def test_a_word_that_is_clicked_is_heard(viewer: Viewer, player: Locator) -> None:
    viewer.page.evaluate(NOTE_SEEKS)
    for line, text in ((8, "Park"), (1, "Hi,")):
        word(viewer, line, text).click()
        begins_ms = start_of(viewer, line, text)
        assert viewer.page.evaluate("() => window.sought.at(-1)") == begins_ms
        expect(player.get_by_role("button", name="Pause")).to_be_visible()
        viewer.page.wait_for_function("(ms) => document.querySelector('audio').currentTime * 1000 > ms", arg=begins_ms)


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


def test_a_word_of_a_second_stream_is_heard_where_it_was_said(server: Server, speech: Speech, viewer: Viewer) -> None:
    """Its place is on the call's clock: both streams are in one recording."""
    speech.forget()
    call = Call(server.media_url)
    with call.stream():
        viewer.opens_call(call.sid)
        speech.hears("inbound", "Said in the first stream.")
        expect(viewer.finals).to_have_count(1)
    speech.forget()
    with call.stream():  # Twilio has connected anew
        speech.hears("inbound", "Said in the second.")
        expect(viewer.finals).to_have_count(2)
    transcript = viewer.asks(f"/api/calls/{call.sid}/transcript.json")
    said_ms = transcript["segments"][1]["words"][-1]["start_ms"]
    assert said_ms >= transcript["call"]["streams"][1]["offset_ms"] > 0
    for _ in ("as it was told", "as it was kept"):
        expect(viewer.page.get_by_role("region", name="Recording")).to_be_visible()
        viewer.page.wait_for_function(REACHES, arg=said_ms)  # and is not that of the first stream alone
        viewer.page.evaluate(NOTE_SEEKS)
        word(viewer, 1, "second.").click()
        expect(now_playing(viewer)).to_have_text("second.")
        viewer.page.wait_for_function("() => document.querySelector('audio').ended")
        assert set(viewer.page.evaluate("() => window.sought")) == {said_ms}
        viewer.opens_call(call.sid)


def test_a_recording_that_comes_late_can_be_heard_all_the_same(server: Server, viewer: Viewer) -> None:
    """A disk may be slow, and the line may be away when the page looks."""
    late = f"CA{'6' * 32}"
    keep(server.database_url, sample_call(late))
    viewer.page.clock.install()
    with viewer.page.expect_response(re.compile(f"/api/calls/{late}$")):
        viewer.opens_call(late)
        viewer.page.clock.fast_forward(LOOKED_BY_MS)
    recording = viewer.page.get_by_role("region", name="Recording")
    expect(recording).to_be_hidden()
    with closing(sqlite3.connect(server.folder / "calls.db", isolation_level=None)) as database:
        database.execute("UPDATE calls SET recording = ? WHERE sid = ?", (str(server.sample_recording()), late))
    viewer.page.clock.fast_forward(LOOKED_BY_MS)
    expect(recording).to_be_visible()
    word(viewer, 8, "Park").click()
    expect(recording.get_by_role("button", name="Pause")).to_be_visible()


def test_a_recording_that_could_not_be_had_is_asked_for_anew(viewer: Viewer, player: Locator) -> None:
    viewer.may_lose_network = True
    viewer.page.route("**/recording.wav", lambda route: route.abort())
    word(viewer, 8, "Park").click()
    expect(player).to_contain_text("The recording cannot be played.")
    expect(player.get_by_role("button", name="Play")).to_be_visible()
    viewer.page.unroute("**/recording.wav")
    player.get_by_role("button", name="Play").click()
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    expect(player).to_contain_text("of 0:43")
    viewer.page.wait_for_function("() => document.querySelector('audio').currentTime > 32")
    assert position(player) < 43


def test_the_speed_that_was_chosen_is_that_of_what_is_loaded_anew(viewer: Viewer, player: Locator) -> None:
    viewer.may_lose_network = True
    player.get_by_label("Speed").select_option("2")
    viewer.page.route("**/recording.wav", lambda route: route.abort())
    word(viewer, 8, "Park").click()
    expect(player).to_contain_text("The recording cannot be played.")
    viewer.page.unroute("**/recording.wav")
    player.get_by_role("button", name="Play").click()
    expect(player).to_contain_text("of 0:43")
    assert viewer.page.evaluate("() => document.querySelector('audio').playbackRate") == 2


def test_waves_that_could_not_be_had_are_asked_for_again(viewer: Viewer) -> None:
    viewer.may_lose_network = True
    viewer.page.clock.install()
    viewer.page.route("**/waveform.json?*", lambda route: route.abort())
    with viewer.page.expect_event("requestfailed", lambda asked: "waveform" in asked.url):
        viewer.opens_call(SID)
    viewer.page.unroute("**/waveform.json?*")
    viewer.page.clock.fast_forward(LOOKED_BY_MS)
    expect(viewer.page.get_by_role("region", name="Recording")).to_be_visible()


def test_the_word_that_one_steps_to_is_marked(server: Server, viewer: Viewer) -> None:
    """A sound's time may be a hair less than the one that was sought: 1.002999 s, where a word begins at 1.003."""
    sid, begins_ms = f"CA{'7' * 32}", range(1000, 1021, 3)
    words = [(f"word{at_ms}", at_ms, at_ms + 3, 0.98) for at_ms in begins_ms]
    said = Said("inbound", " ".join(text for text, *_ in words), 1000, 1030, words=words)
    keep(server.database_url, Kept(sid, [said], recording=str(server.sample_recording()), duration_ms=43_240))
    viewer.opens_call(sid)
    recording = viewer.page.get_by_role("region", name="Recording")
    recording.get_by_role("button", name="Play").click()
    recording.get_by_role("button", name="Pause").click()
    viewer.page.evaluate(NOTE_SEEKS)
    recording.get_by_role("slider", name="Position").press("Home")
    for at_ms in begins_ms:
        recording.get_by_role("slider", name="Position").press("Shift+ArrowRight")
        viewer.page.wait_for_function("(at_ms) => window.arrived.at(-1) === at_ms", arg=at_ms)
        expect(now_playing(viewer)).to_have_text(f"word{at_ms}")


def test_a_call_that_was_not_recorded_has_no_player(server: Server, viewer: Viewer) -> None:
    silent = f"CA{'5' * 32}"
    keep(server.database_url, sample_call(silent))
    viewer.opens_call(silent)
    expect(viewer.finals).to_have_count(12)
    expect(viewer.page.get_by_role("region", name="Recording")).to_have_count(0)

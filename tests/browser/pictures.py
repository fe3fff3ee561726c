"""Takes the README's pictures of the page anew, of the sample call: `make pictures`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import expect

from standins.ear import Word
from tests.browser.calling import Call
from tests.browser.chromium import chromium
from tests.browser.kept import keep, sample_call
from tests.browser.serving import ROOT, Server, serving
from tests.browser.speech import Speech, speech_service
from tests.browser.viewing import PHONE, Viewer, Viewers

FOLDER: Final = ROOT / "docs"
LARGEST: Final = 300_000  # bytes of one picture
RECORDED: Final = f"CA{'7' * 32}"
DESK: Final[dict[str, Any]] = {"viewport": {"width": 1120, "height": 860}, "device_scale_factor": 1.5}
STILL_SPEAKING_MS: Final = 26_500  # of the sample call, in the middle of a sentence
FINAL_AFTER_MS: Final = 300  # of its last word


def main() -> None:
    """Takes them."""
    with chromium() as browser, served() as (server, speech):
        for look in ("light", "dark"):
            with Viewers(browser, server) as viewers:
                take(recorded_call(viewers.comes_in(**DESK, color_scheme=look)), f"page-{look}.png")
                with live_call(server, speech, viewers.comes_in(**PHONE, color_scheme=look)) as viewer:
                    take(viewer, f"page-phone-{look}.png")


@contextmanager
def served() -> Iterator[tuple[Server, Speech]]:
    """A server with the sample call, recorded."""
    with tempfile.TemporaryDirectory() as folder, speech_service() as speech:
        with serving(Path(folder), **speech.settings) as server:
            keep(server.database_url, sample_call(RECORDED, recording=str(server.sample_recording())))
            yield server, speech


def recorded_call(viewer: Viewer) -> Viewer:
    """The call from its beginning, a word of it playing."""
    viewer.opens_call(RECORDED)
    player = viewer.page.get_by_role("region", name="Recording")
    expect(player.locator("canvas").first).to_be_visible()
    line = viewer.conversation.locator("article[data-id]").nth(2)
    line.hover()
    line.locator(".word").filter(has_text="order").click()
    expect(viewer.conversation.locator(".word[aria-current='true']")).to_have_text("order")
    player.get_by_role("button", name="Pause").click()
    return viewer


@contextmanager
def live_call(server: Server, speech: Speech, viewer: Viewer) -> Iterator[Viewer]:
    """The call while somebody speaks, in the middle of a sentence."""
    speech.forget()
    call = Call(server.media_url, **{"from": "+15550100", "to": "+15550199"})
    with call.stream():
        viewer.opens_call(call.sid)
        for track, words, is_final in as_it_was_understood():
            speech.hears_words(track, words, is_final=is_final)
        expect(viewer.interims).to_have_count(1)
        yield viewer


def as_it_was_understood() -> Iterator[tuple[str, tuple[Word, ...], bool]]:
    """The sample call up to `STILL_SPEAKING_MS`: words as they are said, and each sentence at its end."""
    told = []
    for said in sample_call(RECORDED).said:
        words = tuple(Word(*word) for word in said.words)
        told += [(word.end_ms, said.track, words[:count], False) for count, word in enumerate(words, 1)]
        told.append((said.end_ms + FINAL_AFTER_MS, said.track, words, True))
    for at_ms, track, words, is_final in sorted(told, key=lambda one: one[0]):
        if at_ms <= STILL_SPEAKING_MS:
            yield track, words, is_final


def take(viewer: Viewer, name: str) -> None:
    """One picture, of what the window shows."""
    path = FOLDER / name
    viewer.page.mouse.move(0, 0)
    viewer.page.screenshot(path=path)
    assert path.stat().st_size < LARGEST, f"{path} has {path.stat().st_size} bytes"


if __name__ == "__main__":
    main()

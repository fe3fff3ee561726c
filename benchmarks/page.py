"""What the page of a long call costs a browser: to open it, to scroll through it, and when somebody speaks.

    python -m benchmarks.page

The browser is the system's Chromium, the server `app.py` in a process of its own, both on this machine. Every call was
kept, and goes on. Work is what keeps the page's main thread busy: scripts, style, layout and painting. An utterance is
three interims and a final, and scrolls the page. Frames are counted while all of the call is scrolled through; 16.7 ms
is what each of 60 in a second takes.

On two cores of an AMD EPYC server that had other work too (load 7), without a graphics card, Chromium 150:

    segments   opened in     nodes     heap   frame: median   99 of 100    longest   an utterance
          50      0.51 s     1,020   2.4 MB         16.7 ms     33.4 ms   133.2 ms        10.6 ms
         500      0.44 s     4,204   3.1 MB         16.7 ms     16.8 ms    33.4 ms        10.6 ms
       5,000      2.05 s    36,029   8.1 MB         16.7 ms     16.8 ms    49.9 ms        22.3 ms
"""
# ruff: noqa: T201  # it prints what it finds

from __future__ import annotations

import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from playwright.sync_api import Browser, expect
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tests.browser.calling import Call
from tests.browser.chromium import chromium
from tests.browser.kept import keep, long_call
from tests.browser.measuring import Weight, Work, frame_times, weight, work
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech, speech_service
from tests.browser.viewing import Viewer, Viewers

SEGMENTS: Final = (50, 500, 5000)
A_SEGMENT_MS: Final = 2160  # three hours make 5,000
UTTERANCES: Final = 30
INTERIMS: Final = 3  # of each
SCROLL_BY: Final = 700  # pixels a frame: most of a window
STEPS: Final = 600
WIDTH: Final = 110  # letters of the table


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call of so many segments costs."""

    segments: int
    open_s: float
    weight: Weight
    frames_ms: list[float]
    work: Work


def main() -> None:
    """Measures, and prints a table."""
    with chromium() as browser, tempfile.TemporaryDirectory() as folder, speech_service() as speech:
        with serving(Path(folder), **speech.settings) as server, Viewers(browser, server) as viewers:
            costs = [measure(browser, server, speech, viewers.comes_in(), segments) for segments in SEGMENTS]
        print(f"Chromium {browser.version} on {platform.machine()}, {platform.system()}")
    show(costs)


def measure(browser: Browser, server: Server, speech: Speech, viewer: Viewer, segments: int) -> Cost:
    """One call's costs."""
    sid = f"CA{segments:032}"
    keep(server.database_url, long_call(sid, segments=segments, length_ms=segments * A_SEGMENT_MS))
    began = time.monotonic()
    viewer.opens_call(sid)
    open_s = time.monotonic() - began
    frames_ms = [ms for by in (SCROLL_BY, -SCROLL_BY) for ms in frame_times(viewer.page, steps=STEPS, by=by)]
    with Call(server.media_url, sid=sid).stream():
        expect(viewer.connection).to_have_text("Live")
        viewer.page.keyboard.press("End")
        utterances(viewer, speech, 3)  # so that all scripts are compiled
        done = work(browser, viewer.page, lambda: utterances(viewer, speech, UTTERANCES))
    return Cost(segments, open_s, weight(viewer.page), frames_ms, done)


def utterances(viewer: Viewer, speech: Speech, count: int) -> None:
    """Somebody talks."""
    for number in range(count):
        for interim in range(1, INTERIMS + 1):
            text = f"utterance {number} of {count} has " + "another word " * interim
            speech.seems_to_hear("inbound", text)
            expect(viewer.interims).to_have_text([text.strip()])
        speech.hears("inbound", f"{text.strip()}.")
        expect(viewer.interims).to_have_count(0)


def show(costs: list[Cost]) -> None:
    """The table."""
    table = Table(box=SIMPLE, highlight=False)
    for name in ("segments", "opened in", "nodes", "heap", "frame: median", "99 of 100", "longest", "an utterance"):
        table.add_column(name, justify="right")
    for cost in costs:
        frames = sorted(cost.frames_ms)
        table.add_row(
            f"{cost.segments:,}",
            f"{cost.open_s:.2f} s",
            f"{cost.weight.nodes:,}",
            f"{cost.weight.heap_bytes / 1e6:.1f} MB",
            f"{median(frames):.1f} ms",
            f"{frames[len(frames) * 99 // 100]:.1f} ms",
            f"{frames[-1]:.1f} ms",
            f"{cost.work.busy_ms / UTTERANCES:.1f} ms",
        )
    Console(width=WIDTH).print(table)


if __name__ == "__main__":
    main()

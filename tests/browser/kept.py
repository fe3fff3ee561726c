"""Calls that were kept before a test begins. Run as a program it writes them, since the store needs gevent's patches.

python -m tests.browser.kept DATABASE_URL < CALLS
"""

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import gevent

from relay.events import CallEvent, Gap, Listened, ServiceReplaced, StreamBegun, StreamEnded, Track, Transcript, Word
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.store.store import Store

SURE: Final = 0.98
UNSURE_OF: Final = {"Harbor": 0.7, "nine": 0.5}  # words of the sample call
WRITTEN_WITHIN: Final = 120.0  # seconds
SAMPLE_CALL: Final = Path(__file__).parent.parent.parent / "standins" / "audio" / "order-status-call.json"


@dataclass
class Said:
    """A segment. Without times of its own, its words are spread evenly over it."""

    track: str
    text: str
    start_ms: int
    end_ms: int
    service: str = "Deepgram"
    confidence: float = SURE
    words: list[tuple[str, int, int, float]] = field(default_factory=list)


@dataclass
class Missed:
    """Seconds that nobody heard."""

    track: str
    start_ms: int
    end_ms: int
    reason: str = "Deepgram was away"
    service: str = "Deepgram"  # "": nobody noted which


@dataclass
class Replaced:
    """Another service took over."""

    service: str
    by: str
    reason: str
    from_ms: int


@dataclass
class Kept:
    """A call that has ended. If nothing else is said, it did with its last word."""

    sid: str
    said: list[Said]
    missed: list[Missed] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    services: list[str] = field(default_factory=lambda: ["Deepgram"])
    caller: str = "+15550100"
    called: str = "+15550199"
    recording: str | None = None
    duration_ms: int | None = None


def keep(database_url: str, *calls: Kept) -> None:
    """Has them written."""
    written = json.dumps([asdict(call) for call in calls])
    command = [sys.executable, "-m", "tests.browser.kept", database_url]
    subprocess.run(command, input=written, text=True, check=True, timeout=WRITTEN_WITHIN)


def long_call(sid: str, *, segments: int = 5000, length_ms: int = 3 * 3600 * 1000) -> Kept:
    """Two people who take turns for hours."""
    each_ms = length_ms // segments
    said = [
        Said(
            track=("inbound", "outbound")[number % 2],
            text=f"Sentence number {number} of this call is about order {number * 37 % 1000} and says what was agreed.",
            start_ms=number * each_ms,
            end_ms=number * each_ms + each_ms * 9 // 10,
        )
        for number in range(segments)
    ]
    return Kept(sid, said, duration_ms=length_ms)


def sample_call(sid: str, **more: Any) -> Kept:
    """The sample call as a good service would have understood it: not sure of two words."""
    said = []
    for segment in json.loads(SAMPLE_CALL.read_bytes())["segments"]:
        times = [(round(word["start"] * 1000), round(word["end"] * 1000)) for word in segment["words"]]
        words = [
            (text, *time, UNSURE_OF.get(text, SURE)) for text, time in zip(segment["text"].split(), times, strict=True)
        ]
        said.append(Said(segment["track"], segment["text"], times[0][0], times[-1][1], words=words))
    return Kept(sid, said, duration_ms=43_240, **more)


# --- The program ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Writes the calls it reads."""
    store = Store(sys.argv[1])
    store.open()
    try:
        for number, call in enumerate(json.load(sys.stdin)):
            _write(store, number, call)
    finally:
        store.close(WRITTEN_WITHIN)


def _write(store: Store, number: int, call: dict[str, Any]) -> None:
    info = CallInfo(call["sid"], f"MZ{number:032x}", tuple(Track))
    for event, service in _story(call):
        store.hear(Happened(info, event, service))
    while call["recording"] and not store.note_recording(call["sid"], call["recording"]):
        gevent.sleep(0.01)  # the call itself is not written yet


def _story(call: dict[str, Any]) -> Iterator[tuple[CallEvent, str]]:
    yield StreamBegun(tuple(call["services"]), call["caller"], call["called"]), ""
    for said in call["said"]:
        yield _transcript(said), said["service"]
    for missed in call["missed"]:
        yield Gap(Track(missed["track"]), missed["start_ms"], missed["end_ms"], missed["reason"]), missed["service"]
    for replaced in call["replaced"]:
        yield ServiceReplaced(**replaced), replaced["service"]
    length_ms = call["duration_ms"] or max((said["end_ms"] for said in call["said"]), default=0)
    yield Listened(length_ms), ""
    yield StreamEnded("stop", length_ms, length_ms // 20, 0, 0, 0, 0, 0, 0, 300, 500), ""


def _transcript(said: dict[str, Any]) -> Transcript:
    words = tuple(Word(*word) for word in said["words"] or _spread(said))
    return Transcript(
        Track(said["track"]), said["text"], said["start_ms"], said["end_ms"], True, words, said["confidence"], "en"
    )


def _spread(said: dict[str, Any]) -> Iterator[tuple[str, int, int, float]]:
    texts, start_ms, length = said["text"].split(), said["start_ms"], said["end_ms"] - said["start_ms"]
    for number, text in enumerate(texts):
        begin_ms = start_ms + number * length // len(texts)
        yield text, begin_ms, start_ms + (number + 1) * length // len(texts), said["confidence"]


if __name__ == "__main__":
    main()

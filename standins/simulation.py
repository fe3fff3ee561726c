"""A recording, played as many simulated calls at once, with faults on request."""

from __future__ import annotations

import math
import random
import re
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import gevent

from relay.audio import SAMPLE_RATE, SAMPLES_PER_MS
from relay.events import Track
from standins.twilio import CLOSE_WITHIN, FRAME_BYTES, CallFailed, Ending, SimulatedCall, SimulationError

PROGRESS_EVERY: Final = 0.1  # seconds
HANG_UP_WITHIN: Final = CLOSE_WITHIN + 1.0  # seconds all calls have to end when a simulation is interrupted


# --- What goes wrong on purpose ----------------------------------------------------------------------------

_MS: Final = "[0-9]{1,7}"
_SECONDS: Final = r"[0-9]{1,5}(?:\.[0-9]{1,3})?"
_SPELLINGS: Final = {
    "jitter=MS": rf"jitter=(?P<jitter_ms>{_MS})",
    "burst=MS@EVERY_SECONDS": rf"burst=(?P<burst_ms>{_MS})@(?P<burst_every_s>{_SECONDS})",
    "gap=MS@SECOND": rf"gap=(?P<gap_ms>{_MS})@(?P<gap_at_s>{_SECONDS})",
    "no-stop": "no-stop",
    "drop@SECOND": rf"drop@(?P<drop_at_s>{_SECONDS})",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong on purpose. All times are on the call's clock, which `speed` hurries along."""

    jitter_ms: float = 0  # each frame is late by up to so much, in unchanged order
    burst_ms: float = 0  # frames are held up for so long ...
    burst_every_s: float = 0  # ... this often, and then come all at once
    gap_ms: float = 0  # so much audio is missing, and the timestamps jump over it ...
    gap_at_s: float = 0  # ... from here
    no_stop: bool = False  # the socket is closed after the last frame, without a `stop`
    drop_at_s: float = math.inf  # the connection is reset here

    def __post_init__(self) -> None:
        if self.burst_ms and self.burst_ms >= self.burst_every_s * 1000:
            raise SimulationError(
                f"frames that are held up every {self.burst_every_s:g} s "
                f"cannot be held up for {self.burst_ms:g} ms each time"
            )

    @classmethod
    def parse(cls, words: Iterable[str]) -> Faults:
        """The faults asked for on a command line: jitter=80, burst=500@2, gap=1000@5, no-stop, drop@7."""
        values: dict[str, Any] = {}
        for word in words:
            fault = _parse_fault(word)
            if values.keys() & fault.keys():
                raise SimulationError(f'"{word}": a kind of fault can be asked for only once')
            values |= fault
        return cls(**values)

    def swallows(self, at_ms: int) -> bool:
        """Whether the frames of this moment are missing."""
        return 0 <= at_ms - round(self.gap_at_s * 1000) < self.gap_ms

    def due(self, moments_ms: Iterable[int], *, seed: int) -> Iterator[float]:
        """When the frames of each moment leave, in ms: never early, and none before the one ahead of it."""
        chance = random.Random(seed)
        due = 0.0
        for at_ms in moments_ms:
            due = max(due, self._held_until(at_ms + chance.uniform(0, self.jitter_ms)))
            yield due

    def _held_until(self, at_ms: float) -> float:
        if not self.burst_ms:
            return at_ms
        held_since = at_ms - at_ms % (self.burst_every_s * 1000)
        return max(at_ms, held_since + self.burst_ms) if held_since else at_ms


def _parse_fault(word: str) -> dict[str, float | bool]:
    for pattern in _SPELLINGS.values():
        if match := re.fullmatch(pattern, word):
            return {name: float(value) for name, value in match.groupdict().items()} or {"no_stop": True}
    raise SimulationError(f'"{word}" is no fault that can be made; there are {", ".join(_SPELLINGS)}')


# --- Many calls --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallReport:
    """What one simulated call sent, and how it ended."""

    call_sid: str
    stream_sid: str
    ending: Ending
    detail: str
    frames: Mapping[Track, int]
    audio_bytes: Mapping[Track, int]
    worst_lateness_s: float
    unwanted: int  # messages from the server, which may send none

    @property
    def seconds(self) -> float:
        """The audio of the track that was sent most of."""
        return max(self.audio_bytes.values(), default=0) / SAMPLE_RATE

    @property
    def went_well(self) -> bool:
        """Whether it ended as it was meant to, and the server kept to the protocol."""
        return self.ending in (Ending.STOPPED, Ending.UNSTOPPED, Ending.DROPPED) and not self.unwanted

    def __str__(self) -> str:
        return f"{self.call_sid}: {self.ending}, {self.detail}; {_amounts((self,))}"


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What all calls of a simulation sent, and how they ended."""

    calls: tuple[CallReport, ...]

    @property
    def frames(self) -> Mapping[Track, int]:
        """Of all calls, by track."""
        return _sum(call.frames for call in self.calls)

    @property
    def audio_bytes(self) -> Mapping[Track, int]:
        """Of all calls, by track."""
        return _sum(call.audio_bytes for call in self.calls)

    @property
    def seconds(self) -> float:
        """The audio of all calls, each call's once."""
        return sum(call.seconds for call in self.calls)

    @property
    def worst_lateness_s(self) -> float:
        """Of any frame of any call, beyond the lateness that was asked for."""
        return max(call.worst_lateness_s for call in self.calls)

    @property
    def went_well(self) -> bool:
        """Whether all calls did."""
        return all(call.went_well for call in self.calls)

    def __str__(self) -> str:
        endings = Counter(call.ending for call in self.calls)
        how = ", ".join(f"{count} {ending}" for ending, count in endings.items())
        calls = "1 call" if len(self.calls) == 1 else f"{len(self.calls)} calls"
        return f"{calls}: {how}; {_amounts(self.calls)}"


def _sum(counts: Iterable[Mapping[Track, int]]) -> Counter[Track]:
    total: Counter[Track] = Counter()
    for count in counts:
        total.update(count)
    return total


def _amounts(calls: Collection[CallReport]) -> str:
    frames = sum(sum(call.frames.values()) for call in calls)
    seconds = sum(call.seconds for call in calls)
    lateness = max(call.worst_lateness_s for call in calls)
    text = f"{seconds:.1f} s of audio in {frames} frames, the latest by {lateness * 1000:.0f} ms"
    if unwanted := sum(call.unwanted for call in calls):
        text += f"; the server sent {unwanted} messages, and may send none (Twilio error 31924)"
    return text


class Pace:
    """The call's clock: deadlines are absolute, so that after a stall it catches up and never drifts."""

    def __init__(
        self,
        speed: float = 1.0,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = gevent.sleep,
    ) -> None:
        self.worst_lateness_s = 0.0
        self._speed = speed
        self._now = now
        self._sleep = sleep
        self._began = now()
        self._due = self._began

    def wait_until(self, call_ms: float) -> None:
        """Sleeps until then; when it is past, only lets others have their turn."""
        self._due = self._began + call_ms / 1000 / self._speed
        self._sleep(max(0.0, self._due - self._now()))

    def sent(self) -> None:
        """Notes how late what was waited for has left."""
        self.worst_lateness_s = max(self.worst_lateness_s, self._now() - self._due)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What one `media` message carries."""

    track: Track
    payload: str
    size: int


@dataclass(frozen=True, slots=True)
class _Moment:
    """The frames of all tracks that belong to the same 20 ms."""

    at_ms: int
    frames: tuple[_Frame, ...]


@dataclass(frozen=True, slots=True)
class _Script:
    """What all calls of a simulation say, and when."""

    moments: tuple[_Moment, ...]
    length_ms: int
    faults: Faults
    speed: float


def _script(audio: Mapping[Track, bytes], faults: Faults, speed: float) -> _Script:
    length_ms = math.ceil(max(map(len, audio.values())) / SAMPLES_PER_MS)
    for at_s in (faults.gap_at_s, faults.drop_at_s):
        if at_s < math.inf and at_s * 1000 > length_ms:
            raise SimulationError(f"the recording lasts {length_ms / 1000:.1f} s; nothing can go wrong at {at_s:g} s")
    moments = tuple(moment for moment in _moments(audio) if not faults.swallows(moment.at_ms))
    return _Script(moments, length_ms, faults, speed)


def _moments(audio: Mapping[Track, bytes]) -> Iterator[_Moment]:
    for start in range(0, max(map(len, audio.values())), FRAME_BYTES):
        pieces = ((track, audio[track][start : start + FRAME_BYTES]) for track in Track if track in audio)
        frames = tuple(_Frame(track, b64encode(piece).decode(), len(piece)) for track, piece in pieces if piece)
        yield _Moment(start // SAMPLES_PER_MS, frames)


class _Player:
    """Plays the script in one call."""

    def __init__(self, call: SimulatedCall, script: _Script, *, seed: int) -> None:
        self.played = 0.0  # from 0 to 1
        self._call = call
        self._script = script
        self._seed = seed
        self._pace = Pace(script.speed)
        self._frames: Counter[Track] = Counter()
        self._audio_bytes: Counter[Track] = Counter()

    def play(self) -> CallReport:
        """The whole call, from the upgrade to the close."""
        try:
            ending, detail = self._play()
        except CallFailed as failure:
            ending, detail = failure.ending, str(failure)
        finally:
            self.played = 1.0
        return CallReport(
            call_sid=self._call.call_sid,
            stream_sid=self._call.stream_sid,
            ending=ending,
            detail=detail,
            frames=self._frames,
            audio_bytes=self._audio_bytes,
            worst_lateness_s=self._pace.worst_lateness_s,
            unwanted=self._call.unwanted,
        )

    def _play(self) -> tuple[Ending, str]:
        self._call.open()
        try:
            self._call.start()
            self._pace = Pace(self._script.speed)
            self._speak()
            return self._end()
        except gevent.GreenletExit:  # an interrupted simulation hangs up, as people do
            with suppress(CallFailed):
                self._call.stop()
            raise
        finally:
            self._call.close()

    def _speak(self) -> None:
        script = self._script
        due = script.faults.due((moment.at_ms for moment in script.moments), seed=self._seed)
        for moment, due_ms in zip(script.moments, due, strict=True):
            if due_ms >= script.faults.drop_at_s * 1000:
                return
            self._pace.wait_until(due_ms)
            for frame in moment.frames:
                self._call.media(frame.track, frame.payload, moment.at_ms)
                self._frames[frame.track] += 1
                self._audio_bytes[frame.track] += frame.size
            self._pace.sent()
            self.played = moment.at_ms / script.length_ms

    def _end(self) -> tuple[Ending, str]:
        faults = self._script.faults
        if faults.drop_at_s < math.inf:
            self._pace.wait_until(faults.drop_at_s * 1000)
            self._call.reset()
            return Ending.DROPPED, f"reset at {faults.drop_at_s:g} s as asked"
        self._pace.wait_until(self._script.length_ms)
        if not faults.no_stop:
            self._call.stop()
        self._call.close()
        ending = Ending.UNSTOPPED if faults.no_stop else Ending.STOPPED
        if self._call.farewell is None:
            return ending, f"the server did not answer the close frame within {CLOSE_WITHIN:g} s"
        return ending, f"the server closed {self._call.farewell}"


def simulate(
    url: str,
    audio: Mapping[Track, bytes],
    *,
    calls: int = 1,
    tracks: Collection[str] | None = None,
    speed: float = 1.0,
    parameters: Mapping[str, str] | None = None,
    call_sid: str | None = None,
    headers: Mapping[str, str] | None = None,
    faults: Faults | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> SimulationReport:
    """Plays a recording as so many calls at once, and reports what was sent and how each call ended.

    `audio` is each track's 8 kHz mu-law, as `standins.wav.read` gives it, and `tracks` chooses among them. A `speed`
    of 2 halves all times. `call_sid` is the name of the call, where there is one, and `headers` go with the upgrade.
    `on_progress` is told how far the slowest call is, from 0 to 1. Raises `SimulationError` for what cannot be played
    at all; a call that fails is in the report. Interrupted, it lets all calls hang up first.
    """
    if calls < 1:
        raise SimulationError(f"{calls} calls cannot be played; one is the least")
    if not 0 < speed < math.inf:
        raise SimulationError(f"a recording cannot be played at a speed of {speed:g}; 1 is real time")
    audio = _chosen(audio, tracks)
    script = _script(audio, faults or Faults(), speed)
    players = [
        _Player(
            SimulatedCall(url, tracks=audio, parameters=parameters, call_sid=call_sid, headers=headers),
            script,
            seed=number,
        )
        for number in range(calls)
    ]
    playing = [gevent.spawn_later(_start_s(number) / speed, player.play) for number, player in enumerate(players)]
    try:
        while not all(greenlet.ready() for greenlet in playing):
            gevent.joinall(playing, timeout=PROGRESS_EVERY)
            if on_progress:
                on_progress(min(player.played for player in players))
    finally:
        gevent.killall(playing, block=False)
        gevent.joinall(playing, timeout=HANG_UP_WITHIN)
        gevent.killall(playing)
    return SimulationReport(tuple(greenlet.get() for greenlet in playing))


def _start_s(number: int) -> float:
    """When a call starts, in the first second: the golden ratio spreads any number of them evenly, and their frames."""
    return number * (math.sqrt(5) - 1) / 2 % 1


def _chosen(audio: Mapping[Track, bytes], tracks: Collection[str] | None) -> dict[Track, bytes]:
    wanted = set(tracks or audio)
    if missing := wanted - audio.keys():
        raise SimulationError(f"the recording has no {' and no '.join(sorted(missing))} track")
    chosen = {track: audio[track] for track in Track if track in wanted}
    if not any(chosen.values()):
        raise SimulationError("the recording holds no audio")
    return chosen

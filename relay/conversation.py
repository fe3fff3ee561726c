"""One connection's conversation: audio out at the service's pace, answers in, until the last word or a failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final

from gevent.event import Event

from relay.audio import SAMPLES_PER_MS, Piece, is_quiet, silence
from relay.connection import Connection, Patience
from relay.errors import Lost, ServiceError, Stalled
from relay.events import (
    Complained,
    Finished,
    Heard,
    Malformed,
    Remark,
    ServiceEvent,
    SpeechStarted,
    Track,
    Transcript,
    Translation,
    UtteranceEnded,
    Word,
)
from relay.protocol import Message, SpeechProtocol, Traits
from relay.replay import Clock, ReplayBuffer

TROUBLES_AT_MOST: Final = 20  # kinds of trouble with a service's answers that are told for one connection
REST_AFTER: Final = 16  # chunks sent without a pause, where the pace allows it; then other greenlets have their turn
BEHIND: Final = 500 * SAMPLES_PER_MS  # samples not yet sent, from which on pauses are left out (see `_is_in_pause`)
PAUSE_KEPT: Final = 300 * SAMPLES_PER_MS  # samples of quiet left on either side of speech
ASLEEP_AFTER: Final = 0.5  # seconds a check may be late before we take it that this process did not run
LAST_LOOK: Final = 0.1  # seconds the reader gets when a deadline has passed: the process may have been asleep
DELAYS_KEPT: Final = 10_000  # newest ones, for the median at the end of a call: three hours of interims


@dataclass(slots=True)
class Tally:
    """What a client can say of its work. Delays are Deepgram's: ms of audio sent minus ms of audio covered."""

    words: int = 0
    connections: int = 0
    lost_ms: int = 0  # summed over the tracks
    interim_delays: deque[int] = field(default_factory=lambda: deque(maxlen=DELAYS_KEPT))
    final_delays: deque[int] = field(default_factory=lambda: deque(maxlen=DELAYS_KEPT))


class Conversation:
    """Speaks a protocol over a connection. One greenlet calls `write`, then `drain`; another one calls `read`."""

    def __init__(
        self,
        connection: Connection,
        protocol: SpeechProtocol,
        buffer: ReplayBuffer,
        wake: Event,
        *,
        tracks: tuple[Track, ...],
        traits: Traits,
        patience: Patience,
        chunk: int,
        clock: Clock,
        deaf_after_s: float,
        tally: Tally,
        on_event: Callable[[ServiceEvent], None],
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._buffer = buffer
        self._wake = wake
        self._tracks = tracks
        self._traits = traits
        self._patience = patience
        self._chunk = chunk
        self._clock = clock
        self._deaf_after_s = deaf_after_s
        self._tally = tally
        self._on_event = on_event
        self._ended: ServiceError | None = None  # why the reader stopped
        self._opening = False  # we wait for the service to be ready
        self._closing = False  # we have said that no more audio will come
        self._finished = False  # the service has said all it will
        now = monotonic()
        self._due = now  # when the next chunk may go, at the fastest pace the service takes
        self._sent_at = now
        self._asked_at: float | None = None  # when audio was sent that nothing has answered yet
        # Much that may be speech was answered by nothing. It may be music: a service that answers our goodbye has heard
        # it all, and there was nothing to say of it.
        self.seems_deaf = False
        self._unanswered_s = 0.0  # of what may be speech, sent to a service that does not answer silence
        self._stalled_at: float | None = None  # when it was first seen that no answer has come in time
        self._quiet = 0  # samples without speech at the end of what was sent
        self._pinged_at: float | None = None
        self._awake_until = now  # when the next check is due at the latest
        self._troubles: set[ServiceEvent] = set()  # of which each kind is told once

    # --- Audio out ------------------------------------------------------------------------------------------

    def open(self, *, resumed: bool) -> None:
        """Says what is said first; in a resumed session, finds out where to go on. Raises ServiceError."""
        opening = self._protocol.opening()
        self._say(opening, monotonic())
        self._opening, self._asked_at = True, monotonic()
        self._wait_until(lambda: self._protocol.ready)
        self._opening, self._asked_at = False, None
        if resumed:
            self._clock.rewind(self._protocol.taken)
            self._buffer.resume(self._clock.end(self._protocol.taken))
        self._count_own(opening)

    def write(self) -> None:
        """Sends audio as it comes, until there will be no more. Raises ServiceError."""
        unrested = 0
        while (pause := self._step(monotonic())) is not None:
            unrested += 1
            if pause or unrested > REST_AFTER:
                self._wake.wait(pause)
                self._wake.clear()
                unrested = 0
        self.say_goodbye()
        self._asked_at = monotonic()  # for the last words

    def drain(self) -> None:
        """Waits for the last words. Raises ServiceError when the connection fails before them."""
        self._wait_until(lambda: self._finished)

    def _wait_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._wake.wait(self._check(monotonic()))
            self._wake.clear()

    def say_goodbye(self) -> None:
        """Says that no more audio will come, if that was not said: a session that is just left may still be billed."""
        if not self._closing:
            self._closing = True
            self._say(self._protocol.closing(), monotonic())

    def _step(self, now: float) -> float | None:
        """Does what is due; for how many seconds nothing else will be, or None when all has been sent."""
        until_check = self._check(now)
        if self._unanswered_s > self._deaf_after_s:
            self.seems_deaf = True
            return None
        if now < self._due:
            return min(self._due - now, until_check)
        if self._is_in_pause():
            self._quiet += self._chunk
            self._buffer.take(self._chunk)
            return 0
        until_idle = self._sent_at + self._traits.idle_after_s - now
        if piece := self._buffer.take(self._chunk, partial=until_idle <= 0):
            self._send(piece, now)
            return 0
        if self._buffer.finished:
            return None
        if until_idle <= 0:
            self._keep_alive(now)
            return 0
        return min(until_idle, until_check)

    def _is_in_pause(self) -> bool:
        """Whether the next chunk may be left out: a service that takes no more than real time can only so be caught up
        with, and nobody speaks in it, nor shortly before or after."""
        if self._traits.catches_up or self._buffer.waiting < BEHIND or self._quiet < PAUSE_KEPT:
            return False
        ahead = self._buffer.peek(self._chunk + PAUSE_KEPT)
        return len(ahead) == (self._chunk + PAUSE_KEPT) * len(self._tracks) and is_quiet(ahead)

    def _send(self, piece: Piece, now: float) -> None:
        samples = len(piece.audio) // len(self._tracks)
        self._clock.send(piece.start, samples)
        missing = self._traits.smallest_chunk_ms * SAMPLES_PER_MS - samples
        audio = piece.audio
        if missing > 0:
            audio += silence(missing * len(self._tracks))
            self._clock.stand_still(self._buffer.next, missing)
            samples += missing
        self._say(self._protocol.audio(audio), now)
        seconds = samples / SAMPLES_PER_MS / 1000 / self._traits.pace
        self._due = max(self._due, now - self._traits.makes_up_s) + seconds
        if not self._traits.answers_silence:
            self._note_speech(audio, samples, seconds)
        elif self._asked_at is None:
            self._asked_at = now

    def _note_speech(self, audio: bytes, samples: int, seconds: float) -> None:
        if is_quiet(audio):
            self._quiet += samples
        else:
            self._quiet = 0
            self._unanswered_s += seconds

    def _keep_alive(self, now: float) -> None:
        messages = self._protocol.idle()
        self._count_own(messages)
        self._say(messages, now)
        self._asked_at = None  # whoever is sent no audio owes no answer

    def _count_own(self, messages: list[Message]) -> None:
        """The service counts all audio it is sent; what is not the call's must not move the call's clock."""
        for message in messages:
            if isinstance(message, bytes):
                self._clock.stand_still(self._buffer.next, len(message) // len(self._tracks))

    def _say(self, messages: list[Message], now: float) -> None:
        self._sent_at = now
        for message in messages:
            self._connection.send(message)

    # --- Is anyone there? -----------------------------------------------------------------------------------

    def _check(self, now: float) -> float:
        """Raises ServiceError when the connection is lost, or must be taken for lost; else seconds to the next look."""
        if self._ended is not None and not self._finished:
            raise self._ended
        self._forgive_sleep(now)
        wait_s = self._until_next_check(now)
        self._awake_until = now + wait_s
        return wait_s

    def _forgive_sleep(self, now: float) -> None:
        """While this process did not run (a suspended machine, a stop signal) nobody could be heard."""
        if (asleep := now - self._awake_until) > ASLEEP_AFTER:
            self._asked_at = None if self._asked_at is None else self._asked_at + asleep
            self._pinged_at = None if self._pinged_at is None else self._pinged_at + asleep

    def _until_next_check(self, now: float) -> float:
        if (stalled := self._stalled(now)) is not None:
            self._stalled_at = self._stalled_at or now
            if now - self._stalled_at < LAST_LOOK:
                return LAST_LOOK
            raise stalled
        self._stalled_at = None
        patience, quiet = self._patience, now - self._connection.last_heard
        if quiet < patience.ping_after:
            return patience.ping_after - quiet
        if self._pinged_at is None or self._pinged_at < self._connection.last_heard:
            self._pinged_at = now
            self._connection.ping()
        return min(patience.ping_after, patience.pong)

    def _stalled(self, now: float) -> Stalled | None:
        name, patience = self._traits.name, self._patience
        if self._asked_at is not None and now - self._asked_at > patience.answer:
            return Stalled(f"{name} takes audio and has answered nothing for {patience.answer:g} s")
        asked = self._pinged_at
        if asked is not None and asked >= self._connection.last_heard and now - asked > patience.pong:
            return Stalled(f"{name} has not answered a ping for {patience.pong:g} s")
        return None

    # --- Answers in -----------------------------------------------------------------------------------------

    def read(self) -> None:
        """Takes answers until the connection ends."""
        end: ServiceError = Lost(f"{self._traits.name}'s answers could not be taken")
        try:
            while (message := self._connection.receive()) is not None:
                self._asked_at = monotonic() if self._closing else None
                self._unanswered_s = 0.0
                for event in self._protocol.receive(message):
                    self._take(event)
                if self._opening:
                    self._wake.set()
            for event in (*self._protocol.last_words(), Finished()):
                self._take(event)
        except ServiceError as why:
            end = why
        finally:
            self._ended = end
            self._wake.set()

    def _take(self, event: ServiceEvent) -> None:
        match event:
            case Heard(track, until_ms):
                self._buffer.heard(self._tracks.index(track), self._clock.end(until_ms * SAMPLES_PER_MS))
            case Finished():
                self._finished = self._closing
                self._wake.set()
            case Transcript():
                self._on_event(self._in_call_time(event, self._count(event)))
            case Translation() | Remark():
                self._on_event(replace(event, start_ms=self._start(event.start_ms), end_ms=self._end(event.end_ms)))
            case SpeechStarted(track, at_ms):
                self._on_event(SpeechStarted(track, self._start(at_ms)))
            case UtteranceEnded(track, last_word_ms):
                self._on_event(UtteranceEnded(track, self._end(last_word_ms)))
            case Complained() | Malformed() if event in self._troubles or len(self._troubles) > TROUBLES_AT_MOST:
                pass
            case _:
                if isinstance(event, Complained | Malformed):
                    self._troubles.add(event)
                self._on_event(event)

    def _count(self, transcript: Transcript) -> int:
        """By how much audio the transcript is behind what was sent."""
        delay = max(0, self._clock.sent // SAMPLES_PER_MS - transcript.end_ms)
        if transcript.is_final:
            self._tally.words += len(transcript.words) or len(transcript.text.split())
            self._tally.final_delays.append(delay)
        else:
            self._tally.interim_delays.append(delay)
        return delay

    def _in_call_time(self, transcript: Transcript, behind_ms: int) -> Transcript:
        if self._clock.is_the_calls:
            return replace(transcript, behind_ms=behind_ms, network_ms=self._connection.round_trip_ms)
        return replace(
            transcript,
            behind_ms=behind_ms,
            network_ms=self._connection.round_trip_ms,
            start_ms=self._start(transcript.start_ms),
            end_ms=self._end(transcript.end_ms),
            words=tuple(map(self._word_in_call_time, transcript.words)),
        )

    def _word_in_call_time(self, word: Word) -> Word:
        return replace(word, start_ms=self._start(word.start_ms), end_ms=self._end(word.end_ms))

    def _start(self, ms: int) -> int:
        return round(self._clock.start(ms * SAMPLES_PER_MS) / SAMPLES_PER_MS)

    def _end(self, ms: int) -> int:
        return round(self._clock.end(ms * SAMPLES_PER_MS) / SAMPLES_PER_MS)

"""One client's talk with the stand-in speech service: what it sends is checked, heard and answered."""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from websockets.exceptions import ConnectionClosed

from relay.audio import encode_mulaw
from standins.ear import Ear, EarFactory, Heard, Phrase, SpeechBegan
from standins.faults import CloseFrame, Drop, Fault
from standins.ledger import Connection, Ledger
from standins.line import Line
from standins.listen_messages import GARBAGE, Speaker, schema_error
from standins.listen_options import KEYTERM_TOKENS_AT_MOST, ListenOptions, keyterm_tokens, takes_keyterms

ANSWERS_HELD: Final = 10_000  # messages that wait to be late
STRAGGLERS_READ: Final = 1000  # messages that a client may still send before it notices the end
CLOSE_WITHIN_S: Final = 2.0  # for the client's half of the closing handshake


@dataclass(frozen=True, slots=True)
class Rules:
    """The documented numbers. Tests that run faster than real time multiply the pace and divide the seconds.

    Deepgram says 1.25 times real time and not over how long. Here a client may make up for a pause of `pace_window_s`
    at once, and be `pace_slack_s` early besides; both count seconds of the clock on the wall.
    """

    pace: float = 1.25
    pace_window_s: float = 1.0
    pace_slack_s: float = 1.0
    silence_limit_s: float = 10.0
    first_audio_within_s: float = 10.0


class Pace:
    """Tells when audio comes faster than allowed.

    It keeps the moment by which a client at exactly the allowed pace would have sent what has come so far.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._due: float | None = None

    def is_exceeded(self, *, audio_s: float, now: float) -> bool:
        """Notes audio that came now."""
        since = now if self._due is None else max(self._due, now - self._rules.pace_window_s)
        self._due = since + audio_s / self._rules.pace
        return self._due - now > self._rules.pace_slack_s


class Conversation:
    """One client, from its first message to its last."""

    def __init__(
        self,
        *,
        line: Line,
        connection: Connection,
        options: ListenOptions,
        fault: Fault,
        rules: Rules,
        ledger: Ledger,
        make_ear: EarFactory,
        stopping: threading.Event,
    ) -> None:
        self.connection = connection
        self._line = line
        self._options = options
        self._fault = fault
        self._rules = rules
        self._ledger = ledger
        self._make_ear = make_ear
        self._stopping = stopping
        self._speaker = Speaker(connection.request_id, options)
        self._mouth = LateMouth(line, fault.answer_late_s) if fault.answer_late_s else Mouth(line)
        self._pace = Pace(rules)
        self._sum = hashlib.sha256()
        self._rest = b""  # bytes of a sample, or of a round of channels, that is not complete
        self._is_mute = False
        self._heard_at: float | None = None  # when audio came last
        line.answers_pings = not fault.no_pong

    def run(self) -> None:
        """Listens and answers until one side has had enough."""
        try:
            self.connection.ear = self._make_ear(self._options, self._emit)
            self._converse(self.connection.ear)
        except ConnectionClosed:
            pass  # the client left; or a fault, or `stop`, cut the line
        except Exception:
            if not self._stopping.is_set():  # then it is only an ear that was closed while it heard
                self._line.close(1011, "the stand-in itself has failed")
                raise
        finally:
            self.hush()
            self._mouth.close()
            self._conclude()

    def hush(self) -> None:
        """Closes the ear; that frees the thread this runs on, should it wait for the ear."""
        if self.connection.ear is not None:
            self.connection.ear.close()

    def _conclude(self) -> None:
        self._line.close()  # does nothing to a line that is closed
        self.connection.close_code = self._line.close_code or 1006
        self.connection.close_reason = self._line.close_reason
        self._ledger.note()

    def _converse(self, ear: Ear) -> None:
        for message in GARBAGE if self._fault.garbage else ():
            self._say(message)
        goes_on = self._drop() if self._is_due(ms=0) else True
        opened = last = time.monotonic()
        while goes_on:
            received = self._next(opened, last)
            if received is None:
                self._close_for_silence()
                return
            last = time.monotonic()
            goes_on = self._hear(ear, received) if isinstance(received, bytes) else self._read(ear, received)

    def _next(self, opened: float, last: float) -> str | bytes | None:
        """The client's next message, or None when it has been silent for too long."""
        if self._is_mute:
            return self._line.recv()
        # Before the first audio has come, KeepAlive does not help.
        is_heard = self._heard_at is not None
        deadline = last + self._rules.silence_limit_s if is_heard else opened + self._rules.first_audio_within_s
        try:
            return self._line.recv(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return None

    def _close_for_silence(self) -> None:
        self._complain("no audio, and after the first audio no text either, for too long")
        self._close(1011, "NET-0001 no audio and no text has come in time")

    # --- Audio ---

    def _hear(self, ear: Ear, audio: bytes) -> bool:
        self._note_audio(audio)
        if self._is_mute:
            return True
        if not audio:
            self._complain("an empty binary message, which ends the stream")
            return self._end(ear)
        if _looks_like_control(audio):
            self._complain("a control message in a binary frame, which is taken for audio")
        if len(audio) % (self._options.bytes_a_sample * self._options.channels):
            self._complain("a message that ends in the middle of a sample, or between the channels of one moment")
        self._heard_at = time.monotonic()
        if self._pace.is_exceeded(audio_s=len(audio) / self._options.bytes_a_ms / 1000, now=self._heard_at):
            self._complain(f"audio faster than {self._rules.pace} times real time")
            # Deepgram documents the limit and not what happens beyond it: this code is a guess.
            self._close(1008, "audio comes faster than it may")
            return False
        return self._let_hear(ear, audio)

    def _note_audio(self, audio: bytes) -> None:
        self._ledger.note_audio(self.connection, audio)
        self._sum.update(audio)

    def _let_hear(self, ear: Ear, audio: bytes) -> bool:
        drop = self._fault.drop
        too_much = 0
        if drop is not None:
            too_much = max(0, self.connection.audio_bytes - drop.after_ms * self._options.bytes_a_ms)
        self._rest += audio[: len(audio) - too_much]
        whole = len(self._rest) - len(self._rest) % (self._options.bytes_a_sample * self._options.channels)
        if whole:
            ear.hear(self._apart(self._rest[:whole]))
            self._rest = self._rest[whole:]
        return self._drop() if self._is_due(ms=self.connection.audio_ms) else True

    def _apart(self, audio: bytes) -> list[bytes]:
        """Each channel's mu-law. Without `multichannel` there is one mix, and the first channel stands for it."""
        options = self._options
        if options.bytes_a_sample == 1:
            return [audio[channel :: options.channels] for channel in range(options.voices)]
        samples = memoryview(audio).cast("h")
        return [encode_mulaw(samples[channel :: options.channels].tolist()) for channel in range(options.voices)]

    # --- Text ---

    def _read(self, ear: Ear, text: str) -> bool:
        self._ledger.note_text(self.connection, text)
        if self._is_mute:
            return True
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return self._not_understood(text, "not JSON")
        match message:
            case {"type": "KeepAlive"}:
                return True
            case {"type": "Finalize", "channel": int(channel)} if 0 <= channel < self._options.voices:
                ear.flush(channel)
            case {"type": "Finalize"} if "channel" not in message:
                ear.flush()
            case {"type": "CloseStream"}:
                return self._end_as_told(ear)
            case {"type": "Configure"}:
                self._configure(message, text)
            case _:
                return self._not_understood(text, "not a message that is known")
        return True

    def _not_understood(self, text: str, why: str) -> bool:
        self._complain(f"a text message that is {why}")
        self._say(schema_error(text, why))
        return True

    def _configure(self, message: dict[str, Any], text: str) -> None:
        keyterms, features = message.get("keyterms"), message.get("features") or {}
        if not _is_list_of_texts(keyterms or []) or not _is_dict_of_booleans(features):
            self._not_understood(text, "a Configure with fields of the wrong kind")
        elif keyterms is not None and not takes_keyterms(self._options.model):
            self._say(self._speaker.not_configured("CONFIGURE_KEYTERMS_NOT_SUPPORTED", "keyterms need Nova-3"))
        elif keyterms is not None and keyterm_tokens(tuple(keyterms)) > KEYTERM_TOKENS_AT_MOST:
            self._say(self._speaker.not_configured("CONFIGURE_KEYTERM_LIMIT_EXCEEDED", "too many keyterms"))
        else:
            self._say(self._speaker.configured(keyterms))

    # --- The end ---

    def _end_as_told(self, ear: Ear) -> bool:
        match self._fault.on_close_stream:
            case "ignore":
                return True
            case "reset":
                self._line.reset()
                return False
            case "cut":
                return self._say_goodbye()
            case _:
                return self._end(ear)

    def _end(self, ear: Ear) -> bool:
        ear.finish()
        return self._say_goodbye()

    def _say_goodbye(self) -> bool:
        self._say(self._speaker.metadata(duration_ms=round(self.connection.audio_ms), sha256=self._sum.hexdigest()))
        # Audio behind CloseStream is lost (https://github.com/deepgram/deepgram-dotnet-sdk/issues/341).
        if any(isinstance(straggler, bytes) for straggler in self._close(1000)):
            self._complain("audio after CloseStream")
        return False

    def _close(self, code: int, reason: str = "") -> list[str | bytes]:
        """Closes when all is said, and gives what the client sent meanwhile: its goodbye is behind that."""
        self._mouth.finish()
        closing = threading.Thread(target=self._line.close, args=(code, reason), daemon=True)
        closing.start()
        stragglers: list[str | bytes] = []
        with suppress(ConnectionClosed, TimeoutError):
            while len(stragglers) < STRAGGLERS_READ:
                stragglers.append(self._line.recv(timeout=CLOSE_WITHIN_S))
        closing.join(2 * CLOSE_WITHIN_S)
        return stragglers

    # --- Faults ---

    def _is_due(self, *, ms: float) -> bool:
        return self._fault.drop is not None and not self._is_mute and ms >= self._fault.drop.after_ms

    def _drop(self) -> bool:
        """Loses the connection; tells whether there is still something to read."""
        match self._fault.drop:
            case Drop(how="mute"):
                self._is_mute = True
            case Drop(how="reset"):
                self._line.reset()
            case Drop(how="abandon"):
                self._line.abandon()
                self._stopping.wait()
                self._line.cut()
            case Drop(how=CloseFrame(code=code, reason=reason)):
                self._close(code, reason)
        return self._is_mute

    # --- What the service says ---

    def _emit(self, heard: Heard) -> None:
        """The ear's own thread may call this."""
        if isinstance(heard, Phrase):
            if heard.is_final or self._options.interim_results:
                self._say(self._speaker.results(heard))
        elif isinstance(heard, SpeechBegan):
            if self._options.vad_events:
                self._say(self._speaker.speech_started(heard))
        elif self._options.utterance_end_ms is not None:
            self._say(self._speaker.utterance_end(heard))

    def _say(self, message: str | bytes) -> None:
        if not self._is_mute:
            self.connection.answers += 1
            self._mouth.say(message)

    def _complain(self, rule: str) -> None:
        self._ledger.complain(self.connection, rule)


class Mouth:
    """Says messages to the client at once. That the client is gone is for the reading side to notice."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def say(self, message: str | bytes) -> None:
        """Says it."""
        with suppress(ConnectionClosed):
            self._line.send(message)

    def finish(self) -> None:
        """Returns when all is said."""

    def close(self) -> None:
        """Says no more."""


class LateMouth(Mouth):
    """Says messages a while later, in order."""

    def __init__(self, line: Line, late_s: float) -> None:
        super().__init__(line)
        self._late_s = late_s
        self._held: queue.Queue[tuple[float, str | bytes] | None] = queue.Queue(ANSWERS_HELD)
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, message: str | bytes) -> None:
        """Says it later."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._say_in_time, daemon=True)
            self._thread.start()
        self._held.put((time.monotonic() + self._late_s, message), timeout=self._late_s + CLOSE_WITHIN_S)

    def finish(self) -> None:
        """Returns when all is said."""
        self._held.put(None, timeout=self._late_s + CLOSE_WITHIN_S)
        if self._thread is not None:
            self._thread.join(self._late_s + CLOSE_WITHIN_S)

    def close(self) -> None:
        """Says no more."""
        self._is_closed.set()
        with suppress(queue.Full):
            self._held.put_nowait(None)

    def _say_in_time(self) -> None:
        while (held := self._held.get()) is not None:
            due, message = held
            if self._is_closed.wait(max(0.0, due - time.monotonic())):
                return
            super().say(message)


def _looks_like_control(audio: bytes) -> bool:
    if audio[:1] != b"{":
        return False
    try:
        message = json.loads(audio)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and "type" in message


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_dict_of_booleans(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(flag, bool) for flag in value.values())

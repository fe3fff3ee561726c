"""One client's talk with a stand-in speech service: what every vendor's has in common.

A vendor's own conversation inherits from `Conversation` and says what its messages are. Methods whose name begins with
an underscore are not for it.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from relay.audio import encode_mulaw
from standins.ear import Ear, EarFactory, EarOptions, Heard
from standins.faults import CloseFrame, Drop, Fault
from standins.ledger import Connection, Ledger
from standins.line import Line
from standins.mouth import LateMouth, Mouth

STRAGGLERS_READ: Final = 1000  # messages that a client may still send before it notices the end
CLOSE_WITHIN_S: Final = 2.0  # for the client's half of the closing handshake


class AudioOptions(EarOptions, Protocol):
    """What a conversation must know of what its client asked for: 8 kHz mu-law, or 16-bit samples at 8 kHz."""

    @property
    def channels(self) -> int:
        """How many there are in the audio, taking turns."""

    @property
    def bytes_a_sample(self) -> int:
        """Of one channel."""

    @property
    def bytes_a_ms(self) -> int:
        """Of all channels."""


@dataclass(frozen=True, slots=True)
class PaceRules:
    """How fast audio may come: `pace` times real time.

    No vendor says over how long that is measured. Here a client may make up for a pause of `pace_window_s` at once, and
    be `pace_slack_s` early besides; both count seconds of the clock on the wall.
    """

    pace: float = math.inf
    pace_window_s: float = 1.0
    pace_slack_s: float = 1.0


class Pace:
    """Tells when audio comes faster than allowed.

    It keeps the moment by which a client at exactly the allowed pace would have sent what has come so far.
    """

    def __init__(self, rules: PaceRules) -> None:
        self._rules = rules
        self._due: float | None = None

    def is_exceeded(self, *, audio_s: float, now: float) -> bool:
        """Notes audio that came now."""
        since = now if self._due is None else max(self._due, now - self._rules.pace_window_s)
        self._due = since + audio_s / self._rules.pace
        return self._due - now > self._rules.pace_slack_s


@dataclass(frozen=True, slots=True)
class Client:
    """A client as the server has received it, and how it shall be treated."""

    line: Line
    connection: Connection
    fault: Fault
    ledger: Ledger
    make_ear: EarFactory
    stopping: threading.Event  # the server's


OptionsT = TypeVar("OptionsT", bound=AudioOptions)
RulesT = TypeVar("RulesT", bound=PaceRules)


class Conversation(ABC, Generic[OptionsT, RulesT]):
    """One client, from its first message to its last."""

    GARBAGE: ClassVar[tuple[str | bytes, ...]] = ()  # what a client must survive, for `Fault.garbage`

    def __init__(self, client: Client, options: OptionsT, rules: RulesT) -> None:
        self.client = client
        self.connection = client.connection
        self.fault = client.fault
        self.options = options
        self.rules = rules
        self.ear: Ear  # from the beginning of `run`
        self.opened_at = self.last_at = time.monotonic()  # `last_at`: when a message came last, of any kind
        self.heard_at: float | None = None  # when audio came last
        late_s = client.fault.answer_late_s
        self._mouth = LateMouth(client.line, late_s) if late_s else Mouth(client.line)
        self._pace = Pace(rules)
        self.rest = b""  # bytes of a sample, or of a round of channels, that is not complete
        self._is_mute = False
        client.line.answers_pings = not client.fault.no_pong

    # --- What a vendor's own conversation says ---

    def welcome(self) -> bool:
        """Says what is said first; tells whether the conversation goes on."""
        return True

    @abstractmethod
    def read(self, text: str) -> bool:
        """Takes a text message; tells whether the conversation goes on. The word for the end calls `end`."""

    def hear(self, audio: bytes) -> bool:
        """Takes a binary message; tells whether the conversation goes on. Overrides check it, and hand it up."""
        if len(audio) % (self.options.bytes_a_sample * self.options.channels):
            self.complain("a message that ends in the middle of a sample, or between the channels of one moment")
        self.heard_at = time.monotonic()
        if self._pace.is_exceeded(audio_s=len(audio) / self.options.bytes_a_ms / 1000, now=self.heard_at):
            self.complain(f"audio faster than {self.rules.pace} times real time")
            self.stop_the_hasty()
            return False
        return self.take(audio)

    @abstractmethod
    def emit(self, heard: Heard) -> None:
        """Says what the ear heard. The ear's own thread may call this."""

    def deadline(self) -> float:
        """By when the next message must have come, on the clock that never goes back."""
        return math.inf

    def close_for_silence(self) -> None:
        """The deadline has passed: complains and closes."""
        raise NotImplementedError

    def stop_the_hasty(self) -> None:
        """Audio came faster than it may: closes. Which code that is, not every vendor says; this one is a guess."""
        self.close(1008, "audio comes faster than it may")

    @abstractmethod
    def say_goodbye(self) -> None:
        """Says what is said last, when all audio was heard, and closes."""

    def lose(self, closed: ConnectionClosed) -> None:
        """The client has left; or a fault, or the end of the server, has cut the line."""
        if closed.sent is not None and closed.sent.code == CloseCode.MESSAGE_TOO_BIG:
            self.complain("a message that is too long to be read")

    # --- What it says that with ---

    def say(self, message: str | bytes) -> None:
        """Says a message, unless a fault has made the service mute."""
        if not self._is_mute:
            self.connection.answers += 1
            self._mouth.say(message)

    def complain(self, rule: str) -> None:
        """Notes that the client has broken a rule."""
        self.client.ledger.complain(self.connection.name, rule)

    def end(self) -> bool:
        """The client has said that its audio is over; tells whether the conversation goes on."""
        match self.fault.on_end:
            case "ignore":
                return True
            case "reset":
                self.client.line.reset()
            case "cut":
                self.say_goodbye()
            case "drain":
                self.finish()
                self.say_goodbye()
        return False

    def close(self, code: int | None, reason: str = "") -> list[str | bytes]:
        """Closes when all is said, and gives what the client sent meanwhile: its goodbye is behind that."""
        self._mouth.finish()
        line = self.client.line
        closing = threading.Thread(target=line.close, args=(code, reason), daemon=True)
        closing.start()
        stragglers: list[str | bytes] = []
        with suppress(ConnectionClosed, TimeoutError):
            while len(stragglers) < STRAGGLERS_READ:
                stragglers.append(line.recv(timeout=CLOSE_WITHIN_S))
        closing.join(2 * CLOSE_WITHIN_S)
        return stragglers

    def take(self, audio: bytes) -> bool:
        """Lets the ear hear what came before a drop; tells whether the conversation goes on."""
        too_much = 0
        if self.fault.drop is not None:
            too_much = max(0, self.connection.audio_bytes - self.fault.drop.after_ms * self.options.bytes_a_ms)
        self.let_hear(audio[: len(audio) - too_much])
        return not self.is_drop_due(self.connection.audio_ms) or self.drop()

    def let_hear(self, audio: bytes) -> None:
        """Lets the ear hear whole samples of every channel, and keeps the rest for the next time."""
        self.rest += audio
        whole = len(self.rest) - len(self.rest) % (self.options.bytes_a_sample * self.options.channels)
        if whole:
            self.ear.hear(self._apart(self.rest[:whole]))
            self.rest = self.rest[whole:]

    # --- The ear: a service whose sessions outlive their connections keeps it there ---

    def open_ear(self) -> Ear:
        """The ear that hears this conversation."""
        return self.client.make_ear(self.options, self.emit)

    def finish(self) -> None:
        """All audio has come: has the ear say the last of what it heard."""
        self.ear.finish()

    def hush(self) -> None:
        """Closes the ear; that frees the thread this runs on, should it wait for the ear."""
        if self.connection.ear is not None:
            self.connection.ear.close()

    # --- From its first message to its last ---

    def run(self) -> None:
        """Listens and answers until one side has had enough."""
        try:
            self.connection.ear = self.ear = self.open_ear()
            self._converse()
        except ConnectionClosed as closed:
            self.lose(closed)
        except Exception:
            if not self.client.stopping.is_set():  # then it is only an ear that was closed while it heard
                self.client.line.close(1011, "the stand-in itself has failed")
                raise
        finally:
            self.hush()
            self._mouth.close()
            self._conclude()

    def _conclude(self) -> None:
        line = self.client.line
        line.close()  # does nothing to a line that is closed
        self.connection.close_code = line.close_code or 1006
        self.connection.close_reason = line.close_reason
        self.client.ledger.note()

    def _converse(self) -> None:
        for message in self.GARBAGE if self.fault.garbage else ():
            self.say(message)
        goes_on = (not self.is_drop_due(0) or self.drop()) and self.welcome()
        while goes_on:
            received = self._next()
            if received is None:
                self.close_for_silence()
                return
            self.last_at = time.monotonic()
            goes_on = self._note_audio(received) if isinstance(received, bytes) else self._note_text(received)

    def _next(self) -> str | bytes | None:
        """The client's next message, or None when it has been silent for too long."""
        deadline = math.inf if self._is_mute else self.deadline()
        try:
            return self.client.line.recv(
                timeout=None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            )
        except TimeoutError:
            return None

    def _note_audio(self, audio: bytes) -> bool:
        self.client.ledger.note_audio(self.connection, audio)
        return self._is_mute or self.hear(audio)

    def _note_text(self, text: str) -> bool:
        self.client.ledger.note_text(self.connection, text)
        return self._is_mute or self.read(text)

    def _apart(self, audio: bytes) -> list[bytes]:
        """Each voice's mu-law. Where the channels are not told apart, the first stands for the mix of them."""
        options = self.options
        if options.bytes_a_sample == 1:
            return [audio[channel :: options.channels] for channel in range(options.voices)]
        samples = memoryview(audio).cast("h")
        return [encode_mulaw(samples[channel :: options.channels].tolist()) for channel in range(options.voices)]

    # --- Faults ---

    def is_drop_due(self, audio_ms: float) -> bool:
        """Whether the connection is to be lost once so much audio has come."""
        return self.fault.drop is not None and not self._is_mute and audio_ms >= self.fault.drop.after_ms

    def drop(self) -> bool:
        """Loses the connection; tells whether there is still something to read."""
        line = self.client.line
        match self.fault.drop:
            case Drop(how="mute"):
                self._is_mute = True
            case Drop(how="reset"):
                line.reset()
            case Drop(how="abandon"):
                line.abandon()
                self.client.stopping.wait()
                line.cut()
            case Drop(how=CloseFrame(code=code, reason=reason)):
                self.close(code, reason)
        return self._is_mute

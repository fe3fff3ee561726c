"""One client's talk with the stand-in for AssemblyAI's `/v3/ws`: what it says is checked, and answered."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from websockets.exceptions import ConnectionClosed

from standins.assemblyai_messages import GARBAGE, Turn, begin, error, speech_started, termination
from standins.assemblyai_options import StreamingOptions, wrong_update
from standins.conversation import Client, Conversation, PaceRules
from standins.ear import Heard, Phrase, SpeechBegan
from standins.faults import Fault, Refusal

SHORTEST_MS: Final = 50
LONGEST_MS: Final = 1000
REASON_AT_MOST: Final = 123  # bytes of a close frame
LANGUAGE: Final = "en"  # what anything is said to be, if one asks

# Of a wrong key the documentation says that it is answered with a close frame, and the published SDK knows of HTTP
# errors. Of too many sessions one page says 1008, another 3009.
WRONG_KEY: Final = Refusal(1008, "", "Unauthorized Connection: Missing or invalid API key")
TOO_MANY: Final = Refusal(1008, "", "Unauthorized connection: Too many concurrent sessions")


@dataclass(frozen=True, slots=True)
class Rules(PaceRules):
    """The documented numbers, and what is told in two ways. Tests that are in a hurry multiply the pace and divide the
    seconds.

    AssemblyAI holds the seconds of audio of the whole session against the seconds since it began to come, and does not
    say by how much they may differ: `pace_slack_s`, here.
    """

    pace: float = 1.0
    pace_window_s: float = math.inf
    pace_slack_s: float = 1.0
    second_s: float = 1.0  # how long each of the following lasts on the wall, and a second of `inactivity_timeout`
    session_s: int = 3 * 3600
    minute_s: int = 60
    sessions_per_minute: int | None = None  # new ones; None: any number
    sessions: int | None = None  # open at once; AssemblyAI itself has no such limit any more
    wrong_key: Refusal = WRONG_KEY
    too_many: Refusal = TOO_MANY


class StreamingConversation(Conversation[StreamingOptions, Rules]):
    """One client of AssemblyAI, from its first message to its last."""

    GARBAGE = GARBAGE

    def __init__(self, client: Client, options: StreamingOptions, rules: Rules) -> None:
        super().__init__(client, options, rules)
        self._formats_later = options.formats_later
        self._order = 0  # of the turn that is going on
        self._lock = threading.Lock()  # over the two above, which the ear's thread asks for
        self._first_heard_at: float | None = None

    # --- The beginning, and too long a wait ---

    def welcome(self) -> bool:
        """Begin; or the reason why the client is turned away."""
        if (refusal := self.options.refusal) is not None:
            return self._stop(refusal.status, refusal.message)
        lasts_s = self.rules.session_s * self.rules.second_s
        self.say(begin(self.connection.request_id, self.options.speech_model, lasts_s))
        return True

    def deadline(self) -> float:
        """The session's end, or before it that of the patience that the client itself has named."""
        return min(self._expires_at, self._idle_at)

    @property
    def _expires_at(self) -> float:
        return self.opened_at + self.rules.session_s * self.rules.second_s

    @property
    def _idle_at(self) -> float:
        patience = self.options.inactivity_timeout_s
        return math.inf if patience is None else self.last_at + patience * self.rules.second_s

    def close_for_silence(self) -> None:
        """3008 at the session's end; with which code an idle one ends is not documented, but the SDK knows 4031."""
        if time.monotonic() >= self._expires_at:
            self._stop(3008, "Session Expired: Maximum session duration exceeded")
        else:
            self._stop(4031, "Session idle for too long")

    # --- Audio ---

    def hear(self, audio: bytes) -> bool:
        """Takes a binary message, which is audio whatever it looks like."""
        length_ms = len(audio) / self.options.bytes_a_ms
        if not SHORTEST_MS <= length_ms <= LONGEST_MS:
            self.complain(f"{length_ms:g} ms of audio in one message, which may have {SHORTEST_MS} to {LONGEST_MS}")
            return self._stop(3007, f"Input Duration Error: Input duration violation: {length_ms:g} ms")
        if self._first_heard_at is None:
            self._first_heard_at = time.monotonic()
        return super().hear(audio)

    def stop_the_hasty(self) -> None:
        """3007, too, and a text that tells it from the other."""
        assert self._first_heard_at is not None
        heard_s, took_s = self.connection.audio_ms / 1000, time.monotonic() - self._first_heard_at
        rate = f"Received {heard_s:.1f} sec. audio in {took_s:.6f} sec"
        self._stop(3007, f"Input Duration Error: Audio Transmission Rate Exceeded: {rate}")

    # --- Text ---

    def read(self, text: str) -> bool:
        """Takes a text message. One that is not understood ends the session."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return self._not_understood("not JSON")
        match message:
            case {"type": "KeepAlive"}:
                return True
            case {"type": "ForceEndpoint"}:
                self.ear.flush()
                return True
            case {"type": "UpdateConfiguration"}:
                return self._update({name: value for name, value in message.items() if name != "type"})
            case {"type": "Terminate"}:
                return self.end()
            case _:
                return self._not_understood("not a message that is known")

    def _not_understood(self, why: str) -> bool:
        self.complain(f"a text message that is {why}")
        return self._stop(3006, f"Invalid Message: it is {why}")

    def _update(self, update: dict[str, Any]) -> bool:
        if wrong := wrong_update(self.options.speech_model, update):
            return self._not_understood(f"an UpdateConfiguration of which {wrong}")
        with self._lock:
            self._formats_later = bool(update.get("format_turns", self._formats_later))
        return True

    # --- The end ---

    def say_goodbye(self) -> None:
        """Termination, and 1000."""
        self.say(termination(self.connection.audio_ms / 1000, time.monotonic() - self.opened_at))
        if any(isinstance(straggler, bytes) for straggler in self.close(1000)):
            self.complain("audio after Terminate")

    def lose(self, closed: ConnectionClosed) -> None:
        """A client that leaves without Terminate is billed for three hours; here it may if a fault drove it away."""
        super().lose(closed)
        if self.fault == Fault() and not self.client.stopping.is_set():
            self.complain("the session was left without Terminate")

    def _stop(self, code: int, text: str) -> bool:
        """Says why, closes, and is over."""
        self.say(error(code, text))
        self.close(code, text.encode()[:REASON_AT_MOST].decode(errors="ignore"))
        return False

    # --- What the service says ---

    def emit(self, heard: Heard) -> None:
        """Says turns, which have words: nothing is said of silence."""
        if isinstance(heard, SpeechBegan) and self.options.is_universal_3:
            self.say(speech_started(heard))
        elif isinstance(heard, Phrase) and heard.words:
            with self._lock:
                self._say_turn(heard)

    def _say_turn(self, phrase: Phrase) -> None:
        turn = Turn(self._order, phrase, LANGUAGE if self.options.language_detection else None)
        if not phrase.is_final:
            self.say(turn.partial_in_one_piece() if self.options.is_universal_3 else turn.partial())
            return
        self._order += 1
        if self.options.is_universal_3:
            self.say(turn.formatted_end(is_second=False))
            return
        self.say(turn.end())
        if self._formats_later:
            self.say(turn.formatted_end(is_second=True))

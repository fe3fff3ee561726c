"""One client's talk with the stand-in for Flux: what it says is checked, and answered turn by turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from standins.conversation import Client, Conversation, PaceRules
from standins.ear import Heard, Phrase, Word
from standins.flux_messages import GARBAGE, Speaker, Turn
from standins.flux_options import BadQuery, FluxOptions

UPDATE_EVERY_MS: Final = 250  # of audio: /docs/flux/state


@dataclass(frozen=True, slots=True)
class Rules(PaceRules):
    """The numbers. Tests that run faster than real time multiply the pace and divide the seconds.

    The pace is documented for `/v1/listen`. How long a client may be silent is not; that a connection is lost after 20
    to 30 s was seen (https://github.com/deepgram/deepgram-python-sdk/issues/649).
    """

    pace: float = 1.25
    silence_limit_s: float = 20.0


class FluxConversation(Conversation[FluxOptions, Rules]):
    """One client of Flux, from its first message to its last."""

    GARBAGE = GARBAGE

    def __init__(self, client: Client, options: FluxOptions, rules: Rules) -> None:
        super().__init__(client, options, rules)
        self._lock = threading.Lock()  # over all below: an ear may have a thread of its own
        self._speaker = Speaker(self.connection.request_id, options)
        self._turn = Turn()
        self._settled: tuple[Word, ...] = ()  # words of the turn that are final, though it will not end any more
        self._is_closing = False  # no turn will end any more
        self._update_at_ms = UPDATE_EVERY_MS

    def welcome(self) -> bool:
        """Says how this conversation is called."""
        with self._lock:
            self.say(self._speaker.connected())
        return True

    # --- Silence ---

    def deadline(self) -> float:
        """Any message will do."""
        return self.last_at + self.rules.silence_limit_s

    def close_for_silence(self) -> None:
        """Closes. Which code that is, is documented for `/v1/listen` only."""
        self.complain("no audio for too long")
        self.close(1011, "NET-0001 no audio and no text has come in time")

    # --- Audio ---

    def hear(self, audio: bytes) -> bool:
        """Takes a binary message of any length: 80 ms are recommended, not required."""
        goes_on = super().hear(audio)
        with self._lock:
            while goes_on and self.connection.audio_ms >= self._update_at_ms:
                self._update_at_ms += UPDATE_EVERY_MS
                self._tell("Update")
        return goes_on

    def emit(self, heard: Heard) -> None:
        """Notes what was heard; a final with words ends the turn, unless the client has said that it closes."""
        if not isinstance(heard, Phrase):
            return
        with self._lock:
            turn = self._turn
            turn.end_ms, turn.words = heard.end_ms, (*self._settled, *heard.words)
            if turn.words and not turn.has_started:
                turn.has_started = True
                self._tell("StartOfTurn")
            if heard.is_final and self._is_closing:
                self._settled = turn.words
                self._tell("Update")
            elif heard.is_final and heard.words:
                self._end_turn("manual" if heard.is_flushed else "model")

    def _end_turn(self, trigger: str) -> None:
        turn = self._turn
        if self._speaker.options.eager_eot_threshold is not None:
            self._tell("EagerEndOfTurn")
        self._tell("EndOfTurn", trigger=trigger)
        self._turn = Turn(turn.index + 1, turn.end_ms, turn.end_ms)

    def _tell(self, event: str, *, trigger: str | None = None) -> None:
        self.say(self._speaker.turn_info(event, self._turn, trigger=trigger))

    # --- Text ---

    def read(self, text: str) -> bool:
        """Takes a text message."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return self._give_up("a text message that is not JSON")
        match message:
            case {"type": "ForceEndTurn"}:  # without a turn it does nothing
                self.ear.flush()
                return True
            case {"type": "CloseStream"}:
                with self._lock:
                    self._is_closing = True
                return self.end()
            case {"type": "Configure"}:
                self._configure(message)
                return True
            case {"type": "KeepAlive"}:
                return self._give_up("a KeepAlive, which is for /v1/listen")
        return self._give_up("a text message that is not known")

    def _give_up(self, why: str) -> bool:
        """Says an Error, which is fatal, and closes. That a KeepAlive ends so was seen, see `Rules`; the code is a
        guess."""
        self.complain(why)
        with self._lock:
            self.say(self._speaker.error("UNPARSABLE_CLIENT_MESSAGE", why))
        self._close_without_a_code()
        return False

    def _configure(self, wanted: Mapping[str, Any]) -> None:
        with self._lock:
            try:
                self._speaker.options = self._speaker.options.configured(wanted)
            except BadQuery as bad:
                self.complain(f"a Configure that cannot be: {bad}")
                self.say(self._speaker.not_configured(str(bad)))
            else:
                self.say(self._speaker.configured())

    # --- The end ---

    def say_goodbye(self) -> None:
        """All was said: no turn ends, no summary comes, and the close frame has no code (/docs/flux/close-stream)."""
        if any(isinstance(straggler, bytes) for straggler in self._close_without_a_code()):
            self.complain("audio after CloseStream")

    def _close_without_a_code(self) -> list[str | bytes]:
        return self.close(None)

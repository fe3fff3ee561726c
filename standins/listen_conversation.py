"""One client's talk with the stand-in for Deepgram's `/v1/listen`: what it says is checked, and answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from standins.conversation import Client, Conversation, PaceRules
from standins.ear import Heard, Phrase, SpeechBegan
from standins.listen_messages import GARBAGE, Speaker, schema_error
from standins.listen_options import KEYTERM_TOKENS_AT_MOST, ListenOptions, keyterm_tokens, takes_keyterms


@dataclass(frozen=True, slots=True)
class Rules(PaceRules):
    """The documented numbers. Tests that run faster than real time multiply the pace and divide the seconds."""

    pace: float = 1.25
    silence_limit_s: float = 10.0
    first_audio_within_s: float = 10.0


class ListenConversation(Conversation[ListenOptions, Rules]):
    """One client of Deepgram, from its first message to its last."""

    GARBAGE = GARBAGE

    def __init__(self, client: Client, options: ListenOptions, rules: Rules) -> None:
        super().__init__(client, options, rules)
        self._speaker = Speaker(self.connection.request_id, options)
        self._sum = hashlib.sha256()

    # --- Silence ---

    def deadline(self) -> float:
        """Before the first audio has come, KeepAlive does not help."""
        if self.heard_at is None:
            return self.opened_at + self.rules.first_audio_within_s
        return self.last_at + self.rules.silence_limit_s

    def close_for_silence(self) -> None:
        """Closes as documented at /docs/stt-troubleshooting-websocket-data-and-net-errors."""
        self.complain("no audio, and after the first audio no text either, for too long")
        self.close(1011, "NET-0001 no audio and no text has come in time")

    # --- Audio ---

    def hear(self, audio: bytes) -> bool:
        """Takes a binary message, which is audio whatever it looks like."""
        self._sum.update(audio)
        if not audio:
            self.complain("an empty binary message, which ends the stream")
            self.finish()
            self.say_goodbye()
            return False
        if _looks_like_control(audio):
            self.complain("a control message in a binary frame, which is taken for audio")
        return super().hear(audio)

    # --- Text ---

    def read(self, text: str) -> bool:
        """Takes a text message."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return self._not_understood(text, "not JSON")
        match message:
            case {"type": "KeepAlive"}:
                return True
            case {"type": "Finalize", "channel": int(channel)} if 0 <= channel < self.options.voices:
                self.ear.flush(channel)
            case {"type": "Finalize"} if "channel" not in message:
                self.ear.flush()
            case {"type": "CloseStream"}:
                return self.end()
            case {"type": "Configure"}:
                self._configure(message, text)
            case _:
                return self._not_understood(text, "not a message that is known")
        return True

    def _not_understood(self, text: str, why: str) -> bool:
        self.complain(f"a text message that is {why}")
        self.say(schema_error(text, why))
        return True

    def _configure(self, message: dict[str, Any], text: str) -> None:
        keyterms, features = message.get("keyterms"), message.get("features") or {}
        if not _is_list_of_texts(keyterms or []) or not _is_dict_of_booleans(features):
            self._not_understood(text, "a Configure with fields of the wrong kind")
        elif keyterms is not None and not takes_keyterms(self.options.model):
            self.say(self._speaker.not_configured("CONFIGURE_KEYTERMS_NOT_SUPPORTED", "keyterms need Nova-3"))
        elif keyterms is not None and keyterm_tokens(tuple(keyterms)) > KEYTERM_TOKENS_AT_MOST:
            self.say(self._speaker.not_configured("CONFIGURE_KEYTERM_LIMIT_EXCEEDED", "too many keyterms"))
        else:
            self.say(self._speaker.configured(keyterms))

    # --- What the service says ---

    def emit(self, heard: Heard) -> None:
        """Says what was heard, if that was asked for."""
        if isinstance(heard, Phrase):
            if heard.is_final or self.options.interim_results:
                self.say(self._speaker.results(heard))
        elif isinstance(heard, SpeechBegan):
            if self.options.vad_events:
                self.say(self._speaker.speech_started(heard))
        elif self.options.utterance_end_ms is not None:
            self.say(self._speaker.utterance_end(heard))

    def say_goodbye(self) -> None:
        """Metadata, and 1000."""
        self.say(self._speaker.metadata(duration_ms=round(self.connection.audio_ms), sha256=self._sum.hexdigest()))
        # Audio behind CloseStream is lost (https://github.com/deepgram/deepgram-dotnet-sdk/issues/341).
        if any(isinstance(straggler, bytes) for straggler in self.close(1000)):
            self.complain("audio after CloseStream")


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

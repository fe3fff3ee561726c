"""What Flux says, as the JSON it says it in. Pure.

See https://developers.deepgram.com/reference/speech-to-text/listen-flux and https://developers.deepgram.com/docs/flux/state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from standins.ear import Word
from standins.flux_options import FluxOptions

SURE: Final = 0.9  # that a turn is over; these two are made up, no ear tells
UNSURE: Final = 0.1

Shape = dict[str, Any]


@dataclass(slots=True)
class Turn:
    """What was heard since the turn before it ended."""

    index: int = 0
    start_ms: int = 0
    end_ms: int = 0  # it was listened to up to here
    words: tuple[Word, ...] = ()
    has_started: bool = False  # `StartOfTurn` was said


@dataclass(slots=True)
class Speaker:
    """Words one connection's messages in Flux's shapes, and counts them all from 0."""

    request_id: str
    options: FluxOptions
    said: int = 0

    def connected(self) -> str:
        """The first message."""
        return self._message("Connected", {"request_id": self.request_id})

    def turn_info(self, event: str, turn: Turn, *, trigger: str | None = None) -> str:
        """Where a turn stands; it tells the whole turn every time. Only what ends one has a trigger."""
        shape: Shape = {
            "request_id": self.request_id,
            "event": event,
            "turn_index": turn.index,
            "audio_window_start": turn.start_ms / 1000,
            "audio_window_end": turn.end_ms / 1000,
            "transcript": " ".join(word.text for word in turn.words),
            "words": [_word(word) for word in turn.words],
            "end_of_turn_confidence": SURE if event in ("EagerEndOfTurn", "EndOfTurn") else UNSURE,
        }
        if trigger is not None:
            shape["trigger"] = trigger
        if self.options.is_multilingual:
            shape["languages"] = ["en"] if turn.words else []
        if self.options.language_hints:
            shape["languages_hinted"] = list(self.options.language_hints)
        return self._message("TurnInfo", shape)

    def configured(self) -> str:
        """A change was made while streaming; everything is told as it now is."""
        options = self.options
        thresholds = {"eot_threshold": options.eot_threshold, "eot_timeout_ms": options.eot_timeout_ms}
        if options.eager_eot_threshold is not None:
            thresholds["eager_eot_threshold"] = options.eager_eot_threshold
        shape: Shape = {
            "request_id": self.request_id,
            "thresholds": thresholds,
            "keyterms": list(options.keyterms),
            "numerals": options.numerals,
        }
        if options.is_multilingual:
            shape["language_hints"] = list(options.language_hints)
        return self._message("ConfigureSuccess", shape)

    def not_configured(self, description: str) -> str:
        """A change could not be made. Which codes there are is not documented."""
        return self._message(
            "ConfigureFailure",
            {"request_id": self.request_id, "code": "INVALID_CONFIGURATION", "description": description},
        )

    def error(self, code: str, description: str) -> str:
        """Something is so wrong that the connection will be closed."""
        return self._message("Error", {"code": code, "description": description})

    def _message(self, kind: str, shape: Shape) -> str:
        message = json.dumps({"type": kind, "sequence_id": self.said} | shape, separators=(",", ":"))
        self.said += 1
        return message


# What a client must survive: broken JSON, audio where text belongs, unknown types and events, nulls for everything.
GARBAGE: Final[tuple[str | bytes, ...]] = (
    '{"type":"TurnInfo","event":',
    b"\x00\xff\x00\xff",
    '{"type":"Tomorrow","weather":"unknown"}',
    '[{"type":"TurnInfo"}]',
    "null",
    '{"type":null}',
    '{"type":"Connected","request_id":null}',
    '{"type":"TurnInfo"}',
    '{"type":"TurnInfo","event":null,"turn_index":null,"audio_window_start":null,"audio_window_end":null,'
    '"transcript":null,"words":null}',
    '{"type":"TurnInfo","event":"Update","turn_index":0,"audio_window_start":0,"audio_window_end":1e308,'
    '"transcript":"x","words":[]}',
    '{"type":"TurnInfo","event":"EndOfTurn","turn_index":0,"audio_window_start":0,"audio_window_end":0.1,'
    '"transcript":"x","words":[null,{"word":1,"start":"x"}]}',
    '{"type":"TurnInfo","event":"Daydream","turn_index":0,"audio_window_start":0,"audio_window_end":0,'
    '"transcript":"","words":[]}',
    '{"type":"Warning","code":null,"description":null}',
)


def _word(word: Word) -> Shape:
    return {
        "word": word.text,
        "confidence": round(word.confidence, 4),
        "start": word.start_ms / 1000,
        "end": word.end_ms / 1000,
    }

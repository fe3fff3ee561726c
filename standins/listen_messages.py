"""What Deepgram's live endpoint says, as the JSON it says it in. Pure; see https://developers.deepgram.com/reference/listen-live."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from standins.ear import Phrase, SpeechBegan, UtteranceOver, Word
from standins.listen_options import ListenOptions

Shape = dict[str, Any]


@dataclass(slots=True)
class Speaker:
    """Words one connection's answers in Deepgram's shapes: they all carry its request and its model."""

    request_id: str
    options: ListenOptions
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def results(self, phrase: Phrase) -> str:
        """A transcript of one channel, interim or final."""
        return _json(
            {
                "type": "Results",
                "channel_index": [phrase.channel, self.options.voices],
                "start": _seconds(phrase.start_ms),
                "duration": _seconds(phrase.end_ms - phrase.start_ms),
                "is_final": phrase.is_final,
                "speech_final": phrase.ends_speech,
                "from_finalize": phrase.is_flushed,
                "channel": {"alternatives": [_alternative(phrase.words)]},
                "metadata": self._metadata_of_results(),
            }
        )

    def speech_started(self, began: SpeechBegan) -> str:
        """Someone began to speak."""
        return _json(
            {
                "type": "SpeechStarted",
                "channel": [began.channel, self.options.voices],
                "timestamp": _seconds(began.at_ms),
            }
        )

    def utterance_end(self, over: UtteranceOver) -> str:
        """No word has followed for a while."""
        return _json(
            {
                "type": "UtteranceEnd",
                "channel": [over.channel, self.options.voices],
                "last_word_end": _seconds(over.last_word_end_ms),
            }
        )

    def metadata(self, *, duration_ms: int, sha256: str) -> str:
        """The last message of a stream that ended well."""
        return _json(
            {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": self.request_id,
                "sha256": sha256,
                "created": self.created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "duration": _seconds(duration_ms),
                "channels": self.options.channels,
            }
        )

    def configured(self, keyterms: list[str] | None) -> str:
        """A change was made while streaming. It names the keyterms only when they were replaced."""
        shape: Shape = {"type": "ConfigureSuccess", "request_id": self.request_id}
        return _json(shape if keyterms is None else shape | {"keyterms": keyterms})

    def not_configured(self, code: str, description: str) -> str:
        """A change could not be made."""
        return _json(
            {"type": "ConfigureFailure", "request_id": self.request_id, "code": code, "description": description}
        )

    def _metadata_of_results(self) -> Shape:
        model = self.options.model
        shape: Shape = {
            "request_id": self.request_id,
            "model_info": {"name": f"stand-in-{model}", "version": "stand-in", "arch": _architecture(model)},
            "model_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, model)),
        }
        return shape | {"extra": dict(self.options.extra)} if self.options.extra else shape


def schema_error(text: str, description: str) -> str:
    """A text message could not be understood; the stream goes on."""
    return _json({"type": "Error", "variant": "SchemaError", "description": description, "message": text})


def refusal(err_code: str, err_msg: str, request_id: str) -> bytes:
    """The body of a handshake that was answered with an error (https://developers.deepgram.com/docs/errors)."""
    return _json({"err_code": err_code, "err_msg": err_msg, "request_id": request_id}).encode()


# What a client must survive: broken JSON, audio where text belongs, an unknown type, a list, nulls for everything.
GARBAGE: Final[tuple[str | bytes, ...]] = (
    '{"type":"Results","channel":',
    b"\x00\xff\x00\xff",
    '{"type":"Tomorrow","channel":[0,1],"weather":"unknown"}',
    '[{"type":"Results"}]',
    '"Results"',
    "null",
    '{"type":null}',
    '{"type":"Results","channel_index":null,"start":null,"duration":null,"is_final":null,"channel":null,"metadata":null}',
    '{"type":"Results","channel_index":[0,1],"start":0,"duration":0,"is_final":true,"channel":{"alternatives":[]}}',
    '{"type":"Results","channel_index":[7,9],"start":-1,"duration":1e308,"is_final":true,'
    '"channel":{"alternatives":[{"transcript":null,"confidence":"high","words":[null,{"word":1,"start":"x"}]}]}}',
    '{"type":"UtteranceEnd","channel":[0,1],"last_word_end":-1}',
    '{"type":"SpeechStarted"}',
)


def _alternative(words: tuple[Word, ...]) -> Shape:
    return {
        "transcript": " ".join(word.text for word in words),
        "confidence": round(sum(word.confidence for word in words) / len(words), 4) if words else 0.0,
        "words": [
            {
                "word": word.text,
                "start": _seconds(word.start_ms),
                "end": _seconds(word.end_ms),
                "confidence": round(word.confidence, 4),
                "punctuated_word": word.text,
            }
            for word in words
        ],
    }


def _architecture(model: str) -> str:
    return "-".join(model.split("-")[:2]) if model.startswith(("nova-2", "nova-3")) else model.split("-")[0]


def _seconds(ms: int) -> float:
    return ms / 1000


def _json(shape: Shape) -> str:
    return json.dumps(shape, separators=(",", ":"))

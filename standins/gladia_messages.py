"""What Gladia's live endpoint says, as JSON. Pure; see https://docs.gladia.io/api-reference/v2/live/websocket.

What add-ons say is made up: a translation is the words behind the language's code, an entity is a word with a capital
letter, and every sentiment is neutral.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from standins.ear import Phrase, Word
from standins.gladia_options import LiveOptions

Shape = dict[str, Any]

_GATES: Final[Mapping[str, str]] = {
    "audio_chunk": "receive_acknowledgments",
    "stop_recording": "receive_acknowledgments",
    "speech_start": "receive_speech_events",
    "speech_end": "receive_speech_events",
    "translation": "receive_realtime_processing_events",
    "named_entity_recognition": "receive_realtime_processing_events",
    "sentiment_analysis": "receive_realtime_processing_events",
    "post_transcript": "receive_post_processing_events",
    "post_summarization": "receive_post_processing_events",
    "post_final_transcript": "receive_post_processing_events",
    "start_session": "receive_lifecycle_events",
    "start_recording": "receive_lifecycle_events",
    "end_recording": "receive_lifecycle_events",
    "end_session": "receive_lifecycle_events",
    "error": "receive_errors",
}


@dataclass(frozen=True, slots=True)
class Speaker:
    """Words one session's messages in Gladia's shapes."""

    session_id: str
    options: LiveOptions

    def wants(self, message: Shape) -> bool:
        """Whether the client has asked for messages of this kind, by `messages_config` or by saying nothing."""
        if message["type"] == "transcript":
            gate = f"receive_{'final' if message['data']['is_final'] else 'partial'}_transcripts"
        else:
            gate = _GATES[message["type"]]
        return gate in self.options.receives

    def event(self, kind: str, data: Shape | None = None) -> Shape:
        """A message of this kind."""
        shape: Shape = {"type": kind, "session_id": self.session_id, "created_at": timestamp(datetime.now(UTC))}
        return shape if data is None else shape | {"data": data}

    # --- Of the audio ---

    def audio_taken(self, start: int, end: int, *, is_inclusive: bool) -> Shape:
        """Audio was taken: the session's bytes from `start` to before `end`."""
        data = {
            "byte_range": [start, end - 1 if is_inclusive else end],
            "time_range": [self._seconds(start), self._seconds(end)],
        }
        return self.event("audio_chunk", data) | {"acknowledged": True, "error": None}

    def audio_refused(self, why: str) -> Shape:
        """Audio could not be taken."""
        return self.event("audio_chunk") | {"acknowledged": False, "error": {"message": why}, "data": None}

    def stop_taken(self, taken: int) -> Shape:
        """The recording is stopped after so many bytes of audio."""
        data = {"recording_duration": self._seconds(taken), "recording_left_to_process": 0.0}
        return self.event("stop_recording", data) | {"acknowledged": True, "error": None}

    def recording_ended(self, taken: int) -> Shape:
        """The last audio was heard."""
        return self.event("end_recording", {"recording_duration": self._seconds(taken)})

    def _seconds(self, audio_bytes: int) -> float:
        return audio_bytes / self.options.bytes_a_ms / 1000

    # --- Of what was heard ---

    def speech(self, kind: Literal["speech_start", "speech_end"], at_ms: int, channel: int) -> Shape:
        """Someone began to speak, or has ended."""
        return self.event(kind, {"time": at_ms / 1000, "channel": channel})

    def transcript(self, utterance_id: str, utterance: Shape, *, is_final: bool) -> Shape:
        """What one channel said; the partials and the final of one utterance share its id."""
        return self.event("transcript", {"id": utterance_id, "is_final": is_final, "utterance": utterance})

    def additions(self, utterance_id: str, utterance: Shape) -> list[Shape]:
        """What add-ons say of a final."""
        of = {"utterance_id": utterance_id, "utterance": utterance}
        said = [
            self._addition("translation", of | _translated(utterance, language))
            for language in self.options.target_languages
        ]
        if self.options.named_entities:
            said.append(self._addition("named_entity_recognition", of | {"results": entities(utterance)}))
        if self.options.sentiment:
            said.append(self._addition("sentiment_analysis", of | {"results": sentiments(utterance)}))
        return said

    def _addition(self, kind: str, data: Shape) -> Shape:
        return self.event(kind, data) | {"error": None}

    # --- Of what went wrong ---

    def error(self, why: str) -> Shape:
        """A message could not be understood. No schema of Gladia's shows this frame, though `receive_errors` exists."""
        return self.event("error", {"code": "invalid_message", "message": why})


def utterance_of(phrase: Phrase, language: str) -> Shape:
    """An utterance, whose words carry the space before them."""
    words = [_word(word) for word in phrase.words]
    return {
        "start": words[0]["start"],
        "end": words[-1]["end"],
        "confidence": round(sum(word["confidence"] for word in words) / len(words), 4),
        "channel": phrase.channel,
        "language": language,
        "text": text_of(words),
        "words": words,
    }


def text_of(words: Sequence[Shape]) -> str:
    """The words in one line."""
    return "".join(word["word"] for word in words)


def translated(utterance: Shape, language: str) -> Shape:
    """An utterance in another language, as good as made up."""
    first, *rest = utterance["words"]
    words = [first | {"word": f" [{language}]{first['word']}"}, *rest]
    return utterance | {"language": language, "text": text_of(words), "words": words}


def entities(utterance: Shape) -> list[Shape]:
    """The words with a capital letter."""
    return [
        {"entity_type": "NAME", "text": text, "start": word["start"], "end": word["end"]}
        for word in utterance["words"]
        if (text := word["word"].strip())[:1].isupper()
    ]


def sentiments(utterance: Shape) -> list[Shape]:
    """One sentiment for the whole utterance."""
    named = {name: utterance[name] for name in ("text", "start", "end", "channel")}
    return [{"sentiment": "neutral", "emotion": "neutral"} | named]


def timestamp(moment: datetime) -> str:
    """A moment as ISO 8601."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dumps(shape: Shape) -> str:
    """A shape as JSON."""
    return json.dumps(shape, separators=(",", ":"))


def _word(word: Word) -> Shape:
    return {
        "word": f" {word.text}",
        "start": word.start_ms / 1000,
        "end": word.end_ms / 1000,
        "confidence": round(word.confidence, 4),
    }


def _translated(utterance: Shape, language: str) -> Shape:
    return {
        "original_language": utterance["language"],
        "target_language": language,
        "translated_utterance": translated(utterance, language),
    }


# What a client must survive: broken JSON, audio where text belongs, an unknown type, a list, nulls for everything.
GARBAGE: Final[tuple[str | bytes, ...]] = (
    "{",
    "[" * 1000,
    b"\xff\x00\xff",
    "[]",
    '{"type":"something_new","session_id":"none","data":{}}',
    '{"type":"transcript","data":null}',
    '{"type":"transcript","data":{"id":7,"is_final":"yes","utterance":{"channel":"x","start":null,"end":{},'
    '"confidence":"high","text":null,"language":3,"words":[null,{"word":1,"start":"x"}]}}}',
    '{"type":"audio_chunk","acknowledged":true,"data":null}',
    '{"type":"audio_chunk","acknowledged":true,"data":{"byte_range":["a",null],"time_range":[]}}',
    '{"type":"audio_chunk","acknowledged":"no","error":[],"data":{"byte_range":7}}',
    '{"type":"translation","error":{"message":"no"},"data":null}',
    '{"type":"speech_start","data":{"time":-1,"channel":null}}',
)

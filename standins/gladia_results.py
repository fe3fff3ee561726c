"""What is known of a session when it is over, as the JSON Gladia says it in.

Pure; see https://docs.gladia.io/api-reference/v2/live/get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Final

from standins.gladia_messages import Shape, entities, timestamp, translated
from standins.gladia_options import LiveOptions

NO_TIME: Final = 0.0  # seconds that made-up results took


@dataclass(slots=True)
class Record:
    """What was said in a session."""

    options: LiveOptions
    utterances: list[Shape] = field(default_factory=list)
    audio_s: float = 0.0

    def transcription(self) -> Shape:
        """The whole text, and each utterance."""
        return _transcription(self.utterances, self.options.language)

    def summary(self) -> str:
        """A summary, which is made up."""
        return f"{len(self.utterances)} utterances in {self.audio_s:g} seconds."

    def result(self) -> Shape:
        """All of it, with what add-ons say."""
        options = self.options
        result: Shape = {"metadata": self._metadata(), "transcription": self.transcription()}
        if options.target_languages:
            result["translation"] = _addition([self._translation(language) for language in options.target_languages])
        if options.summary:
            result["summarization"] = _addition(self.summary())
        if options.named_entities:
            result["named_entity_recognition"] = _addition([one for said in self.utterances for one in entities(said)])
        if options.sentiment:
            result["sentiment_analysis"] = _addition("neutral")
        return result

    def _metadata(self) -> Shape:
        return {
            "audio_duration": self.audio_s,
            "number_of_distinct_channels": self.options.channels,
            "billing_time": self.audio_s * self.options.channels,
            "transcription_time": NO_TIME,
        }

    def _translation(self, language: str) -> Shape:
        return _transcription([translated(said, language) for said in self.utterances], language) | {"error": None}


def job(
    session_id: str, options: LiveOptions, status: str, created: datetime, ended: datetime | None, result: Shape | None
) -> Shape:
    """The answer to the question how a session is."""
    asked = {name: value for name, value in options.given.items() if name != "custom_metadata"}
    return {
        "id": session_id,
        "request_id": f"G-{session_id[:8]}",
        "version": 2,
        "kind": "live",
        "status": status,
        "created_at": timestamp(created),
        "completed_at": None if ended is None else timestamp(ended),
        "custom_metadata": options.given.get("custom_metadata"),
        "error_code": None,
        "post_session_metadata": {},
        "file": None if result is None else _file(session_id, result),
        "request_params": asked,
        "result": result,
    }


def _file(session_id: str, result: Shape) -> Shape:
    metadata = result["metadata"]
    return {
        "id": session_id,
        "filename": f"{session_id}.wav",
        "source": None,
        "audio_duration": metadata["audio_duration"],
        "number_of_channels": metadata["number_of_distinct_channels"],
    }


def _transcription(utterances: Sequence[Shape], language: str) -> Shape:
    in_order = sorted(utterances, key=itemgetter("start"))
    return {
        "full_transcript": "".join(said["text"] for said in in_order).strip(),
        "languages": [language] if in_order else [],
        "utterances": in_order,
    }


def _addition(results: object) -> Shape:
    return {"success": True, "is_empty": not results, "exec_time": NO_TIME, "error": None, "results": results}

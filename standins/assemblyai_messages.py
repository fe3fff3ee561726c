"""What AssemblyAI's `/v3/ws` says, as the JSON it says it in. Pure; see
https://www.assemblyai.com/docs/streaming/message-sequence."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from standins.ear import Phrase, SpeechBegan, Word

SURE: Final = 0.8  # that a turn is over
UNSURE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn holds so far, or in the end."""

    order: int
    phrase: Phrase
    language: str | None = None  # if it was asked for

    def partial(self) -> str:
        """It goes on. The newest word may still change, and the transcript is without it."""
        words = self.phrase.words
        return self._said(_joined(words[:-1]), words=[_word(word, is_final=word is not words[-1]) for word in words])

    def partial_in_one_piece(self) -> str:
        """It goes on, as universal-3 models say it: any word may still change, and the transcript has all."""
        words = self.phrase.words
        return self._said(f"{_formatted(words)[:-1]}—", words=[_word(word, is_final=False) for word in words])

    def end(self) -> str:
        """It is over; the bare text, and the utterance, which is told once."""
        text = _joined(self.phrase.words)
        return self._ended(text, utterance=text, is_formatted=False)

    def formatted_end(self, *, is_second: bool) -> str:
        """It is over; as people write it. The words keep the ear's spelling, by which tests know them again."""
        text = _formatted(self.phrase.words)
        return self._ended(text, utterance="" if is_second else text, is_formatted=True)

    def _ended(self, transcript: str, *, utterance: str, is_formatted: bool) -> str:
        language = {} if self.language is None else {"language_code": self.language, "language_confidence": 0.99}
        return self._said(
            transcript,
            words=[_word(word, is_final=True) for word in self.phrase.words],
            turn_is_formatted=is_formatted,
            end_of_turn=True,
            end_of_turn_confidence=SURE,
            utterance=utterance,
            **language,
        )

    def _said(self, transcript: str, **rest: Any) -> str:
        return _json(
            {
                "turn_order": self.order,
                "turn_is_formatted": False,
                "end_of_turn": False,
                "transcript": transcript,
                "end_of_turn_confidence": UNSURE,
                "utterance": "",
                **rest,
                "type": "Turn",
            }
        )


def begin(session_id: str, speech_model: str, lasts_s: float) -> str:
    """The session has begun."""
    expires_at = round(time.time() + lasts_s)
    configuration = {"model": speech_model, "mode": "balanced", "api_version": "stand-in"}
    return _json({"type": "Begin", "id": session_id, "expires_at": expires_at, "configuration": configuration})


def speech_started(began: SpeechBegan) -> str:
    """Someone began to speak; universal-3 models say so."""
    return _json({"type": "SpeechStarted", "timestamp": began.at_ms, "confidence": 0.9})


def termination(audio_s: float, session_s: float) -> str:
    """The last message of a session that ended well."""
    return _json(
        {
            "type": "Termination",
            "audio_duration_seconds": round(audio_s),
            "session_duration_seconds": round(session_s),
        }
    )


def error(code: int, text: str) -> str:
    """Why the close frame with this code follows."""
    return _json({"type": "Error", "error_code": code, "error": text})


def refusal(text: str) -> bytes:
    """The body of a handshake that was answered with an error. Not documented; the published SDK reads the status."""
    return _json({"error": text}).encode()


# What a client must survive: broken JSON, bytes where text belongs, an unknown type, a list, nulls for everything.
GARBAGE: Final[tuple[str | bytes, ...]] = (
    '{"type":"Turn","turn_order":',
    b"\x00\xff\x00\xff",
    '{"type":"Tomorrow","weather":"unknown"}',
    '[{"type":"Turn"}]',
    '"Turn"',
    "null",
    '{"type":null}',
    '{"type":"Turn","turn_order":null,"end_of_turn":null,"transcript":null,"words":null}',
    '{"type":"Turn","turn_order":"0","end_of_turn":true,"transcript":"","words":[]}',
    '{"type":"Turn","turn_order":9999,"end_of_turn":true,"transcript":"x","words":[null,{"text":1,"start":"x"}]}',
    '{"type":"Turn","turn_order":9998,"end_of_turn":true,"transcript":"x","words":'
    '[{"text":"x","start":-1,"end":1e308,"confidence":"high","word_is_final":1}]}',
    '{"type":"SpeechStarted"}',
    '{"type":"Warning","warning_code":null}',
    '{"type":"Heartbeat"}',
    '{"type":"SpeakerRevision","revisions":null}',
)


def _word(word: Word, *, is_final: bool) -> dict[str, Any]:
    return {
        "start": word.start_ms,
        "end": word.end_ms,
        "text": word.text,
        "confidence": round(word.confidence, 6),
        "word_is_final": is_final,
    }


def _joined(words: tuple[Word, ...]) -> str:
    return " ".join(word.text for word in words)


def _formatted(words: tuple[Word, ...]) -> str:
    text = _joined(words)
    return f"{text[:1].upper()}{text[1:]}."


def _json(shape: dict[str, Any]) -> str:
    return json.dumps(shape, separators=(",", ":"))

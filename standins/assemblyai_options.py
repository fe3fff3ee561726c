"""What a client asks of AssemblyAI's `/v3/ws` in the query of its URL, checked as the documentation says.

Parameters and values: https://www.assemblyai.com/docs/api-reference/streaming-api/universal-streaming and
.../universal-3-pro; those that only the published SDK names (`assemblyai/streaming/v3/models.py`) are marked. Where
this stand-in is narrower than AssemblyAI, because it cannot do what is asked, it says "here". Whether AssemblyAI
refuses what it does not know, and how, is not documented.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final
from urllib.parse import parse_qsl

from standins.faults import Refusal

KEYTERMS_AT_MOST: Final = 100
KEYTERM_AT_MOST: Final = 50  # characters; AssemblyAI ignores longer ones, which no client can mean
LANGUAGES_AT_MOST: Final = 10
AGENT_CONTEXT_AT_MOST: Final = 1750  # characters
PARAMETERS_AT_MOST: Final = 100  # ours: nobody asks for so many

ENGLISH: Final = "universal-streaming-english"
_MULTILINGUAL: Final = "universal-streaming-multilingual"
_WHISPER: Final = frozenset(["whisper-rt"])
_STREAMING: Final = frozenset([ENGLISH, _MULTILINGUAL])
_UNIVERSAL_3: Final = frozenset(
    [
        *("u3-rt-pro", "universal-3-5-pro", "universal-3-6-pro"),
        *("universal-3-6", "u3-rt-pro-beta-1", "u3-pro"),  # the SDK's
    ]
)
_NOT_WHISPER: Final = _STREAMING | _UNIVERSAL_3
_NOT_ENGLISH: Final = _UNIVERSAL_3 | _WHISPER | {_MULTILINGUAL}
_ALL: Final = _NOT_WHISPER | _WHISPER
_BYTES_A_SAMPLE: Final = {"pcm_mulaw": 1, "pcm_s16le": 2}
_ENCODINGS: Final = (*_BYTES_A_SAMPLE, "opus", "ogg_opus", "aac")
_SAMPLE_RATE: Final = 8000


class BadQuery(Exception):
    """The query breaks a rule; the message names the parameter and the rule, on one line of ASCII."""


@dataclass(frozen=True, slots=True)
class StreamingOptions:
    """A query that broke no rule; or that of a client who is turned away once its handshake was answered well."""

    speech_model: str = ENGLISH
    encoding: str = "pcm_mulaw"
    format_turns: bool = False
    language_detection: bool = False
    inactivity_timeout_s: int | None = None
    given: Mapping[str, str] = field(default_factory=dict)  # everything, as it was asked
    refusal: Refusal | None = None

    channels: ClassVar[int] = 1
    voices: ClassVar[int] = 1
    utterance_end_ms: ClassVar[int | None] = None

    @property
    def is_universal_3(self) -> bool:
        """Whether turns are formatted from the beginning, and told in whole pieces."""
        return self.speech_model in _UNIVERSAL_3

    @property
    def formats_later(self) -> bool:
        """Whether a turn's end is told again, formatted."""
        return self.format_turns and self.speech_model in _STREAMING

    @property
    def bytes_a_sample(self) -> int:
        """Of the one channel there is."""
        return _BYTES_A_SAMPLE[self.encoding]

    @property
    def bytes_a_ms(self) -> int:
        """Of the one channel there is."""
        return _SAMPLE_RATE // 1000 * self.bytes_a_sample

    @classmethod
    def parse(cls, query: str) -> StreamingOptions:
        """The options a query asks for, or `BadQuery`."""
        given = _collect(query)
        for name in ("speech_model", "sample_rate"):
            if name not in given:
                raise BadQuery(f"{name} is missing")
        for name, value in given.items():
            _check(name, value, given["speech_model"])
        return cls(
            speech_model=given["speech_model"],
            encoding=given.get("encoding", "pcm_s16le"),
            format_turns=_is_on(given, "format_turns"),
            language_detection=_is_on(given, "language_detection"),
            inactivity_timeout_s=int(given["inactivity_timeout"]) if "inactivity_timeout" in given else None,
            given=given,
        )


def wrong_update(model: str, update: Mapping[str, object]) -> str | None:
    """What is wrong with the fields of an UpdateConfiguration, if anything: it has some of the query's parameters."""
    for name, value in update.items():
        if name not in _CHANGEABLE:
            return f"{name!a} cannot be changed"
        rule, models = _RULES[name]
        if model not in models:
            return f"{name} is not for {model}"
        if isinstance(value, str) is not (rule in _TEXTS):
            return f"{name} is of the wrong kind"
        if complaint := rule(value if isinstance(value, str) else json.dumps(value)):
            return f"{name} {complaint}"
    return None


def _collect(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_AT_MOST, errors="strict")
    except ValueError as error:
        raise BadQuery("the query is not readable") from error
    given = dict(pairs)
    if len(given) < len(pairs):
        raise BadQuery("a parameter may be given only once")
    return given


def _check(name: str, value: str, model: str) -> None:
    if name not in _RULES:
        raise BadQuery(f"unknown parameter {name!a}")
    rule, models = _RULES[name]
    if complaint := rule(value):
        raise BadQuery(f"{name} {complaint}")
    if model not in models:
        raise BadQuery(f"{name} is not for {model}")


def _is_on(given: Mapping[str, str], name: str) -> bool:
    return given.get(name, "false").lower() == "true"


# --- Each parameter by itself: what is wrong with its value, or nothing ------------------------------------

Rule = Callable[[str], str | None]


def _boolean(value: str) -> str | None:
    return None if value in {"true", "false", "True", "False"} else "must be true or false"  # the SDK says True


def _one_of(*choices: str) -> Rule:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def _whole(least: int, most: int = 1_000_000) -> Rule:
    def rule(value: str) -> str | None:
        fits = value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most
        return None if fits else f"must be a whole number from {least} to {most}"

    return rule


def _share(value: str) -> str | None:
    try:
        fits = 0 <= float(value) <= 1
    except ValueError:
        fits = False
    return None if fits else "must be a number from 0 to 1"


def _texts(value: str) -> list[str] | None:
    try:
        texts = json.loads(value)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    return texts if is_list else None


def _list_of_texts(value: str) -> str | None:
    return "must be a JSON list of texts" if _texts(value) is None else None


def _keyterms(value: str) -> str | None:
    terms = _texts(value)
    if terms is None:
        return "must be a JSON list of texts"
    if len(terms) > KEYTERMS_AT_MOST:
        return f"must not exceed {KEYTERMS_AT_MOST} terms"
    if any(len(term) > KEYTERM_AT_MOST for term in terms):
        return f"must not have terms of more than {KEYTERM_AT_MOST} characters"
    return None


def _languages(value: str) -> str | None:
    codes = _texts(value)
    if codes is None or not 0 < len(codes) <= LANGUAGES_AT_MOST:
        return f"must be a JSON list of 1 to {LANGUAGES_AT_MOST} codes"
    if codes != ["multi"] and any(_language(code) for code in codes):
        return "must be language codes, or multi alone"
    return None


def _language(value: str) -> str | None:
    is_code = value.isascii() and value.isalpha() and value.islower() and len(value) in (2, 3)
    return None if is_code else "must be a language code"


def _sample_rate(value: str) -> str | None:
    return _whole(1)(value) or (None if int(value) == _SAMPLE_RATE else f"must be {_SAMPLE_RATE} here")


def _encoding(value: str) -> str | None:
    if value not in _ENCODINGS:
        return "is not the name of an encoding"
    return None if value in _BYTES_A_SAMPLE else f"must be {' or '.join(_BYTES_A_SAMPLE)} here"


def _text(value: str) -> str | None:
    return None if value else "must not be empty"


def _agent_context(value: str) -> str | None:
    return None if len(value) <= AGENT_CONTEXT_AT_MOST else f"must not exceed {AGENT_CONTEXT_AT_MOST} characters"


_TEXTS: Final = (_text, _agent_context)  # whose values are no JSON in a query, either


def _not_here(_value: str) -> str | None:
    return "is not served here"


_RULES: Final[Mapping[str, tuple[Rule, frozenset[str]]]] = {  # and the models it is for
    "acknowledge_silence": (_boolean, _UNIVERSAL_3),  # the SDK's
    "agent_context": (_agent_context, _UNIVERSAL_3),
    "continuous_partials": (_boolean, _UNIVERSAL_3),
    "customer_support_audio_capture": (_boolean, _ALL),  # the SDK's
    "domain": (_one_of("medical-v1"), _ALL),
    "encoding": (_encoding, _ALL),
    "end_of_turn_confidence_threshold": (_share, _STREAMING),
    "filter_profanity": (_boolean, _ALL),
    "format_turns": (_boolean, _STREAMING),
    "inactivity_timeout": (_whole(5, 3600), _ALL),
    "include_partial_turns": (_boolean, _ALL),  # the SDK's
    "interruption_delay": (_whole(0, 1000), _UNIVERSAL_3),
    "keyterms_prompt": (_keyterms, _NOT_WHISPER),
    "language": (_language, _STREAMING),
    "language_code": (_language, _UNIVERSAL_3),
    "language_codes": (_languages, _UNIVERSAL_3),
    "language_detection": (_boolean, _NOT_ENGLISH),
    "llm_gateway": (_not_here, _ALL),
    "max_speakers": (_whole(1, 10), _NOT_WHISPER),
    "max_turn_silence": (_whole(0), _ALL),
    "min_end_of_turn_silence_when_confident": (_whole(0), _ALL),  # the old name of the next
    "min_turn_silence": (_whole(0), _ALL),
    "mode": (_one_of("min_latency", "balanced", "max_accuracy"), _UNIVERSAL_3),
    "previous_context_n_turns": (_whole(0, 100), _UNIVERSAL_3),
    "prompt": (_text, _UNIVERSAL_3),
    "redact_pii": (_boolean, _ALL),
    "redact_pii_policies": (_list_of_texts, _ALL),
    "redact_pii_sub": (_one_of("hash", "entity_name"), _ALL),
    "sample_rate": (_sample_rate, _ALL),
    "session_heartbeat": (_not_here, _ALL),
    "speaker_labels": (_boolean, _NOT_WHISPER),
    "speaker_labels_revision_interval_ms": (_whole(0), _NOT_WHISPER),
    "speech_model": (_one_of(*sorted(_ALL)), _ALL),
    "token": (_text, _ALL),
    "turn_left_pad_ms": (_whole(0), _UNIVERSAL_3),
    "vad_threshold": (_share, _ALL),
    "voice_focus": (_one_of("near-field", "far-field"), _UNIVERSAL_3),
    "voice_focus_threshold": (_share, _UNIVERSAL_3),
    "webhook_auth_header_name": (_not_here, _ALL),
    "webhook_auth_header_value": (_not_here, _ALL),
    "webhook_url": (_not_here, _ALL),
}

_CHANGEABLE: Final = frozenset(
    [
        *("end_of_turn_confidence_threshold", "min_turn_silence", "max_turn_silence", "prompt", "keyterms_prompt"),
        # The rest is the SDK's:
        *("vad_threshold", "format_turns", "filter_profanity", "agent_context", "interruption_delay"),
        *("turn_left_pad_ms", "language_codes", "acknowledge_silence"),
    ]
)

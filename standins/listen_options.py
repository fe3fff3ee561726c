"""What a client asks of Deepgram's live endpoint in the query of its URL, checked as the documentation says.

Parameters and values: https://developers.deepgram.com/reference/listen-live and the published specification
(github.com/deepgram/deepgram-api-specs, asyncapi.yml). Where this stand-in is narrower than Deepgram, because it
cannot do what is asked, it says "here".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

CHANNELS_AT_MOST: Final = 20
KEYTERM_TOKENS_AT_MOST: Final = 500
TAG_AT_MOST: Final = 128  # characters
EXTRA_AT_MOST: Final = 2048  # characters
UTTERANCE_END_AT_LEAST_MS: Final = 1000  # interims come once a second, and it is them that are watched
CALLBACK_PORTS: Final = frozenset({80, 443, 8080, 8443})
PARAMETERS_AT_MOST: Final = 1000  # ours: nobody asks for so many

_MODELS: Final = frozenset(
    name if variant is None else f"{name}-{variant}"
    for name, variants in {
        "nova-3": ("general", "medical"),
        "nova-2": (
            *("general", "meeting", "phonecall", "finance", "conversationalai", "voicemail", "video"),
            *("medical", "drivethru", "automotive"),
        ),
        "nova": ("general", "phonecall", "medical"),
        "enhanced": ("general", "meeting", "phonecall", "finance"),
        "base": ("general",),
        "meeting": (),
        "phonecall": (),
        "finance": (),
        "conversationalai": (),
        "voicemail": (),
        "video": (),
    }.items()
    for variant in (None, *variants)
)
_CUSTOM_MODEL: Final = re.compile(r"custom|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DEFAULT_MODEL: Final = "base-general"
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|\d{3}))?")  # BCP 47, the usual part
_ENCODINGS: Final = frozenset(
    ("linear16", "linear32", "flac", "alaw", "mulaw", "amr-nb", "amr-wb", "opus", "ogg-opus", "speex", "g729")
)
_BYTES_A_SAMPLE: Final = {"mulaw": 1, "linear16": 2}
_SAMPLE_RATE: Final = 8000
_KEYWORD: Final = re.compile(r"[^:]+(:-?\d+(\.\d+)?)?")


class BadQuery(Exception):
    """The query breaks a rule; the message names the parameter and the rule, on one line of ASCII."""


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """A query that broke no rule."""

    model: str = _DEFAULT_MODEL
    encoding: str = "mulaw"
    channels: int = 1
    multichannel: bool = False
    interim_results: bool = False
    vad_events: bool = False
    utterance_end_ms: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # everything, as it was asked

    @property
    def voices(self) -> int:
        """How many channels are transcribed: all of them, or one mix."""
        return self.channels if self.multichannel else 1

    @property
    def bytes_a_sample(self) -> int:
        """Of one channel."""
        return _BYTES_A_SAMPLE[self.encoding]

    @property
    def bytes_a_ms(self) -> int:
        """Of all channels."""
        return _SAMPLE_RATE // 1000 * self.bytes_a_sample * self.channels

    @classmethod
    def parse(cls, query: str) -> ListenOptions:
        """The options a query asks for, or `BadQuery`."""
        given = _collect(query)
        for name, values in given.items():
            _check(name, values)
        for broken, rule in _TOGETHER:
            if broken(given):
                raise BadQuery(rule)
        return cls(
            model=_only(given, "model", _DEFAULT_MODEL),
            encoding=_only(given, "encoding", "mulaw"),
            channels=int(_only(given, "channels", "1")),
            multichannel=_is_on(given, "multichannel"),
            interim_results=_is_on(given, "interim_results"),
            vad_events=_is_on(given, "vad_events"),
            utterance_end_ms=int(given["utterance_end_ms"][0]) if "utterance_end_ms" in given else None,
            extra=dict(pair.split(":", 1) for pair in given.get("extra", ())),
            given=given,
        )


Given = Mapping[str, tuple[str, ...]]


def _collect(query: str) -> dict[str, tuple[str, ...]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_AT_MOST, errors="strict")
    except ValueError as error:
        raise BadQuery("the query is not readable") from error
    given: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        given[name] = (*given.get(name, ()), value)
    return given


def _check(name: str, values: tuple[str, ...]) -> None:
    rule = _RULES.get(name)
    if rule is None:
        raise BadQuery(f"unknown parameter {name!a}")  # it will stand in a header, and may hold anything
    if len(values) > 1 and name not in _REPEATABLE:
        raise BadQuery(f"{name} may be given only once")
    for value in values:
        if complaint := rule(value):
            raise BadQuery(f"{name} {complaint}")


def _only(given: Given, name: str, default: str) -> str:
    return given.get(name, (default,))[0]


def _is_on(given: Given, name: str) -> bool:
    return _only(given, name, "false") == "true"


# --- Each parameter by itself: what is wrong with its value, or nothing ------------------------------------

Rule = Callable[[str], str | None]


def _boolean(value: str) -> str | None:
    return None if value in {"true", "false"} else "must be true or false"


def _one_of(*choices: str) -> Rule:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def _whole_number(least: int, most: int = 1_000_000) -> Rule:
    def rule(value: str) -> str | None:
        fits = value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most
        return None if fits else f"must be a whole number from {least} to {most}"

    return rule


def _matching(pattern: re.Pattern[str], meaning: str) -> Rule:
    return lambda value: None if pattern.fullmatch(value) else f"must be {meaning}"


def _model(value: str) -> str | None:
    return None if value in _MODELS or _CUSTOM_MODEL.fullmatch(value) else "is not the name of a model"


def _language(value: str) -> str | None:
    return None if value == "multi" or _LANGUAGE.fullmatch(value) else "must be a BCP 47 tag or multi"


def _endpointing(value: str) -> str | None:
    return None if value == "false" or not _whole_number(0)(value) else "must be milliseconds or false"


def _sample_rate(value: str) -> str | None:
    return _whole_number(1)(value) or (None if int(value) == _SAMPLE_RATE else f"must be {_SAMPLE_RATE} here")


def _encoding(value: str) -> str | None:
    if value not in _ENCODINGS:
        return "is not the name of an encoding"
    return None if value in _BYTES_A_SAMPLE else f"must be {' or '.join(_BYTES_A_SAMPLE)} here"


def _tag(value: str) -> str | None:
    return None if len(value) <= TAG_AT_MOST else f"must not exceed {TAG_AT_MOST} characters"


def _extra(value: str) -> str | None:
    if ":" not in value:
        return "must be key:value"
    return None if len(value) <= EXTRA_AT_MOST else f"must not exceed {EXTRA_AT_MOST} characters"


def _callback(value: str) -> str | None:
    try:
        url = urlsplit(value)
        port = url.port or (80 if url.scheme in {"http", "ws"} else 443)
    except ValueError:
        return "must be a URL"
    if url.scheme not in {"http", "https", "ws", "wss"} or not url.hostname or port not in CALLBACK_PORTS:
        return "must be a URL of http, https, ws or wss, on port 80, 443, 8080 or 8443"
    return "is not served here"


def _text(value: str) -> str | None:
    return None if value else "must not be empty"


_REPEATABLE: Final = frozenset(["extra", "keyterm", "keywords", "language_hint", "redact", "replace", "search", "tag"])

_RULES: Final[Mapping[str, Rule]] = {
    "callback": _callback,
    "callback_method": _one_of("POST", "GET", "PUT", "DELETE"),
    "channels": _whole_number(1, CHANNELS_AT_MOST),
    "detect_entities": _boolean,
    "diarize": _boolean,
    "diarize_model": _one_of("latest", "v1"),  # v2 is for recordings only
    "dictation": _boolean,
    "encoding": _encoding,
    "endpointing": _endpointing,
    "extra": _extra,
    "filler_words": _boolean,
    "interim_results": _boolean,
    "keyterm": _text,
    "keywords": _matching(_KEYWORD, "word or word:boost"),
    "language": _language,
    "language_hint": _language,
    "mip_opt_out": _boolean,
    "model": _model,
    "multichannel": _boolean,
    "no_delay": _boolean,
    "numerals": _boolean,
    "profanity_filter": _boolean,
    "punctuate": _boolean,
    "redact": _one_of("true", "false", "pci", "numbers", "aggressive_numbers", "ssn"),
    "replace": _matching(re.compile(r"[^:]+(:.*)?"), "find:replace"),
    "sample_rate": _sample_rate,
    "search": _text,
    "smart_format": _boolean,
    "tag": _tag,
    "utterance_end_ms": _whole_number(UTTERANCE_END_AT_LEAST_MS),
    "vad_events": _boolean,
    "version": _text,
}


# --- Parameters that need or exclude each other ------------------------------------------------------------


def keyterm_tokens(terms: tuple[str, ...]) -> int:
    """About how many tokens the terms are: Deepgram does not publish its tokens, so words are counted."""
    return sum(len(term.split()) for term in terms)


def takes_keyterms(model: str) -> bool:
    """Whether a model knows `keyterm`, which has replaced `keywords`: only Nova-3 does."""
    return model.startswith("nova-3")


def _model_of(given: Given) -> str:
    return _only(given, "model", _DEFAULT_MODEL)


_TOGETHER: Final[tuple[tuple[Callable[[Given], bool], str], ...]] = (
    (lambda given: "encoding" in given and "sample_rate" not in given, "encoding needs sample_rate"),
    (lambda given: "channels" in given and "encoding" not in given, "channels needs encoding"),
    (
        lambda given: "encoding" not in given,
        f"encoding must be {' or '.join(_BYTES_A_SAMPLE)} here: files in a container are not read",
    ),
    (
        lambda given: "utterance_end_ms" in given and not _is_on(given, "interim_results"),
        "utterance_end_ms needs interim_results=true",
    ),
    (
        lambda given: _is_on(given, "dictation") and not _is_on(given, "punctuate"),
        "dictation needs punctuate=true",
    ),
    (
        lambda given: "keyterm" in given and not takes_keyterms(_model_of(given)),
        "keyterm needs a nova-3 model",
    ),
    (
        lambda given: "keywords" in given and takes_keyterms(_model_of(given)),
        "keywords is not for nova-3: use keyterm",
    ),
    (
        lambda given: keyterm_tokens(given.get("keyterm", ())) > KEYTERM_TOKENS_AT_MOST,
        f"keyterm must not exceed {KEYTERM_TOKENS_AT_MOST} tokens in all",
    ),
    (
        lambda given: _only(given, "language", "") == "multi" and not _model_of(given).startswith(("nova-3", "nova-2")),
        "language=multi needs a nova-3 or nova-2 model",
    ),
)

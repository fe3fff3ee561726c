"""What a client asks of Flux, in the query of its URL and later in a `Configure`, checked as the documentation says.

Parameters and values, below https://developers.deepgram.com: /reference/speech-to-text/listen-flux,
/docs/flux/configuration and /docs/flux/language-prompting. Where this stand-in is narrower than Flux, because it cannot
do what is asked, it says "here".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl

from standins.listen_options import KEYTERM_TOKENS_AT_MOST, TAG_AT_MOST, BadQuery, keyterm_tokens

__all__ = ["BadQuery", "FluxOptions"]

KEYTERMS_AT_MOST: Final = 100
KEYTERM_AT_MOST: Final = 100  # characters: https://github.com/deepgram/deepgram-python-sdk/issues/616
PARAMETERS_AT_MOST: Final = 1000  # ours: nobody asks for so many

_ENGLISH: Final = "flux-general-en"
_MULTILINGUAL: Final = "flux-general-multi"
_LANGUAGES: Final = ("en", "es", "fr", "de", "hi", "ru", "pt", "ja", "it", "nl")
_BYTES_A_SAMPLE: Final = {"mulaw": 1, "linear16": 2}
_SAMPLE_RATE: Final = 8000
_THRESHOLDS: Final = ("eot_threshold", "eager_eot_threshold", "eot_timeout_ms")


@dataclass(frozen=True, slots=True)
class FluxOptions:
    """What a client has asked for that breaks no rule. Audio is of one channel."""

    model: str
    encoding: str = "mulaw"
    eot_threshold: float = 0.7
    eager_eot_threshold: float | None = None
    eot_timeout_ms: int = 5000
    keyterms: tuple[str, ...] = ()
    language_hints: tuple[str, ...] = ()
    numerals: bool = False
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # everything, as it was asked at first
    channels: int = field(default=1, init=False)
    voices: int = field(default=1, init=False)
    utterance_end_ms: int | None = field(default=None, init=False)

    @property
    def bytes_a_sample(self) -> int:
        """Of its one channel."""
        return _BYTES_A_SAMPLE[self.encoding]

    @property
    def bytes_a_ms(self) -> int:
        """Of its one channel."""
        return _SAMPLE_RATE // 1000 * self.bytes_a_sample

    @property
    def is_multilingual(self) -> bool:
        """Whether the model hears languages other than English."""
        return self.model == _MULTILINGUAL

    @classmethod
    def parse(cls, query: str) -> FluxOptions:
        """The options a query asks for, or `BadQuery`."""
        given = _collect(query)
        for name, values in given.items():
            _check(name, values)
        for name in ("model", "encoding", "sample_rate"):
            if name not in given:
                raise BadQuery(f"{name} must be given" if name == "model" else f"{name} must be given here")
        eager = given.get("eager_eot_threshold")
        options = cls(
            model=given["model"][0],
            encoding=given["encoding"][0],
            eot_threshold=float(given.get("eot_threshold", ("0.7",))[0]),
            eager_eot_threshold=float(eager[0]) if eager else None,
            eot_timeout_ms=int(given.get("eot_timeout_ms", ("5000",))[0]),
            keyterms=given.get("keyterm", ()),
            language_hints=given.get("language_hint", ()),
            numerals=given.get("numerals") == ("true",),
            given=given,
        )
        options.check_together()
        return options

    def check_together(self) -> None:
        """Raises `BadQuery` for values that do not go with one another."""
        if self.eager_eot_threshold is not None and self.eager_eot_threshold > self.eot_threshold:
            raise BadQuery("eager_eot_threshold must not exceed eot_threshold")
        if self.language_hints and not self.is_multilingual:
            raise BadQuery(f"language_hint needs {_MULTILINGUAL}")
        if len(self.keyterms) > KEYTERMS_AT_MOST:
            raise BadQuery(f"keyterm may be given {KEYTERMS_AT_MOST} times")
        if keyterm_tokens(self.keyterms) > KEYTERM_TOKENS_AT_MOST:
            raise BadQuery(f"keyterm must not exceed {KEYTERM_TOKENS_AT_MOST} tokens in all")

    def configured(self, wanted: Mapping[str, Any]) -> FluxOptions:
        """The same with what a `Configure` changes, or `BadQuery`. A list replaces the one before it."""
        thresholds = wanted.get("thresholds") or {}
        if not isinstance(thresholds, dict):
            raise BadQuery("thresholds must be an object")
        changes: dict[str, Any] = {name: _threshold(name, value) for name, value in thresholds.items()}
        for name, query_name in (("keyterms", "keyterm"), ("language_hints", "language_hint")):
            if wanted.get(name) is not None:
                changes[name] = _texts(query_name, wanted[name])
        if wanted.get("numerals") is not None:
            if not isinstance(wanted["numerals"], bool):
                raise BadQuery("numerals must be true or false")
            changes["numerals"] = wanted["numerals"]
        options = replace(self, **changes)
        options.check_together()
        return options


def _threshold(name: str, value: object) -> float:
    """A number of a `Configure`, if it would do in a query too."""
    if name not in _THRESHOLDS or not isinstance(value, int | float):
        raise BadQuery(f"{name!a} is not a threshold, or no number")
    _check(name, (str(value),))
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadQuery(f"{name}s must be a text, or a list of them")
    _check(name, tuple(texts))
    return tuple(texts)


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


# --- Each parameter by itself: what is wrong with its value, or nothing ------------------------------------

Rule = Callable[[str], str | None]


def _one_of(*choices: str, here: str = "") -> Rule:
    return lambda value: None if value in choices else f"must be {' or '.join(choices)}{here}"


def _number(least: float, most: float) -> Rule:
    def rule(value: str) -> str | None:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        return None if least <= number <= most else f"must be a number from {least:g} to {most:g}"

    return rule


def _whole_number(least: int, most: int) -> Rule:
    def rule(value: str) -> str | None:
        fits = value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most
        return None if fits else f"must be a whole number from {least} to {most}"

    return rule


def _text(most: int) -> Rule:
    return lambda value: None if 0 < len(value) <= most else f"must not be empty, nor exceed {most} characters"


def _language(value: str) -> str | None:
    """A subtag such as that of en-GB is taken, and has no meaning."""
    return None if value.partition("-")[0] in _LANGUAGES else f"must be one of {', '.join(_LANGUAGES)}"


_REPEATABLE: Final = frozenset(["keyterm", "language_hint", "tag"])

_BOOLEAN: Final = _one_of("true", "false")

_RULES: Final[Mapping[str, Rule]] = {
    "eager_eot_threshold": _number(0.3, 0.9),
    "encoding": _one_of(*_BYTES_A_SAMPLE, here=" here"),
    "eot_threshold": _number(0.5, 1.0),
    "eot_timeout_ms": _whole_number(500, 60_000),
    "keyterm": _text(KEYTERM_AT_MOST),
    "language_hint": _language,
    "mip_opt_out": _BOOLEAN,
    "model": _one_of(_ENGLISH, _MULTILINGUAL),
    "numerals": _BOOLEAN,
    "profanity_filter": _BOOLEAN,
    "redact": _one_of("numbers", "aggressive_numbers"),
    "sample_rate": _one_of(str(_SAMPLE_RATE), here=" here"),
    "tag": _text(TAG_AT_MOST),
}

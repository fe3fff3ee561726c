"""Values in a speech service's answers; one that is not what it should be raises ValueError or TypeError. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from relay.events import Word

LONGEST_S: Final = 1_000_000  # of a session, eleven days: what is beyond that is no time of a call


def as_text(value: object) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError("a text that is none")
    return value


def seconds_as_ms(value: float) -> int:
    """Seconds into a session, as milliseconds."""
    if not 0 <= value <= LONGEST_S:
        raise ValueError("a time that is none")
    return round(value * 1000)


def as_ms(value: float) -> int:
    """Milliseconds into a session."""
    return seconds_as_ms(value / 1000)


def confidence(said: Mapping[str, Any]) -> float:
    """How sure the service is of a word or an utterance; 0 where it does not say."""
    return float(said.get("confidence") or 0)


def mean_confidence(words: Sequence[Word]) -> float:
    """How sure it is of several words."""
    return sum(word.confidence for word in words) / len(words) if words else 0.0


def json_object(body: bytes | str) -> dict[str, Any]:
    """The JSON object in an HTTP body; an empty one if there is none."""
    try:
        said = orjson.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def first_text(said: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that holds a text; an empty one if none does."""
    return next((said[name] for name in names if isinstance(said.get(name), str) and said[name]), "")

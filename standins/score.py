"""How well a transcript agrees with the text that was spoken."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from relay.errors import RelayError
from relay.events import Track


class TextError(RelayError):
    """The text beside a recording cannot be read."""


def words_of(text: str) -> list[str]:
    """The words alone, without case and punctuation."""
    return re.findall(r"[\w']+", text.lower())


def word_errors(spoken: Sequence[str], heard: Sequence[str]) -> int:
    """How many words were changed, left out or added: the least number of such edits (Levenshtein)."""
    errors = list(range(len(heard) + 1))
    for row, word in enumerate(spoken, 1):
        diagonal, errors[0] = errors[0], row
        for column, candidate in enumerate(heard, 1):
            edits = min(errors[column] + 1, errors[column - 1] + 1, diagonal + (word != candidate))
            diagonal, errors[column] = errors[column], edits
    return errors[-1]


def spoken_words(recording: Path) -> Mapping[Track, list[str]] | None:
    """The words spoken on each track, from the JSON beside a recording; None where there is none.

    Its form is that of `order-status-call.json`: a list `segments` of objects with `track` and `text`.
    """
    path = recording.with_suffix(".json")
    if not path.is_file():
        return None
    try:
        segments = json.loads(path.read_bytes())["segments"]
        words: dict[Track, list[str]] = {track: [] for track in Track}
        for segment in segments:
            words[Track(segment["track"])] += words_of(segment["text"])
    except (ValueError, KeyError, TypeError):
        raise TextError(
            f"{path} is not the text of a recording; move it away, or give it segments of track and text."
        ) from None
    return words

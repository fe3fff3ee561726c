"""What is looked for: words, phrases and beginnings of words in what was said, and where a text has them; and numbers
of callers. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from relay.store.records import Part
from relay.store.telling import storable

SNIPPET: Final = 200  # characters of a text that are shown around what was found
BEFORE: Final = 60  # characters of these, at most, before the first match

LONGEST_QUERY: Final = 500  # characters; each word costs time
SHORTEST_BEGINNING: Final = 2  # letters; with one, half of all words begin
LONGEST_WORD: Final = 250  # characters that count; PostgreSQL takes no more than 2046 bytes

_WORD: Final = re.compile(r"[^\W_][^ ]*")
# Accents, and what only changes how a character looks, as of an emoji's 5.
_ACCENTS: Final = re.compile("[\u0300-\u036f\u20d0-\u20ff\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_DIALLED: Final = re.compile(r"[+0-9]+")
_BETWEEN_DIGITS: Final = re.compile(r"[\s().\-/\u2010-\u2015\u200e\u202a-\u202e\u2066-\u2069]")  # also copied marks
_TERM: Final = re.compile(r'"([^"]*)(?:"(\*)?|$)|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Term:
    """Words that follow one another; the last may be the beginning of one."""

    words: tuple[str, ...]
    is_prefix: bool = False


def terms(query: str) -> tuple[Term, ...]:
    """What all must be found, of what someone typed. Total: any text is read, and none of its signs means more than a
    quotation mark around words or a star behind them."""
    found = []
    for phrase, star, word in _TERM.findall(storable(query, LONGEST_QUERY)):
        if words := words_of(phrase or word):
            is_prefix = bool(star) or word.endswith("*")
            found.append(Term(words, is_prefix and len(words[-1]) >= SHORTEST_BEGINNING))
    return tuple(found)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in their plainest letters, as both databases' indexes have them: so both find the same."""
    return tuple(word for _, _, word in _words_at(text))


def dialled(written: str) -> str:
    """A telephone number, or a part of one, without what people write between digits. Other names stay as they are."""
    digits = _BETWEEN_DIGITS.sub("", written)
    return digits if _DIALLED.fullmatch(digits) else written


def snippet(text: str, wanted: Sequence[Term]) -> tuple[Part, ...]:
    """The part of the text that shows the first of what was looked for, in pieces."""
    matches = list(_matches(text, wanted))
    start, end = _window(text, matches[0][0] if matches else 0)
    parts, at = [], start
    if start:
        parts.append(Part("…"))
    for match_start, match_end in matches:
        if match_start >= at and match_end <= end:
            parts += [Part(text[at:match_start]), Part(text[match_start:match_end], True)]
            at = match_end
    parts += [Part(text[at:end]), Part("…" if end < len(text) else "")]
    return tuple(part for part in parts if part.text)


def _matches(text: str, wanted: Sequence[Term]) -> Iterator[tuple[int, int]]:
    """From where to where the text has what was looked for, in order."""
    words = list(_words_at(text))
    for index, (start, _, _) in enumerate(words):
        for term in wanted:
            here = words[index : index + len(term.words)]
            if _is(term.words, [word for _, _, word in here], term.is_prefix):
                yield start, here[-1][1]
                break


def _is(term: tuple[str, ...], words: list[str], is_prefix: bool) -> bool:
    if len(words) < len(term) or (*words[:-1],) != term[:-1]:
        return False
    return words[-1].startswith(term[-1]) if is_prefix else words[-1] == term[-1]


def _words_at(text: str) -> Iterator[tuple[int, int, str]]:
    """From where to where there are words, and which."""
    for match in _WORD.finditer(text.translate(_SPACED)):
        yield match.start(), match.end(), _plain(match.group())


def _plain(word: str) -> str:
    if not word.isascii():
        plain = _ACCENTS.sub("", unicodedata.normalize("NFD", word.casefold()))
        return unicodedata.normalize("NFC", plain)[:LONGEST_WORD]
    return word.lower()[:LONGEST_WORD]


class _Spaced(dict[int, str]):
    """A blank for each character that is no letter, number or mark on one; each is looked up once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if unicodedata.category(character)[0] in "LNM" else " "
        return self[code]


_SPACED: Final = _Spaced()


def _window(text: str, match: int) -> tuple[int, int]:
    """What of the text is shown, cut between words where there is a blank to cut at."""
    if len(text) <= SNIPPET:
        return 0, len(text)
    start = max(0, min(match - BEFORE, len(text) - SNIPPET))
    if start:
        start = text.find(" ", start, match) + 1 or start
    end = start + SNIPPET
    if end < len(text):
        blank = text.rfind(" ", match, end)
        end = blank if blank > match else end
    return start, min(end, len(text))

"""What a request may ask for: its parameters as data, read strictly and described from the same place. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest

from relay.settings import one_of, whole
from relay.store.query import dialled

Schema = dict[str, Any]  # JSON Schema

LONGEST_SID: Final = 200  # characters, as the store has it; Twilio's have 34
LONGEST_NAME: Final = 20  # of a speaker
LONGEST_WORDS: Final = 200
LARGEST_ID: Final = 10**18  # an id has 64 bits and a sign in both databases

_LINE: Final = re.compile(r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
_CURSOR: Final = re.compile(r"^[0-9]{1,18}(\.[0-9]{1,18})?$")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `read` makes a value of its text, or raises ValueError with what it should be."""

    name: str
    about: str
    schema: Schema
    read: Callable[[str], Any]
    required: bool = False
    place: str = "query"

    def described(self) -> dict[str, Any]:
        """The parameter in OpenAPI's words."""
        return {
            "name": self.name,
            "in": self.place,
            "description": self.about,
            "required": self.required,
            "schema": self.schema,
        }


def read_query(given: MultiDict[str, str], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The values of the parameters that were given. Raises BadRequest with one sentence for all that is wrong."""
    known = {parameter.name: parameter for parameter in parameters if parameter.place == "query"}
    for name, texts in given.lists():
        if name not in known:
            names = ", ".join(known) or "none"
            raise BadRequest(f"There is no parameter of the name {name!r} here; there are: {names}.")
        if len(texts) > 1:
            raise BadRequest(f"{name} should be given once.")
    for parameter in known.values():
        if parameter.required and parameter.name not in given:
            raise BadRequest(f"{parameter.name} should be given: {parameter.about}")
    return {name: read_one(known[name], text) for name, text in given.items()}


def read_one(parameter: Parameter, text: str) -> Any:
    """The value of one parameter. Raises BadRequest."""
    try:
        return parameter.read(text)
    except ValueError as wrong:
        raise BadRequest(f"{parameter.name} should be {wrong}.") from None


# --- What a parameter's text may be -------------------------------------------------------------------------


def choice(name: str, about: str, *choices: str) -> Parameter:
    """One of some words."""
    return Parameter(name, about, {"type": "string", "enum": list(choices)}, one_of(*choices))


def number(name: str, about: str, least: int, most: int, **more: Any) -> Parameter:
    """A whole number."""
    return Parameter(name, about, {"type": "integer", "minimum": least, "maximum": most}, whole(least, most), **more)


def line(name: str, about: str, most: int, **more: Any) -> Parameter:
    """Text on one line, and not only blanks; blanks around it do not count."""
    schema = {"type": "string", "maxLength": most, "pattern": _LINE.pattern}

    def read_line(text: str) -> str:
        if len(text) > most or not _LINE.fullmatch(text):
            raise ValueError(f"text on one line, of at most {most} characters")
        return text.strip()

    return Parameter(name, about, schema, read_line, **more)


def phone(name: str, about: str, most: int) -> Parameter:
    """A part of a telephone number, or of another name."""
    plain = line(name, about, most)
    return replace(plain, read=lambda text: dialled(plain.read(text)))


def cursor(name: str, about: str) -> Parameter:
    """The end of a page, as the answer with that page said it."""

    def read_cursor(text: str) -> str:
        if not _CURSOR.fullmatch(text):
            raise ValueError("what an earlier answer gave as `next`")
        return text

    return Parameter(name, about, {"type": "string", "pattern": _CURSOR.pattern}, read_cursor)


def moment(name: str, about: str) -> Parameter:
    """A time, given as ISO 8601 and read as milliseconds since 1970."""
    return Parameter(name, about, {"type": "string", "format": "date-time"}, read_moment)


def read_moment(text: str) -> int:
    """Milliseconds since 1970. A time without a zone is UTC."""
    try:
        read = datetime.fromisoformat(text)
        return round((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError("a time as in 2026-11-21T09:55:44Z (in a URL, write + as %2B)") from None

"""Settings: from environment variables to one frozen value, or one sentence of refusal.

A settings class is a frozen dataclass whose every field is declared with `setting(...)`: the variable's name, its
default and what it means. `read` fills it from a mapping; nothing else in the program looks at the environment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from relay.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: how its text is read and what is said of it in `.env.example`."""

    name: str
    default: Any
    read: Callable[[str], Any]
    about: str
    also: str | None = None  # another name it goes by


def setting(
    name: str, default: Any, read: Callable[[str], Any], about: str, *, secret: bool = False, also: str | None = None
) -> Any:
    """A field of a settings class, filled from the variable `name`. `read` raises ValueError with what it should be."""
    variable = Variable(name, default, read, about, also)
    return dataclasses.field(default=default, repr=not secret, metadata={"variable": variable})


def variables(kind: type) -> list[Variable]:
    """The variables a settings class reads, in order."""
    return [field.metadata["variable"] for field in dataclasses.fields(kind)]


def read(kind: type[T], environ: Mapping[str, str]) -> T:
    """The settings as the environment has them. Raises SettingsError with one sentence that names the variable."""
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        variable: Variable = field.metadata["variable"]
        name = variable.name
        if not environ.get(name, "").strip() and variable.also is not None:
            name = variable.also
        if text := environ.get(name, "").strip():
            try:
                values[field.name] = variable.read(text)
            except ValueError as wrong:
                raise SettingsError(f"{name} should be {wrong}.") from None
    return kind(**values)


# --- What a variable's text may be --------------------------------------------------------------------------


def text(value: str) -> str:
    """Any text on one line."""
    if not value.isprintable():
        raise ValueError("text on one line")
    return value


def words(value: str) -> tuple[str, ...]:
    """Texts between commas."""
    return tuple(word.strip() for word in text(value).split(",") if word.strip())


def switch(value: str) -> bool:
    """Yes or no."""
    answer = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if value.lower() not in answer:
        raise ValueError(f"true or false, not {value!r}")
    return answer[value.lower()]


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number between two others."""

    def read_whole(value: str) -> int:
        if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
            raise ValueError(f"a whole number from {least} to {most}, not {value!r}")
        return int(value)

    return read_whole


def decimal(least: float, most: float) -> Callable[[str], float]:
    """A number between two others."""

    def read_decimal(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise ValueError(f"a number from {least:g} to {most:g}, not {value!r}")
        return number

    return read_decimal


def address(*schemes: str) -> Callable[[str], str]:
    """A URL with a host and one of these schemes; a slash at its end is cut."""

    def read_address(value: str) -> str:
        try:
            url = urlsplit(value)
            usable = url.scheme in schemes and url.hostname and url.port != 0 and not url.query and not url.fragment
        except ValueError:
            usable = False
        if not usable or not value.isprintable() or " " in value:
            raise ValueError(
                f"a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}, not {value!r}"
            )
        return value.rstrip("/")

    return read_address


def some_of(*choices: str) -> Callable[[str], tuple[str, ...]]:
    """Some words of a choice, with commas between, none of them twice."""

    def read_choices(value: str) -> tuple[str, ...]:
        if not set(words(value)) <= set(choices) or len(set(words(value))) < len(words(value)):
            raise ValueError(f"some of {', '.join(choices)}, with commas between and none twice, not {value!r}")
        return words(value)

    return read_choices


def one_of(*choices: str) -> Callable[[str], str]:
    """One of some words."""

    def read_choice(value: str) -> str:
        if value not in choices:
            raise ValueError(f"{', '.join(choices[:-1])} or {choices[-1]}, not {value!r}")
        return value

    return read_choice


def _database(value: str) -> str | None:
    if value == "none":
        return None
    if not value.startswith(("sqlite:///", "postgresql://", "postgres://")) or not value.isprintable():
        raise ValueError("sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME or none")
    return value


# --- The relay's own settings -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """What the relay itself is told, whichever service it talks to."""

    port: int = setting(
        "PORT",
        5001,
        whole(0, 65535),
        "Where we listen; 0 takes any free port. HTTP_PORT is read too.",
        also="HTTP_PORT",
    )
    host: str = setting(
        "LISTEN_ON",
        "127.0.0.1",
        text,
        "The address we listen on. 0.0.0.0 lets other machines in, as a container needs.",
    )
    workers: int = setting(
        "WORKERS",
        1,
        whole(1, 64),
        "How many processes answer calls, each on a core of its own. More than 1 needs Linux.",
    )
    public_url: str | None = setting(
        "PUBLIC_URL",
        None,
        address("https", "http"),
        "How the world reaches us (your tunnel's https address): /twiml and Twilio's signatures go by it. "
        "`python app.py doctor` tries it and prints the TwiML.",
    )
    tracks: str = setting(
        "CALL_TRACKS",
        "together",
        one_of("together", "apart"),
        "Both sides of a call on one connection to the service (together), or on one each (apart).",
    )
    chunk_ms: int = setting(
        "AUDIO_CHUNK_MS",
        100,
        whole(20, 250),
        "How much audio goes into one message to the service. Less adds less delay and costs more CPU.",
    )
    replay_s: int = setting(
        "REPLAY_SECONDS",
        60,
        whole(5, 600),
        "How much audio is kept for when the service's connection is lost. What exceeds it is counted and named.",
    )
    service_silence_s: int = setting(
        "SERVICE_SILENCE_SECONDS",
        10,
        whole(3, 120),
        "A service that takes audio and answers nothing for so long is connected to anew.",
    )
    media_silence_s: int = setting(
        "MEDIA_SILENCE_SECONDS",
        30,
        whole(2, 3600),
        "A stream on which Twilio sends nothing for so long is over: behind a tunnel its end may never be told.",
    )
    database_url: str | None = setting(
        "DATABASE_URL",
        "sqlite:///data/calls.db",
        _database,
        "Where calls are kept: a file of SQLite's, or postgresql://USER:PASSWORD@HOST/NAME. none: they are not.",
        secret=True,
    )
    keep_days: int | None = setting(
        "KEEP_DAYS", None, whole(1, 36_500), "After so many days a call is deleted, with all that belongs to it."
    )
    record: str = setting(
        "RECORD", "off", one_of("off", "wav"), "Record calls, both sides, as WAV files: off or wav. Ask before you do."
    )
    recordings_folder: str = setting("RECORDINGS_FOLDER", "data/recordings", text, "Where recordings are kept.")
    results_folder: str = setting(
        "RESULTS_FOLDER",
        "data/results",
        text,
        "Where the JSON is kept that a service gives of a whole call after its end. It holds what was said.",
    )
    access_folder: str = setting(
        "ACCESS_FOLDER",
        "data/access",
        text,
        "Where the key lies that signs cookies, links and tokens, and what they are for. Keep it to yourself.",
    )
    trusted_proxies: int = setting(
        "TRUSTED_PROXIES",
        0,
        whole(0, 10),
        "How many proxies stand before us whose word counts on who asks, and how (X-Forwarded-For, -Proto). 0: none.",
    )
    verbose: bool = setting("VERBOSE", False, switch, "Tell more: counts of media messages, pauses, ignored messages.")

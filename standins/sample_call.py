"""The demo call, a process of its own: a speech service on this machine, and the sample call, streamed to a server.

Whoever starts it says on standard input, in a line of JSON, where to (see `Order`), and ends it by closing that. It
answers with a line of JSON on standard output: {"why_not": ""} once the call's audio flows, or why it cannot.
"""
# ruff: noqa: E402  # gevent patches the standard library before anything else is imported

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gevent
import orjson
from gevent.fileobject import FileObject
from greenlet import greenlet

from relay.errors import RelayError
from standins.deepgram import ListenServer
from standins.demo import LAST_WORDS_WITHIN, SAMPLE_CALL
from standins.recognizer import NotInstalled, Recognizer
from standins.simulation import simulate
from standins.wav import read

if sys.platform != "win32":
    import fcntl

LAST_WORDS_IN_HASTE: Final = 5.0  # seconds, when it is ended in the middle of the call
RUNS_ALREADY: Final = "A demo call runs already; there is one at a time."


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be called, and how."""

    url: str  # of the media socket
    headers: dict[str, str]  # of its upgrade
    call_sid: str
    parameters: dict[str, str]  # of the stream
    note: str  # the file in which the speech service's address is written while the call runs


class Ended(BaseException):
    """We were told to end."""


def main() -> None:
    """Plays the call, once."""
    told = FileObject(sys.stdin.fileno(), "rb", close=False)
    order = Order(**orjson.loads(told.readline()))
    gevent.spawn(_end_with, told, gevent.getcurrent())
    try:
        with suppress(Ended), _alone(Path(order.note)) as note:
            _play(order, note)
    except (RelayError, NotInstalled, OSError, ImportError) as trouble:
        _answer(str(trouble))


def _end_with(told: Any, playing: greenlet) -> None:
    told.read()
    gevent.kill(playing, Ended)


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """The note, if no other process has it; the system lets go of it for one that was killed."""
    note = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform != "win32":
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RelayError(RUNS_ALREADY) from None
    try:
        yield note
    finally:
        os.close(note)


def _play(order: Order, note: int) -> None:
    audio = read(SAMPLE_CALL)
    with ListenServer(ear=Recognizer()) as speech:
        _write(note, {"call_sid": order.call_sid, "url": speech.url})
        last_words_within = LAST_WORDS_IN_HASTE
        try:
            report = simulate(
                order.url,
                audio,
                parameters=order.parameters,
                call_sid=order.call_sid,
                headers=order.headers,
                on_progress=_Begun().tell,
            )
            last_words_within = LAST_WORDS_WITHIN
            if not report.went_well:
                raise RelayError(f"The demo call failed: {report.calls[0].detail}.")
        finally:
            with suppress(TimeoutError):
                speech.wait_for(lambda: all(each.is_over for each in speech.connections), within=last_words_within)
            _write(note, {})


class _Begun:
    """Answers once, when the first audio has gone."""

    def __init__(self) -> None:
        self._is_told = False

    def tell(self, played: float) -> None:
        """So much of the call has been played."""
        if 0 < played < 1 and not self._is_told:
            self._is_told = True
            _answer("")


def _answer(why_not: str) -> None:
    sys.stdout.buffer.write(orjson.dumps({"why_not": why_not}) + b"\n")
    sys.stdout.buffer.flush()


def _write(note: int, said: dict[str, str]) -> None:
    os.ftruncate(note, 0)
    os.pwrite(note, orjson.dumps(said), 0)


if __name__ == "__main__":
    main()

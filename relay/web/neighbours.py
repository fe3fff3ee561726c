"""The other workers of this server: what one has to tell them at once, and what they tell it.

Each reads from a socket of its own and writes to those of the others; the process that looks after them has made them
all. So no file can be stale or be found by somebody else, and who takes a dead worker's place reads where that one did.
Nobody waits for anybody: what a neighbour has no room for is dropped, and counted.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

import gevent
import orjson
from gevent.socket import wait_read

log = logging.getLogger(__name__)

MESSAGE_MOST: Final = 1 << 16  # bytes
ROOM: Final = 1 << 20  # bytes for one that does not read just now, if the kernel gives so many; it may give 400 KB
AT_ONCE: Final = 3000  # messages; the kernel counts 300 bytes and more for the smallest


class Kind(StrEnum):
    """What a message is about."""

    WANTED = "wanted"  # whose calls are watched at a neighbour
    SHOWN = "shown"  # what its viewers are to see
    OVER = "over"  # a stream that Twilio says is over
    UNOPENED = "unopened"  # a stream that Twilio could not open


class Lines:
    """The sockets between so many workers. Who looks after them keeps these open, for those that come later."""

    def __init__(self, count: int) -> None:
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(count)]
        for _reads, writes in self._pairs:
            writes.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)

    def of(self, place: int) -> list[int]:
        """What the worker of this place is handed: there, where it reads; at the others' places, where it writes."""
        return [(reads if at == place else writes).fileno() for at, (reads, writes) in enumerate(self._pairs)]

    def close(self) -> None:
        """The workers' own stay open."""
        for pair in self._pairs:
            for end in pair:
                end.close()


class Neighbours:
    """A worker's neighbours, each known by its place."""

    def __init__(self, place: int, descriptors: Sequence[int]) -> None:
        self.sent: Counter[str] = Counter()  # by kind
        self.dropped: Counter[str] = Counter()
        self._place = place
        self._lines = {at: _line(descriptor) for at, descriptor in enumerate(descriptors)}
        self._inbox = self._lines.pop(place)
        self._ears: dict[Kind, Callable[[int, Any], object]] = {}
        self._reader = gevent.spawn(self._read_on)
        self._reader.link_exception(lambda failed: log.critical("the neighbours' reader failed: %r", failed.exception))

    def on(self, kind: Kind, hear: Callable[[int, Any], object]) -> None:
        """Has all messages of a kind heard, with the place they come from. `hear` never waits."""
        self._ears[kind] = hear

    def tell(self, kind: Kind, said: Any, to: int | None = None) -> None:
        """Sends it to one, or to all. Never waits."""
        message = orjson.dumps((self._place, kind, said))
        for line in self._lines.values() if to is None else [self._lines[to]]:
            told = self.sent if len(message) <= MESSAGE_MOST and _sent(line, message) else self.dropped
            told[kind] += 1

    def read(self) -> None:
        """Hears all that has come so far. Never waits."""
        for _ in range(AT_ONCE):
            try:
                message = self._inbox.recv(MESSAGE_MOST)
            except BlockingIOError:
                return
            self._hear(message)

    def close(self) -> None:
        """Hears and tells no more."""
        self._reader.kill()
        for line in (self._inbox, *self._lines.values()):
            line.close()

    def _hear(self, message: bytes) -> None:
        try:
            place, kind, said = orjson.loads(message)
            if (hear := self._ears.get(kind)) is not None:
                hear(place, said)
        except Exception:
            log.exception("a neighbour's message could not be heard")

    def _read_on(self) -> None:
        while True:
            wait_read(self._inbox.fileno())
            self.read()
            gevent.sleep(0)


def _sent(line: socket.socket, message: bytes) -> bool:
    try:
        line.send(message)
    except OSError:  # there is no room; or nobody is left to read
        return False
    return True


def _line(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    line = socket.socket(fileno=descriptor)
    line.setblocking(False)
    return line

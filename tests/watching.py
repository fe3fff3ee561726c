"""For tests of the live feed: one who reads it, as a browser's EventSource does."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

import gevent
from gevent.event import Event

WITHIN = 20.0  # seconds anything may take on a busy machine


@dataclass(frozen=True, slots=True)
class Told:
    """One event as it arrived. Without an `id:` of its own it has none here."""

    id: int | None
    kind: str
    data: Any


class Watcher:
    """Reads the live feed until it is closed, by itself or by the server.

    Lines are read as the standard says (https://html.spec.whatwg.org/multipage/server-sent-events.html, "interpreting
    an event stream"): they end with CR, LF or both, and a field that is not known is an error here.
    """

    def __init__(
        self,
        url: str,
        call: str | None = None,
        last_id: int | None = None,
        header: str = "",
        *,
        token: str = "",
        cookie: str = "",
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {"Cookie": cookie}
        headers |= {"Last-Event-ID": header} if header else {}
        asked = {name: value for name, value in (("call", call), ("last_event_id", last_id)) if value is not None}
        self.told: list[Told] = []
        self.heartbeats = 0
        self.retry_ms = 0
        self.over = False
        self._changed = Event()
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._connection.request("GET", "/api/live" + (f"?{urlencode(asked)}" if asked else ""), headers=headers)
        self.response = self._connection.getresponse()
        assert self.response.status == 200, self.response.read()
        self._greenlet = gevent.spawn(self._read)

    @property
    def ids(self) -> list[int]:
        """The ids that came, in the order in which they came."""
        return [told.id for told in self.told if told.id is not None]

    @property
    def last_id(self) -> int | None:
        """What a browser would come back with."""
        return self.ids[-1] if self.ids else None

    def of(self, *kinds: str) -> list[Told]:
        """The events of these kinds."""
        return [told for told in self.told if told.kind in kinds]

    def texts(self, kind: str = "segment.final") -> list[str]:
        """What was said in the events of a kind."""
        return [(told.data.get("segment") or told.data)["text"] for told in self.of(kind)]

    def wait_for(self, predicate: Callable[[], object], within: float = WITHIN) -> None:
        """Returns when the predicate holds; it is asked after everything that comes."""
        with gevent.Timeout(within, False):  # type: ignore[arg-type]  # False: it ends in silence
            while not (came := predicate()):
                self._changed.wait()
                self._changed.clear()
        assert came, f"it never came; what did: {self.told}"

    def wait_for_kind(self, kind: str, count: int = 1) -> None:
        """Returns when so many events of a kind have come."""
        self.wait_for(lambda: len(self.of(kind)) >= count)

    def close(self) -> None:
        """Leaves."""
        self._greenlet.kill()
        self.response.close()
        self._connection.close()

    def _read(self) -> None:
        try:
            self._interpret()
        except (HTTPException, OSError, ValueError):
            pass  # cut off in the middle; an event that is not whole does not count
        finally:
            self.over = True
            self._changed.set()

    def _interpret(self) -> None:
        fields: dict[str, str] = {}
        while raw := self.response.readline():
            assert b"\r" not in raw
            line = raw.decode().removesuffix("\n")
            if line.startswith(":"):
                self.heartbeats += 1
            elif line:
                name, value = line.split(": ", 1)
                assert name in ("id", "event", "data", "retry")
                assert name not in fields
                fields[name] = value
            else:
                self._dispatch(fields)
                fields = {}
            self._changed.set()

    def _dispatch(self, fields: dict[str, str]) -> None:
        if "retry" in fields:
            self.retry_ms = int(fields["retry"])
        if "data" in fields:
            number = int(fields["id"]) if "id" in fields else None
            self.told.append(Told(number, fields["event"], json.loads(fields["data"])))


def one_that_does_not_read(url: str, token: str) -> socket.socket:
    """Asks for the live feed of all calls, and reads nothing of it; its kernel takes as little as can be."""
    address = urlsplit(url)
    sleeper = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sleeper.connect((address.hostname, address.port))
    sleeper.sendall(f"GET /api/live HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    return sleeper

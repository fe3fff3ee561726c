"""What says the stand-in speech service's messages to a client: at once, or late."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import Final

from websockets.exceptions import ConnectionClosed

from standins.line import Line

ANSWERS_HELD: Final = 10_000  # messages that wait to be late
SAY_WITHIN_S: Final = 2.0  # beyond the time they are late by


class Mouth:
    """Says messages to the client at once. That the client is gone is for the reading side to notice."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def say(self, message: str | bytes) -> None:
        """Says it."""
        with suppress(ConnectionClosed):
            self._line.send(message)

    def finish(self) -> None:
        """Returns when all is said."""

    def close(self) -> None:
        """Says no more."""


class LateMouth(Mouth):
    """Says messages a while later, in order."""

    def __init__(self, line: Line, late_s: float) -> None:
        super().__init__(line)
        self._late_s = late_s
        self._held: queue.Queue[tuple[float, str | bytes] | None] = queue.Queue(ANSWERS_HELD)
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, message: str | bytes) -> None:
        """Says it later."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._say_in_time, daemon=True)
            self._thread.start()
        self._held.put((time.monotonic() + self._late_s, message), timeout=self._late_s + SAY_WITHIN_S)

    def finish(self) -> None:
        """Returns when all is said."""
        self._held.put(None, timeout=self._late_s + SAY_WITHIN_S)
        if self._thread is not None:
            self._thread.join(self._late_s + SAY_WITHIN_S)

    def close(self) -> None:
        """Says no more."""
        self._is_closed.set()
        with suppress(queue.Full):
            self._held.put_nowait(None)

    def _say_in_time(self) -> None:
        while (held := self._held.get()) is not None:
            due, message = held
            if self._is_closed.wait(max(0.0, due - time.monotonic())):
                return
            super().say(message)

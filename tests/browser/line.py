"""A network between a browser and the server that can be cut, and mended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.browser.serving import in_thread

PIECE = 1 << 16  # bytes


class Line:
    """Passes bytes on to the server's port. Cut, it ends what is open and takes nothing new."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://localhost:{self._listener.getsockname()[1]}"
        in_thread(self._accept)

    def cut(self) -> None:
        """From now on nothing comes through."""
        with self._lock:
            self._is_cut = True
            for end in self._open:
                _end(end)
            self._open.clear()

    def mend(self) -> None:
        """From now on all is well again."""
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        """Ends it for good."""
        _end(self._listener)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._join(near)

    def _join(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._port))
        except OSError:
            _end(near)
            return
        with self._lock:
            if self._is_cut:
                _end(near)
                _end(far)
                return
            self._open |= {near, far}
        in_thread(lambda: self._pass_on(near, far))
        in_thread(lambda: self._pass_on(far, near))

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                target.sendall(piece)
        for end in (source, target):
            _end(end)
        with self._lock:
            self._open -= {source, target}


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    """A line to this port, until the end of the block."""
    line = Line(port)
    try:
        yield line
    finally:
        line.close()


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # which wakes whoever reads it or accepts from it; closing alone does not
    end.close()

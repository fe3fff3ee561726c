"""One client's socket at the stand-in speech service, which can misbehave. It relies on internals of websockets 17."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any, Final

from websockets.frames import Opcode
from websockets.sync.server import ServerConnection

_LINGER_FOR_NOTHING: Final = struct.pack("ii", 1, 0)  # on, 0 s: closing drops what is unsent and sends a reset
_A_TURN_S: Final = 0.001  # gevent closes a socket that was waited for only after its loop's next turn, so it needs one
_PONG_BEGINS: Final = bytes((0x80 | Opcode.PONG,))  # the first byte of a pong that is one frame


class Line(ServerConnection):
    """A server's connection that can also be reset, abandoned or made not to answer pings."""

    answers_pings = True
    _is_abandoned = False

    _is_reset = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._released = threading.Event()
        super().__init__(*arguments, **named)

    def process_event(self, event: Any) -> None:
        """Every frame passes here, on the reading thread; an abandoned line lets it wait, and so reads no more."""
        if self._is_abandoned:
            self._released.wait()
        else:
            super().process_event(event)

    def send_data(self) -> None:
        """All that is sent passes here, pongs included."""
        self.protocol.writes[:] = [data for data in self.protocol.writes if self._may_send(data)]
        super().send_data()

    def _may_send(self, data: bytes) -> bool:
        if self._is_abandoned or self._is_reset:
            return False
        return self.answers_pings or data[:1] != _PONG_BEGINS

    def reset(self) -> None:
        """Ends the TCP connection without a goodbye: the client sees a reset (RST)."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_FOR_NOTHING)
        self._is_reset = True
        self.close_socket()
        time.sleep(_A_TURN_S)

    def abandon(self) -> None:
        """Reads and says nothing any more, and leaves the socket open until it is cut."""
        self._is_abandoned = True

    def cut(self) -> None:
        """Frees whoever waits on this line, be it to read or to write."""
        self._released.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close_socket(self) -> None:
        """Closes the socket on the reading thread, whoever asks for it.

        gevent aborts the process when a socket is closed that a selector still waits for, or is about to wait for.
        """
        if threading.current_thread() is self.recv_events_thread or not self.recv_events_thread.is_alive():
            super().close_socket()
            return
        with suppress(OSError):
            self.shutdown_notifier.send(b"x")  # wakes the reader, which then closes
        self.recv_messages.close()  # frees a reader that waits for messages to be taken
        self._released.set()
        self.recv_events_thread.join()

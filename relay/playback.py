"""A recording as it is read while it may still grow: what was there at one moment, in pieces that threads read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gevent

from relay.recording import HEADER

PIECE: Final = 1 << 18  # bytes read at a time: 8 s of both sides


class Snapshot:
    """A recording's bytes at one moment, as a file that is open for reading.

    Its header tells of no more than is there, and is kept, since it is written anew as the recording grows.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, or ValueError for what is no recording."""
        self._file = path.open("rb", buffering=0)
        self._header = self._file.read(HEADER.size)
        if len(self._header) < HEADER.size or not self._header.startswith(b"RIFF"):
            self.close()
            raise ValueError(f"{path} is no recording of a call.")
        there = path.stat()
        self.size = min(HEADER.size + HEADER.unpack(self._header)[-1], there.st_size)
        self.changed_at = there.st_mtime_ns
        self._position = 0

    def read(self, size: int) -> bytes:
        """The next bytes; fewer at the end. A thread reads them, so whoever asks waits and lets others go on."""
        if self._position < HEADER.size:
            piece = self._header[self._position : self._position + size]
        else:
            size = min(size, PIECE, self.size - self._position)
            piece = gevent.get_hub().threadpool.apply(self._read, (self._position, size))
        self._position += len(piece)
        return piece

    def seek(self, position: int) -> None:
        """What is read next begins here."""
        self._position = position

    def tell(self) -> int:
        """Where what is read next begins."""
        return self._position

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def _read(self, position: int, size: int) -> bytes:
        """In a thread, whose exceptions gevent would print. A disk that fails ends the answer before its time."""
        try:
            self._file.seek(position)
            return self._file.read(size)
        except (OSError, ValueError):
            return b""

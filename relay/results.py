"""Keeps what a service says of a whole call after its end: a JSON file for each session."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gevent.pool import Group
from gevent.threadpool import ThreadPool

from relay.events import CallResult
from relay.hub import Happened
from relay.recording import file_name, path_of
from relay.store.telling import LONGEST_SID, storable
from relay.text import printable

log = logging.getLogger(__name__)

HELD_MOST: Final = 64 * 1024 * 1024  # bytes that wait for a disk; a long call's are a few million


class Results:
    """Writes files into a folder, by one thread of its own: a slow disk holds up no call. A listener of the hub."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPool(1)
        self._writing = Group()
        self._held = 0  # bytes

    def hear(self, happened: Happened) -> None:
        """Has a result written. Never waits."""
        if not isinstance(result := happened.event, CallResult) or happened.call is None:
            return
        if self._held + len(result.document) > HELD_MOST:
            log.warning("%s: its result is not kept: the disk is too slow", printable(happened.call.call_sid))
            return
        self._held += len(result.document)
        call, session = _start(happened.call.call_sid), file_name(result.session_id)
        path = self._folder / f"{call}{result.service.lower()}-{session}.json"
        self._writing.spawn(self._write, path, result.document)

    def close(self, within: float) -> None:
        """Waits, for so many seconds, until all is written."""
        self._writing.join(timeout=within)
        self._writing.kill(block=False)

    def _write(self, path: Path, document: bytes) -> None:
        try:
            self._thread.apply(_keep, (path, document))
        finally:
            self._held -= len(document)


def kept_beside(recordings: Path, results: Path) -> Callable[[str], list[Path]]:
    """Tells by a call's SID which files of it lie beside the store, and go with it: its recording and its results."""
    return lambda call_sid: [path_of(recordings, call_sid), *results.glob(f"{_start(call_sid)}*")]


def _start(call_sid: str) -> str:
    """With which the names of a call's results begin, and of no other's."""
    return file_name(storable(call_sid, LONGEST_SID)).replace("-", "%2D") + "-"


def _keep(path: Path, document: bytes) -> None:
    """Writes a file that is there as a whole or not at all, and for its owner alone: it holds what was said."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
        draft = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(document)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as trouble:
        log.warning("a call's result could not be kept in RESULTS_FOLDER: %s", trouble.strerror)

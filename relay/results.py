"""Keeps what a service says of a whole call after its end, as a JSON file for each."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Final

import gevent
from gevent.event import AsyncResult

from relay.events import CallResult
from relay.hub import Happened

log = logging.getLogger(__name__)

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 80  # characters of each part of a file's name


class Results:
    """Writes files into a folder. A listener of the hub."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing: set[AsyncResult[None]] = set()

    def hear(self, happened: Happened) -> None:
        """Writes a result in a thread of its own: a slow disk holds up no call."""
        if isinstance(result := happened.event, CallResult) and happened.call is not None:
            names = (happened.call.call_sid, result.service.lower(), result.session_id)
            path = self._folder / ("-".join(_NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME] for name in names) + ".json")
            self._writing = {write for write in self._writing if not write.ready()}
            self._writing.add(gevent.get_hub().threadpool.spawn(_keep, path, result.document))

    def close(self, within: float) -> None:
        """Waits, for so many seconds, until all is written."""
        gevent.wait(list(self._writing), timeout=within)


def _keep(path: Path, document: bytes) -> None:
    """Writes a file that is there as a whole or not at all, and for its owner alone: it holds what was said."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        draft = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(document)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as trouble:
        log.warning("a call's result could not be kept in RESULTS_FOLDER: %s", trouble.strerror)

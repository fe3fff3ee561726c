"""Recordings as files that go with their calls. Who makes them is nobody's business here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from relay.store import reading

log = logging.getLogger(__name__)

_OURS: Final = re.compile(r"CA[0-9a-f]{32}\.wav")  # named after Twilio's calls; what else lies there is somebody else's


def unlink(paths: Iterable[str | Path]) -> None:
    """Deletes files."""
    for path in paths:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as trouble:
            log.warning("a file of a deleted call could not be deleted: %s", trouble.strerror)


def orphans(connection: Connection, folder: Path, before: int) -> list[Path]:
    """Recordings older than that and of no call that is known: the database was away while they were made."""
    return [path for path in _older(folder, before) if reading.call(connection, path.stem) is None]


def _older(folder: Path, before: int) -> Iterable[Path]:
    try:
        return [path for path in folder.iterdir() if _OURS.fullmatch(path.name) and _changed_at(path) < before]
    except OSError:  # there is no such folder, or a file of it was deleted just now
        return []


def _changed_at(path: Path) -> float:
    return path.stat().st_mtime * 1000

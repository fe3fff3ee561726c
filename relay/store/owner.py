"""Which process has a stream, and whether it still lives."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

STALE_MS: Final = 60_000  # a process elsewhere that has not written for so long is taken for dead


def this_process() -> str:
    """A name for one store in this process: its place, its pid, when that began, and a word of its own."""
    return f"{_place()} {os.getpid()} {_begun(os.getpid())} {uuid4().hex[:8]}"


def is_gone(owner: str, seen_at: int, now: int) -> bool:
    """Whether a process has ended. Of one in another place (host, boot, container) we only know when it last wrote."""
    place, _, rest = owner.partition(" ")
    pid, _, rest = rest.partition(" ")
    if place != _place() or not pid.isdecimal():
        return now - seen_at > STALE_MS
    return not _lives(int(pid)) or rest.partition(" ")[0] != _begun(int(pid))


def _place() -> str:
    """Where a pid means one process and no other: see proc(5), /proc/sys/kernel/random/boot_id, and namespaces(7)."""
    boot, namespace = "", 0
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{socket.gethostname()}/{boot}/{namespace}".replace(" ", "_")


def _begun(pid: int) -> str:
    """When a process began, in ticks since boot: another of the same pid began at another time. See proc(5), stat."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there and not ours
        return True
    return True

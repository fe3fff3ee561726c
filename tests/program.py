"""For tests of the program as people start it: `python app.py`, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import gevent
from gevent.event import Event

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0  # seconds for anything a program does, on a busy machine


class Program:
    """A running program and the lines it has printed."""

    def __init__(self, arguments: list[str], environ: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=clean_environment() | {"PYTHONPATH": str(ROOT)} | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = Event()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            gevent.spawn(self._read, self.process.stdout, self.out),
            gevent.spawn(self._read, self.process.stderr, self.err),
        ]

    def line(self, pattern: str, within: float = PATIENCE) -> re.Match[str]:
        """The first line that matches, when it has come."""
        with gevent.Timeout(within, False):  # type: ignore[arg-type]  # False: it ends in silence
            while True:
                for line in [*self.out, *self.err]:
                    if match := re.search(pattern, line):
                        return match
                self._changed.wait()
                self._changed.clear()
        raise AssertionError(f"no line like {pattern!r} in:\n{self}")

    def tell(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def end(self, within: float = PATIENCE) -> int:
        """Waits for the end; gives the exit status."""
        status = self.process.wait(within)
        gevent.joinall(self._readers, timeout=within)
        return status

    def __str__(self) -> str:
        return "\n".join([*self.out, *self.err])

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))
            self._changed.set()


@contextmanager
def program(*arguments: str, folder: Path, **environ: str) -> Iterator[Program]:
    """`python app.py ARGUMENTS` in an empty folder; it is killed if it has not ended."""
    with running([str(ROOT / "app.py"), *arguments], folder, environ) as started:
        yield started


@contextmanager
def running(arguments: list[str], folder: Path, environ: dict[str, str] | None = None) -> Iterator[Program]:
    """`python ARGUMENTS`; it is killed if it has not ended."""
    started = Program(arguments, environ or {}, folder)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.end()


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of the program's."""
    mine = (
        "DEEPGRAM_",
        "GLADIA_",
        "ASSEMBLYAI_",
        "SPEECH_",
        "PORT",
        "HTTP_PORT",
        "LISTEN_ON",
        "PUBLIC_URL",
        "VERBOSE",
        "WORKERS",
        "RESULTS_FOLDER",
        "ACCESS_FOLDER",
        "VIEWER_",
        "TRUSTED_PROXIES",
        "TWILIO_",
        "DIAL_NUMBER",
        "APPLICATION_URL",
        "MAX_STREAMS",
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(mine)}

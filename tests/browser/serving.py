"""The program as people start it, in a process of its own, for tests that a browser sees: nothing here is gevent's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from relay.passes import Passes

ROOT: Final = Path(__file__).parent.parent.parent
PATIENCE: Final = 60.0  # seconds for anything a program does, on a busy machine


class Server:
    """`python app.py` with a database, recordings and passes of its own. Started anew, it has the port that it had."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = 0
        self.lines: list[str] = []
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._changed = threading.Condition()
        self._is_over = False

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://localhost:{self.port}"

    @property
    def access_link(self) -> str:
        """The link that was printed at the start."""
        return self.line(r"(http://\S+/enter/\S+)")[1]

    @property
    def access_path(self) -> str:
        """The same without the server's address."""
        return urlsplit(self.access_link).path

    @property
    def media_url(self) -> str:
        """Where media streams go, with the key for those that nobody signs."""
        return f"ws://127.0.0.1:{self.port}/media/{self.passes.stream_key}"

    @property
    def passes(self) -> Passes:
        """The passes it goes by."""
        return Passes(self.folder / "access")

    @property
    def database_url(self) -> str:
        """Where it keeps calls."""
        return f"sqlite:///{self.folder / 'calls.db'}"

    def sample_recording(self) -> Path:
        """A copy of the sample call's sound among its recordings."""
        folder = self.folder / "recordings"
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(ROOT / "standins" / "audio" / "order-status-call.wav", folder))

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        self.lines.clear()
        self._is_over = False
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py")],
            cwd=self.folder,
            env=clean_environment() | self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.port = int(self.line(r"^Server listening on: http://localhost:(\d+)")[1])

    def kill(self) -> None:
        """Ends it as a crash would: it has no time for anything."""
        assert self._process is not None
        assert self._reader is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def stop(self) -> None:
        """Ends it at once, as somebody who presses Ctrl-C twice does."""
        assert self._process is not None
        assert self._reader is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def line(self, pattern: str) -> re.Match[str]:
        """The first line that matches, when it has come."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._is_over, PATIENCE)
            match = found()
        assert match, "no line like {!r} in:\n{}".format(pattern, "\n".join(self.lines))
        return match

    def _environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "PORT": str(self.port),
            "DATABASE_URL": self.database_url,
            "RECORDINGS_FOLDER": str(self.folder / "recordings"),
            "ACCESS_FOLDER": str(self.folder / "access"),
            **self._settings,
        }

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Server]:
    """A server that has started, until the end of the block."""
    server = Server(folder, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of the program's."""
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Begins to do it beside the test."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def join(threads: Iterable[threading.Thread]) -> None:
    """Waits for their end."""
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()

"""A real SQLite file and a real PostgreSQL database for tests of what is stored.

A test module that wants them says `pytest_plugins = ("tests.databases",)`; a test that takes `database` runs on both.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

INSTALL: Final = "PostgreSQL's programs are needed for this test: apt-get install postgresql"
START_WITHIN: Final = 60.0  # seconds, on a busy machine
_NUMBERS: Final = count(1)

# Waits until whoever started it says no more, or was killed, and then leaves nothing behind.
_AFTERWARDS: Final = 'cat; "$1" stop --mode=immediate --pgdata "$2/data"; cd /; rm -rf "$2"'


class Server:
    """A PostgreSQL server of our own, on a socket in a temporary folder.

    Tests are quicker where it need not be durable: where a power cut may take what it has committed.
    """

    def __init__(self, *, is_durable: bool = False) -> None:
        self._fsync = "on" if is_durable else "off"
        self._programs = _programs()
        self._user = _somebody()
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        how = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        self._run("initdb", *how, "--pgdata", str(self._folder / "data"))
        self._caretaker = self._begin(["sh", "-c", _AFTERWARDS, "sh", self._programs / "pg_ctl", self._folder])
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        where = f"-c listen_addresses= -c unix_socket_directories={self._folder}"
        options = f"{where} -c fsync={self._fsync} -c max_connections=60"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "--wait", "--pgdata", str(self._folder / "data"), "-o", options, "--log", log)

    def stop(self) -> None:
        """Stops it as a power cut would, but for its files."""
        self._run("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(self._folder / "data"))

    def remove(self) -> None:
        """Stops it for good."""
        assert self._caretaker.stdin is not None
        self._caretaker.stdin.close()
        self._caretaker.wait(START_WITHIN)

    def pause(self) -> None:
        """Leaves it running and deaf, with all its connections open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ends the pause."""
        self._signal(signal.SIGCONT)

    def new_database(self, options: str = "") -> str:
        """An empty one, as a URL."""
        name = f"calls_{next(_NUMBERS)}"
        self._order(f"CREATE DATABASE {name} {options}")
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def drop(self, url: str) -> None:
        """Deletes a database: a hundred of them would take long at the end."""
        self._order(f"DROP DATABASE {urlsplit(url).path.strip('/')} WITH (FORCE)")

    def _order(self, command: str) -> None:
        with psycopg.connect(f"host={self._folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(command.encode())

    def _signal(self, number: signal.Signals) -> None:
        """To the main process first: one that is stopped begins no other, and leaves those that end where they are."""
        main = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(main, number)
        for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]:
            if _parent(pid) == main:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _run(self, program: str, *arguments: str) -> None:
        running = self._begin([self._programs / program, *arguments])
        _, complaint = running.communicate(timeout=START_WITHIN)
        assert running.returncode == 0, f"{program}: {complaint}"

    def _begin(self, command: Sequence[str | Path]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            user=self._user,
            extra_groups=[] if self._user is not None else None,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def _programs() -> Path:
    """The newest that are installed: Debian keeps them apart from other programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path).resolve()]
    assert found, INSTALL
    return found[-1].parent


def _somebody() -> str | None:
    """Whom the server runs as, if we are root, as which it does not run."""
    if os.getuid() != 0:
        return None
    return "postgres" if "postgres" in {user.pw_name for user in pwd.getpwall()} else "nobody"


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server for all tests."""
    server = Server()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind, as a URL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/data/calls.db"
        return
    server: Server = request.getfixturevalue("postgresql")
    url = server.new_database()
    yield url
    server.drop(url)

"""The database behind the store: where it is, how it is opened and brought up to date, and what its troubles mean."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import Enum
from pathlib import Path
from time import monotonic
from typing import Any, Final

import orjson
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from gevent.monkey import get_original
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from relay.errors import RelayError, SettingsError
from relay.store.tables import metadata
from relay.text import printable

if sys.platform != "win32":
    import fcntl

BUSY_MS: Final = 5000  # how long we wait for another program that writes
MIGRATION_MS: Final = 3_600_000  # for another process that brings the tables up to date
LOOK_AGAIN_S: Final = 0.02
ONE_WRITER: Final = (
    5_001_2026  # PostgreSQL's advisory lock: one transaction writes at a time, so ids rise as they commit
)

# FULL: a commit is on the disk when it is told (sqlite.org/pragma.html).
# secure_delete: what was deleted is overwritten with zeros.
_PRAGMAS: Final = (
    f"busy_timeout = {BUSY_MS}",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",
)
# A server that is gone without a word is noticed within about 20 s
# (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).
_POSTGRESQL: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "call relay",
    "client_encoding": "utf8",
}
# A writer that stops in the middle holds up the others no longer than this.
_LOCK_SQL: Final = text(
    "SELECT set_config('lock_timeout', '10s', true),"
    " set_config('idle_in_transaction_session_timeout', '30s', true), pg_advisory_xact_lock(:key)"
).bindparams(key=ONE_WRITER)
_MIGRATIONS: Final = str(Path(__file__).parent / "migrations")
_SCRIPT: Final = ScriptDirectory(_MIGRATIONS, version_locations=[_MIGRATIONS])
_WHERE: Final = "DATABASE_URL"
_MOVED: Final = "The file of the database was deleted or moved, and is made anew."
_SERVERS: Final = (0, 0)  # the place of a database that is in no file of ours
_LOGS: Final = ("-wal", "-shm")  # what SQLite keeps beside a file: its write-ahead log, and that one's index

# Those of a real thread, which has no event loop.
_sleep = get_original("time", "sleep")
_close = get_original("os", "close")
_one_migrates = get_original("_thread", "allocate_lock")()  # Alembic knows one migration per process


class StoreError(RelayError):
    """The database cannot be read or written now. The message is one sentence; later it may be well again."""


def address(url: str) -> URL:
    """What DATABASE_URL says. Raises SettingsError with a sentence that does not repeat it: it may hold a password."""
    wrong = SettingsError(f"{_WHERE} should be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE.")
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise wrong from None
    if found.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return found.set(drivername="postgresql+psycopg")
    is_file = bool(found.database) and found.database != ":memory:" and not found.host and not found.query
    if found.drivername == "sqlite" and is_file:
        return found
    raise wrong


Place = tuple[int, int]  # which file a database is in: its device and its inode


class Standing(Enum):
    """How far a database's tables are."""

    EMPTY = "empty"
    OLD = "old"
    CURRENT = "current"


class Database:
    """One database, and two ways to its tables: `writer` for one thread of this process, `reader` for several."""

    def __init__(self, url: URL) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._file = Path(url.database or "") if self.is_sqlite else None
        self._ready: Place | None = None
        self._why_not = "The database is not open."
        self.writer = _engine(url)
        self.reader = _engine(url)
        if self.is_sqlite:
            event.listen(self.writer, "connect", _use_wal)  # not by who looks whether the file is ours
            event.listen(self.writer, "begin", _begin_to_write_sqlite)
            event.listen(self.reader, "begin", _begin_to_read_sqlite)
        else:
            event.listen(self.writer, "begin", _begin_to_write_postgresql)
            self.reader = self.reader.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def here(self) -> Place | None:
        """Which database is there now; None if its file is gone."""
        if self._file is None:
            return _SERVERS
        with suppress(OSError):
            found = self._file.stat()
            return found.st_dev, found.st_ino
        return None

    def found_ready(self) -> Place:
        """Which database may be read. Raises StoreError if none was made ready yet, or it is no longer there."""
        if self._ready is None or self._ready != self.here():
            raise StoreError(self._why_not if self._ready is None else _MOVED)
        return self._ready

    def make_ready(self) -> Place:
        """Makes the tables or brings them up to date, if that is not done. To be done before each new connection that
        writes: the database may be another one by now. Raises StoreError while it is away, or full, or was moved (then
        the next time makes it anew), and SettingsError for what waiting does not mend.
        """
        if self._ready not in (None, self.here()):
            self._ready, self._why_not = None, _MOVED
            raise StoreError(_MOVED)
        if self.standing() is not Standing.CURRENT:
            self.migrate()
        self._ready = self.here()
        return self.found_ready()

    def standing(self) -> Standing:
        """How far the tables are. Makes the file of a database that has none. Raises StoreError, and SettingsError for
        what waiting does not mend."""
        with self._opening():
            if self._file is not None:
                _make_file(self._file)
            with self.reader.connect() as connection:
                revision = MigrationContext.configure(connection).get_current_revision()
                self._check(connection, revision)
            if revision is None:
                return Standing.EMPTY
            return Standing.CURRENT if _SCRIPT.get_revision(revision).is_head else Standing.OLD

    def migrate(self) -> None:
        """Makes the tables, or brings them up to date. A second process that does it waits for the first."""
        with self._opening(), _one_migrates, self.writer.connect() as connection:
            if self.is_sqlite:
                driver: Any = connection.connection.driver_connection
                driver.execute(f"PRAGMA busy_timeout = {MIGRATION_MS}")
            with connection.begin(), EnvironmentContext(Config(), _SCRIPT, fn=_missing) as environment:
                environment.configure(connection=connection)
                environment.run_migrations()

    def empty_log(self) -> bool:
        """Has SQLite take over what its write-ahead log holds, and cut that off: what was deleted is in there too. If
        others are at it, that comes with the next. Tells whether it was done."""
        if self.is_sqlite:
            with suppress(sqlite3.OperationalError), closing(self.writer.raw_connection()) as connection:
                is_busy, *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                return not is_busy
        return False

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Remembers why it could not be made ready, for those who would read it."""
        try:
            with _in_a_sentence(self._file):
                yield
        except RelayError as trouble:
            self._why_not = str(trouble)
            raise

    def _check(self, connection: Connection, revision: str | None) -> None:
        if not self.is_sqlite and connection.scalar(text("SHOW server_encoding")) != "UTF8":
            raise SettingsError(f"{_WHERE} should name a database whose encoding is UTF8.")
        tables = inspect(connection).get_table_names() if revision is None else []
        if tables and (self.is_sqlite or metadata.tables.keys() & tables):  # a server's may be shared with others
            raise SettingsError(f"{_WHERE} names another program's database; name one of its own for calls.")


def _engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool,  # connections are kept by relay.store.threads
        json_serializer=lambda value: orjson.dumps(value).decode(),
        json_deserializer=orjson.loads,
        hide_parameters=True,  # in what errors say: they hold what was said
        connect_args={"check_same_thread": False} if url.get_backend_name() == "sqlite" else _POSTGRESQL,
    )
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "do_connect", _connect_to_what_is_there)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "close", _take_over_log)
    return engine


def _connect_to_what_is_there(_dialect: object, _record: object, where: list[str], options: dict[str, Any]) -> Any:
    """SQLite would make a file that is gone, with everybody's rights and without tables."""
    return sqlite3.connect(f"{Path(where[0]).absolute().as_uri()}?mode=rw", uri=True, **options)


def _take_over_log(connection: Any, _record: object) -> None:
    """At its last connection's end SQLite does so by itself, but not for a file that was moved meanwhile."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint")


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Takes BEGIN out of Python's hands: it would say it only before the first change
    (https://docs.sqlalchemy.org/en/latest/dialects/sqlite.html, "Enabling Non-Legacy SQLite Transactional Modes")."""
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: Any, _record: object) -> None:
    """With a write-ahead log, who reads does not wait for who writes. To change a file to it, SQLite does not wait for
    others that have it open, whatever the timeout: of several processes that start at once, all but one come back."""
    deadline = monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as trouble:
            if trouble.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            _sleep(LOOK_AGAIN_S)
        else:
            return


def _begin_to_write_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(
        "BEGIN IMMEDIATE"
    )  # the lock is had at once, or waited for, never asked for in the middle


def _begin_to_read_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_to_write_postgresql(connection: Connection) -> None:
    connection.execute(_LOCK_SQL)


def _make_file(path: Path) -> None:
    """The database's file and its folder, if there are none: for its owner alone, it holds what was said.

    What SQLite left beside a file that was taken away is none of the new one's. One that is there is not opened: to
    close it again would end the locks that SQLite has on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        if not path.exists():
            for log in _LOGS:
                path.with_name(path.name + log).unlink(missing_ok=True)
            _close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other process does the same at the same time."""
    if sys.platform == "win32":  # where nobody deletes a file that is open
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # of file systems that know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _close(descriptor)


def _missing(revision: Any, _context: object) -> Any:
    return _SCRIPT._upgrade_revs("head", revision)  # as alembic's own command does


@contextmanager
def _in_a_sentence(file: Path | None) -> Iterator[None]:
    """What keeps a database from being opened, in a sentence: what may pass as StoreError, and what does not as
    SettingsError, naming the setting."""
    try:
        yield
    except OSError as trouble:
        if trouble.errno in _FULL:
            raise StoreError("The disk of the database is full.") from None
        if trouble.errno in _PASSES:
            raise StoreError(f"The file of the database cannot be opened: {trouble.strerror}.") from None
        raise SettingsError(f"{_WHERE}: {file} cannot be made: {trouble.strerror}.") from None
    except SQLAlchemyError as trouble:
        if isinstance(trouble, DBAPIError) and _IS_FOR_GOOD.search(str(trouble.orig)):
            raise SettingsError(f"{_WHERE}: {sentence(trouble)}") from trouble
        raise StoreError(sentence(trouble)) from trouble
    except CommandError:
        raise SettingsError(f"{_WHERE} names a database that a newer version of this program has made.") from None


# --- What its troubles mean ---------------------------------------------------------------------------------

_FULL: Final = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_PASSES: Final = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT}
# What PostgreSQL says to a client that it does not know, and SQLite of a file that is none of its own. Of a refused
# connection no more than its text is told (libpq has no code for it).
_IS_FOR_GOOD: Final = re.compile(
    r"file is not a database|authentication failed|no password supplied|no pg_hba\.conf entry|permission denied"
    r'|(database|role) ".*" does not exist',
    re.IGNORECASE,
)
_TROUBLES: Final = {
    "database or disk is full": "The disk of the database is full.",
    "disk i/o error": "The disk of the database is full, or fails.",
    "no space left on device": "The disk of the database is full.",
    "could not extend file": "The disk of the database is full.",
    "readonly database": "The database may not be written to; see to the rights of its file and folder.",
    "database is locked": "Another program has the database locked.",
    "lock timeout": "Another program has the database locked.",
    "unable to open database file": "The file of the database cannot be opened.",
    "file is not a database": "The file of the database is no database.",
    "malformed": "The file of the database is damaged.",
    "password authentication failed": "The database does not take the password.",
    "no password supplied": "The database wants a password.",
    "failed to resolve host": "The database's host is not found.",  # its name may hold half of a password with an @
}


def sentence(trouble: Exception) -> str:
    """One sentence a person can act on. What was to be stored is not in it."""
    if isinstance(trouble, RelayError):
        return str(trouble)
    said = str(trouble.orig) if isinstance(trouble, DBAPIError) else type(trouble).__name__
    for mark, meaning in _TROUBLES.items():
        if mark in said.lower():
            return meaning
    if isinstance(trouble, DBAPIError) and (trouble.connection_invalidated or "connection" in said.lower()):
        return f"The database cannot be reached: {printable(said.splitlines()[0])}."
    kind = type(trouble.orig if isinstance(trouble, DBAPIError) else trouble).__name__
    return f"The database is in trouble ({kind})."

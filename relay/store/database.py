"""The database behind the store: where it is, how it is opened and brought up to date, and what its troubles mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import Enum
from pathlib import Path
from time import monotonic
from typing import Any, Final

import orjson
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from gevent.monkey import get_original
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from relay.errors import RelayError, SettingsError
from relay.text import printable

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

_sleep = get_original("time", "sleep")  # of a real thread, which has no event loop


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
    if found.drivername == "sqlite" and found.database and found.database != ":memory:" and not found.host:
        return found
    raise wrong


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
        self.writer = _engine(url)
        self.reader = _engine(url)
        if self.is_sqlite:
            event.listen(self.writer, "begin", _begin_to_write_sqlite)
            event.listen(self.reader, "begin", _begin_to_read_sqlite)
        else:
            event.listen(self.writer, "begin", _begin_to_write_postgresql)
            self.reader = self.reader.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def standing(self) -> Standing:
        """How far the tables are. Makes the file of a database that has none. Raises SettingsError."""
        with _settings_error(self._file):
            if self._file is not None:
                _make_file(self._file)
            with self.reader.connect() as connection:
                self._check(connection)
                with EnvironmentContext(Config(), _SCRIPT) as environment:
                    environment.configure(connection=connection)
                    revision = environment.get_context().get_current_revision()
            if revision is None:
                return Standing.EMPTY
            return Standing.CURRENT if _SCRIPT.get_revision(revision).is_head else Standing.OLD

    def migrate(self) -> None:
        """Makes the tables, or brings them up to date. A second process that does it waits for the first."""
        with _settings_error(self._file), self.writer.connect() as connection:
            if self.is_sqlite:
                driver: Any = connection.connection.driver_connection
                driver.execute(f"PRAGMA busy_timeout = {MIGRATION_MS}")
            with connection.begin(), EnvironmentContext(Config(), _SCRIPT, fn=_missing) as environment:
                environment.configure(connection=connection)
                environment.run_migrations()

    def empty_log(self) -> None:
        """Has SQLite take over what its write-ahead log holds, and cut that off: what was deleted is in there too. If
        others are at it, that comes with the next."""
        if self.is_sqlite:
            with closing(self.writer.raw_connection()) as connection, suppress(sqlite3.OperationalError):
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _check(self, connection: Connection) -> None:
        if not self.is_sqlite and connection.scalar(text("SHOW server_encoding")) != "UTF8":
            raise SettingsError(f"{_WHERE} should name a database whose encoding is UTF8.")


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
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Takes BEGIN out of Python's hands: it would say it only before the first change
    (https://docs.sqlalchemy.org/en/latest/dialects/sqlite.html, "Enabling Non-Legacy SQLite Transactional Modes")."""
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    _use_wal(connection)


def _use_wal(connection: Any) -> None:
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
    """The database's file and its folder, if there are none: for its owner alone, it holds what was said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _missing(revision: Any, _context: object) -> Any:
    return _SCRIPT._upgrade_revs("head", revision)  # as alembic's own command does


@contextmanager
def _settings_error(file: Path | None) -> Iterator[None]:
    """What keeps a database from being opened, in a sentence that names the setting."""
    try:
        yield
    except OSError as trouble:
        raise SettingsError(f"{_WHERE}: {file} cannot be made: {trouble.strerror}.") from None
    except SQLAlchemyError as trouble:
        raise SettingsError(f"{_WHERE}: {sentence(trouble)}") from trouble
    except CommandError:
        raise SettingsError(f"{_WHERE} names a database that a newer version of this program has made.") from None


# --- What its troubles mean ---------------------------------------------------------------------------------

_TROUBLES: Final = {
    "database or disk is full": "The disk of the database is full.",
    "no space left on device": "The disk of the database is full.",
    "could not extend file": "The disk of the database is full.",
    "readonly database": "The database may not be written to; see to the rights of its file and folder.",
    "database is locked": "Another program has the database locked.",
    "lock timeout": "Another program has the database locked.",
    "unable to open database file": "The file of the database cannot be opened.",
    "file is not a database": "The file of the database is no database.",
    "malformed": "The file of the database is damaged.",
    "password authentication failed": "The database does not take the password.",
}


def sentence(trouble: Exception) -> str:
    """One sentence a person can act on. What was to be stored is not in it."""
    said = str(trouble.orig) if isinstance(trouble, DBAPIError) else type(trouble).__name__
    for mark, meaning in _TROUBLES.items():
        if mark in said.lower():
            return meaning
    if isinstance(trouble, DBAPIError) and (trouble.connection_invalidated or "connection" in said.lower()):
        return f"The database cannot be reached: {printable(said.splitlines()[0])}."
    kind = type(trouble.orig if isinstance(trouble, DBAPIError) else trouble).__name__
    return f"The database is in trouble ({kind})."

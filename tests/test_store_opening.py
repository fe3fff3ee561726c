"""A database that is away at the start, or taken away while it is open: calls go on, and are kept afterwards."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import orjson
import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from relay.errors import SettingsError
from relay.passes import Kind, Passes, Scope
from relay.store.database import Database, address
from relay.store.store import Store, StoreError
from standins.deepgram import ListenServer
from standins.twilio import SimulatedCall
from tests.numbered import number_ears, numbered
from tests.program import Program, program
from tests.storing import PATIENCE, Reader, Talk, dead_process, eventually, kinds, opened, texts

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases",)

pytestmark = pytest.mark.once
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes share a port on Linux only")


@contextmanager
def opened_at_any_rate(url: str, **options: Any) -> Iterator[Store]:
    """A store as the server opens it."""
    store = Store(url, **options)
    store.open(at_any_rate=True)
    try:
        yield store
    finally:
        store.close(PATIENCE)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program has a file that is not one of ours yet, and lets nobody look into it."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """PostgreSQL is away."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says that somebody should know."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def is_kept(store: Store, talk: Talk, spoken: list[str]) -> None:
    """All of a call is there once, and its events too."""
    assert [segment.text for segment in store.segments(talk.sid)] == spoken
    events = store.events_after(0, call_sid=talk.sid, limit=500)
    assert kinds(events) == ["call.started", *["segment.final"] * len(spoken), "call.ended"]


# --- It is away at the start --------------------------------------------------------------------------------


@contextmanager
def away(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database that is not to be had, and has no tables yet."""
    if database.startswith("sqlite"):
        file = Path(database.removeprefix("sqlite:///"))
        file.parent.mkdir()
        with locked(file):
            yield "Another program has the database locked."
    else:
        with stopped(request.getfixturevalue("postgresql")):
            yield "The database cannot be reached: "


def test_a_database_that_is_away_at_the_start_gets_its_tables_and_all_that_was_heard(
    database: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    spoken = [f"sentence {number}" for number in range(10)]
    with away(database, tmp_path, request) as why:
        with pytest.raises(SettingsError, match=f"^DATABASE_URL: {why}"):
            Store(database).open()
        store = Store(database)
        store.open(at_any_rate=True)
        assert store.trouble.startswith(why)
        reader, talk = Reader(store), Talk(store).begin()
        for number, sentence in enumerate(spoken):
            talk.say(sentence, number * 1000)
        talk.end(10_000)
        assert texts(reader.events) == spoken  # a viewer sees them all the same
        for ask in (store.calls, lambda: store.delete(talk.sid)):
            with pytest.raises(StoreError, match=f"^{why}"):
                ask()
        assert store.waiting == 12
    assert texts([event for event in reader.until_ended() if event.is_stored]) == spoken
    is_kept(store, talk, spoken)
    assert (store.trouble, store.waiting, store.dropped) == ("", 0, 0)
    store.close(PATIENCE)
    said, well = warnings(caplog)
    assert said.startswith(why)
    assert said.endswith(
        " See to it, or to DATABASE_URL. Calls go on, and what is said waits here until it can be stored."
    )
    assert "well again" in well


def test_without_a_call_too_the_tables_are_made_when_the_database_is_back(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with away(database, tmp_path, request):
        store = Store(database)
        store.open(at_any_rate=True)
    eventually(lambda: not store.trouble)
    assert store.calls().items == ()
    store.close(PATIENCE)


def test_what_is_done_at_the_start_is_done_when_the_database_is_back(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of killed processes are closed, old ones deleted; and nobody is told of old events as if they were new."""
    monkeypatch.setattr("relay.store.store.TIDY_EVERY", 3600.0)  # it is done at once, or the test does not end
    url = postgresql.new_database()
    with opened(url) as store:
        reader = Reader(store)
        old, left = Talk(store).begin().say("old").end(), Talk(store).begin().say("left")
        reader.until(lambda events: len(texts(events)) == 2 and "call.ended" in kinds(events))
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE calls SET started_at = 0, ended_at = 1 WHERE sid = %s", (old.sid,))
        connection.execute("UPDATE streams SET owner = %s WHERE sid = %s", (dead_process(), left.call.stream_sid))
    with stopped(postgresql):
        store = Store(url, keep_days=1)
        store.open(at_any_rate=True)
        reader = Reader(store)
    reader.until_ended()
    eventually(lambda: store.call(old.sid) is None)
    assert (call := store.call(left.sid)) is not None
    assert call.state == "ended"
    assert kinds(reader.events) == ["gap", "call.ended"] or kinds(reader.events) == ["call.ended"]
    store.close(PATIENCE)


def test_who_leaves_in_trouble_and_owes_nothing_does_not_wait(postgresql: Server) -> None:
    url = postgresql.new_database()
    with stopped(postgresql):
        store = Store(url)
        store.open(at_any_rate=True)
        with gevent.Timeout(PATIENCE - 5, AssertionError("it waited for the database")):
            store.close(PATIENCE)


def test_what_waiting_does_not_mend_ends_the_start(postgresql: Server, tmp_path: Path) -> None:
    url = postgresql.new_database()
    (tmp_path / "text").write_bytes(b"no database" * 1000)
    for wrong, why in {
        url.replace("/calls_", "/no_calls_"): "DATABASE_URL: .* does not exist",
        url.replace("postgres@", "nobody_there@"): "DATABASE_URL: .* does not exist",
        f"sqlite:///{tmp_path}/text": "DATABASE_URL: The file of the database is no database",
        f"sqlite:///{tmp_path}/text/calls.db": "DATABASE_URL: .* cannot be made",
    }.items():
        with pytest.raises(SettingsError, match=why):
            Store(wrong).open(at_any_rate=True)


def test_a_password_that_is_refused_ends_the_start(postgresql: Server) -> None:
    url, hba = postgresql.new_database(), postgresql._folder / "data" / "pg_hba.conf"
    rules = hba.read_text()
    hba.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    try:
        reload_settings(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE ROLE somebody LOGIN PASSWORD 'right'")
            connection.execute("GRANT ALL ON SCHEMA public TO somebody")
        for word, why in ((":wrong", "does not take the password"), ("", "wants a password")):
            with pytest.raises(SettingsError, match=f"^DATABASE_URL: The database {why}") as refusal:
                Store(url.replace("postgres@", f"somebody{word}@")).open(at_any_rate=True)
            assert "wrong" not in str(refusal.value)
        with opened_at_any_rate(url.replace("postgres@", "somebody:right@")) as store:
            assert store.trouble == ""
    finally:
        hba.write_text(rules)
        reload_settings(url)


def reload_settings(url: str) -> None:
    """Has PostgreSQL read its settings anew, which it does some time after it was told."""

    def loaded_at() -> object:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT pg_conf_load_time()").fetchone()

    before = loaded_at()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
    eventually(lambda: loaded_at() != before)


def test_what_is_found_wrong_later_is_said_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(f"sqlite:///{tmp_path}/calls.db") as store:
        Talk(store).begin()
        eventually(lambda: store.calls().items)
    with closing(sqlite3.connect(tmp_path / "calls.db")) as other, other:
        other.execute("UPDATE alembic_version SET version_num = 'later'")
    (tmp_path / "calls.db").rename(tmp_path / "later.db")
    caplog.clear()
    with locked(tmp_path / "calls.db"):
        store = Store(f"sqlite:///{tmp_path}/calls.db")
        store.open(at_any_rate=True)
        talk = Talk(store).begin().say("kept").end()
        (tmp_path / "calls.db").unlink()
        (tmp_path / "later.db").rename(tmp_path / "calls.db")
    eventually(lambda: "newer version" in store.trouble)
    (tmp_path / "calls.db").unlink()
    eventually(lambda: not store.trouble and not store.waiting)
    is_kept(store, talk, ["kept"])
    store.close(PATIENCE)
    assert sum("newer version" in line for line in warnings(caplog)) == 1


# --- The whole program --------------------------------------------------------------------------------------


class Site:
    """A server of ours whose database is away."""

    def __init__(self, started: Program, port: int) -> None:
        self.started = started
        self._port = port
        passes = Passes(started.folder / "data" / "access")
        self._token = passes.issue(Kind.TOKEN, {Scope.READ}, for_s=3600)
        self._key = passes.stream_key

    def call(self) -> SimulatedCall:
        """A call that has said something."""
        call = SimulatedCall(f"ws://127.0.0.1:{self._port}/media/{self._key}")
        call.open()
        call.start()
        for ms in range(0, 1000, 20):
            for track in call.tracks:
                call.say(track, numbered(track, ms, 20), at_ms=ms)
            gevent.sleep(0.02)
        return call

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """The status of an answer, and what it says."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            answer = connection.getresponse()
            return answer.status, orjson.loads(answer.read())

    @property
    def workers(self) -> set[int]:
        """Their processes."""
        pid = self.started.process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@contextmanager
def site(url: str, folder: Path, **settings: str) -> Iterator[Site]:
    """`python app.py`, as somebody starts it."""
    with ListenServer(ear=number_ears(final_ms=200)) as speech:
        settings |= {"DATABASE_URL": url, "DEEPGRAM_URL": speech.url, "DEEPGRAM_API_KEY": "key"}
        with program(folder=folder, PORT="0", **settings) as started:
            yield Site(started, int(started.line(r"Server listening on: http://localhost:(\d+)")[1]))


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=on_linux)])
def test_a_server_that_is_started_while_its_database_is_away_takes_calls(
    workers: str, postgresql: Server, tmp_path: Path
) -> None:
    url = postgresql.new_database()
    with ExitStack() as stack:
        with stopped(postgresql):
            running = stack.enter_context(site(url, tmp_path, WORKERS=workers))
            if workers == "2":
                replace_a_worker(running)
            calls = [running.call() for _ in range(3)]
            for call in calls:
                call.stop()
                call.close()
            eventually(lambda: sum(" ended (stop): " in line for line in running.started.out) == len(calls))
            status, said = running.ask("/readyz")
            assert (status, said["ready"]) == (200, True)
            assert said["store"] == "in trouble"
            status, said = running.ask("/api/calls")
            assert status == 503
            assert said["detail"] == "The database cannot be asked just now; the server's log says why."
            finals = sum("[FINAL]" in line for line in running.started.out)
            assert finals > len(calls)
            with program("calls", folder=tmp_path, DATABASE_URL=url) as command:
                assert command.end() == 1
            assert [line.startswith("Error: DATABASE_URL: The database cannot ") for line in command.err] == [True]
        eventually(lambda: sum("well again" in line for line in running.started.err) == int(workers))
        assert running.ask("/readyz")[1]["store"] == "well"
        assert running.ask("/api/calls")[0] == 200
        eventually(lambda: [call["state"] for call in running.ask("/api/calls")[1]["items"]] == ["ended"] * len(calls))
        running.started.tell()
        assert running.started.end() == 0
        with opened(url) as store:
            assert sum(len(store.segments(call.call_sid)) for call in calls) == finals
            assert {call.state for call in store.calls().items} == {"ended"}
    assert sum("Calls go on" in line for line in running.started.err) == int(workers) + (workers == "2")


def replace_a_worker(running: Site) -> None:
    """One of them is killed, and another takes its place and serves."""
    eventually(lambda: sum("Calls go on" in line for line in running.started.err) == 2)
    before = running.workers
    os.kill(min(before), signal.SIGKILL)
    eventually(lambda: len(running.workers - before) == 1)
    running.started.line("a worker ended with status -9 and is replaced")
    eventually(lambda: sum("Calls go on" in line for line in running.started.err) == 3)
    assert len(running.workers - before) == 1


# --- The file is taken away ---------------------------------------------------------------------------------


def taken(how: str) -> Callable[[Path], None]:
    """Takes a database away while it is open."""

    def delete(file: Path) -> None:
        file.unlink()

    def delete_all(file: Path) -> None:
        for path in list(file.parent.iterdir()):
            path.unlink()
        file.parent.rmdir()

    def move(file: Path) -> None:
        file.rename(file.with_name("moved.db"))

    return {"deleted": delete, "deleted with its folder": delete_all, "moved": move}[how]


@pytest.mark.parametrize("how", ["deleted", "deleted with its folder", "moved"])
def test_a_file_that_is_taken_away_is_noticed_and_made_anew(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "data" / "calls.db"
    url = f"sqlite:///{file}"
    with opened(url) as store, opened(url) as neighbour:
        before = Talk(store).begin()
        for number in range(20):
            before.say(f"before {number}", number * 1000)
        before.end(20_000)
        talk, others = Talk(store).begin().say("early"), Talk(neighbour).begin().say("early there")
        eventually(lambda: len(store.search("early").items) == 2 and not store.waiting)
        reader = Reader(store)
        taken(how)(file)
        talk.say("late", 30_000)
        others.say("late there", 40_000)
        reader.until(lambda events: {"late", "late there"} <= set(texts([e for e in events if e.is_stored])))
        talk.end(31_000)
        others.end(41_000)
        reader.until_ended(2)
        assert {call.sid for call in store.calls().items} == {talk.sid, others.sid}
        assert {call.sid for call in neighbour.calls().items} == {talk.sid, others.sid}
        assert [segment.text for segment in store.segments(talk.sid)] == ["late"]
        assert [hit.segment.text for hit in neighbour.search("late there").items] == ["late there"]
        eventually(lambda: (store.trouble, store.waiting, neighbour.trouble, neighbour.waiting) == ("", 0, "", 0))
    assert sum("was deleted or moved" in line for line in warnings(caplog)) == 2, "each says it once"
    is_sound(file)
    if how == "moved":
        is_sound(file.with_name("moved.db"))
        with opened(f"sqlite:///{file.with_name('moved.db')}") as store:
            is_kept(store, before, [f"before {number}" for number in range(20)])


def is_sound(file: Path) -> None:
    """The file is in order, and for its owner alone."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_taken_away_while_nobody_calls_is_noticed_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "calls.db"
    with opened(f"sqlite:///{file}") as store:
        talk = Talk(store).begin().end()
        eventually(lambda: [call for call in store.calls().items if call.state == "ended"])
        file.unlink()
        eventually(lambda: any("well again" in line for line in warnings(caplog)))
        assert store.call(talk.sid) is None
        assert file.exists()


def test_what_is_left_beside_a_file_that_was_deleted_is_none_of_the_new_ones(tmp_path: Path) -> None:
    """Another program has the old one open still, and so its log and that one's index, which all would share."""
    file = tmp_path / "calls.db"
    script = (
        "import sqlite3, sys; old = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for said in ('PRAGMA journal_mode = WAL', 'CREATE TABLE old (text)', 'INSERT INTO old VALUES (1)'):\n"
        "    old.execute(said)\n"
        "print(flush=True); sys.stdin.read()"
    )
    command, pipe = [sys.executable, "-c", script, str(file)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        other.stdout.readline()
        file.unlink()
        Database(address(f"sqlite:///{file}")).make_ready()
    is_sound(file)


def test_who_reads_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    with opened(f"sqlite:///{file}") as store:
        file.unlink()
        with pytest.raises(OperationalError):
            store._database.reader.connect()
        assert not file.exists()


# --- It is somebody else's ----------------------------------------------------------------------------------


def test_another_programs_file_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "foreign.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = file.read_bytes()
    with pytest.raises(SettingsError, match=r"^DATABASE_URL names another program's database"):
        Store(f"sqlite:///{file}").open(at_any_rate=True)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["foreign.db"]
    with program("calls", folder=tmp_path, DATABASE_URL=f"sqlite:///{file}") as command:
        assert command.end() == 1
    assert command.err == ["Error: DATABASE_URL names another program's database; name one of its own for calls."]
    assert file.read_bytes() == before


def test_a_servers_database_may_be_shared_but_not_the_names_of_our_tables(postgresql: Server) -> None:
    url = postgresql.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with opened(url) as store:
        assert store.calls().items == ()
    url = postgresql.new_database()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE calls (name TEXT)")
    with pytest.raises(SettingsError, match=r"^DATABASE_URL names another program's database"):
        Store(url).open(at_any_rate=True)

"""What finding costs: words, phrases and calls among 10,000 calls of 500 segments each, and how the database does it.

    python -m benchmarks.search [--quick]

On SQLite in a temporary folder, and on a PostgreSQL server that is started for it. What is said is made up: ten words
in a segment, of 20,000 words that are as unevenly common as a language's (Zipf). Each question is asked ten times. Its
statements' plans are printed below the times, and none may scan the table of segments.
"""
# ruff: noqa: E402, S311, S608  # gevent patches first; chance makes up what is said; names of columns are our own

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import random
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, Final

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import Connection, event, text

from relay.store.records import PAGE_MOST, Page
from relay.store.store import Store
from relay.store.tables import Searchable
from tests.databases import Server

CALLS: Final = 10_000
CALLS_QUICK: Final = 200
SEGMENTS: Final = 500  # of a call
WORDS: Final = 10  # of a segment
VOCABULARY: Final = [f"w{number:05}" for number in range(20_000)]
COMMONNESS: Final = list(accumulate(1 / (number + 1) for number in range(len(VOCABULARY))))
RARE: Final = "rareword"  # said once in every thousandth call
BEGAN_AT: Final = 1_700_000_000_000
A_CALL_MS: Final = 500_000
AT_ONCE: Final = 50  # calls in one transaction
TIMES: Final = 10  # that each question is asked
DEEP: Final = 100_000  # hits before a page

# A plan that reads all rows: https://www.sqlite.org/eqp.html, https://www.postgresql.org/docs/current/using-explain.html
WHOLE_TABLE: Final = re.compile(r"SCAN segments$|SCAN segments\s|Seq Scan on segments\b")

Row = tuple[Any, ...]
Question = Callable[[], Sequence[object]]

_CALLS: Final = "id, sid, caller, called, started_at, ended_at, end_reason, duration_ms"
_STREAMS: Final = (
    "id, call_id, sid, tracks, services, owner, started_at, offset_ms, heard_ms, ended_at, end_reason, summary"
)
_SEGMENTS: Final = (
    "call_id, stream_id, track, start_ms, end_ms, confidence, speaker, language, service, backfilled, created_at,"
    " text, words, searchable"
)


# --- What is found --------------------------------------------------------------------------------------------


def call_row(number: int) -> Row:
    """A call that has ended."""
    at = BEGAN_AT + number * 60_000
    return number, f"CA{number:032x}", f"+1555{number:07}", "+15550000000", at, at + A_CALL_MS, "stop", A_CALL_MS


def stream_row(number: int) -> Row:
    """Its stream."""
    at = BEGAN_AT + number * 60_000
    tracks, services = '["inbound","outbound"]', '["Deepgram"]'
    return number, number, f"MZ{number}", tracks, services, "x", at, 0, A_CALL_MS, at + A_CALL_MS, "stop", "{}"


def segment_rows(number: int) -> Iterator[Row]:
    """What was said on it."""
    chance, at = random.Random(number), BEGAN_AT + number * 60_000
    spoken = chance.choices(VOCABULARY, cum_weights=COMMONNESS, k=SEGMENTS * WORDS)
    for index in range(SEGMENTS):
        said = spoken[index * WORDS : (index + 1) * WORDS] + [RARE] * (index == 7 and number % 1000 == 1)
        track, speaker = ("inbound", "outbound")[index % 2], 3 if index == 9 and number % 500 == 1 else index % 2
        start_ms = index * 1000
        about = 0.9, speaker, "en", "Deepgram", False, at
        yield number, number, track, start_ms, start_ms + 900, *about, " ".join(said), "[]"


def fill(store: Store, calls: int) -> None:
    """Puts them all in, past the store: it would announce each."""
    database, as_indexed = store._database, Searchable().process_bind_param
    with Progress() as progress, database.writer.connect() as connection:
        task = progress.add_task("SQLite" if database.is_sqlite else "PostgreSQL", total=calls)
        index = _take_index(connection)
        for first in range(1, calls + 1, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, calls + 1))
            with connection.begin():
                _insert(connection, "calls", _CALLS, map(call_row, numbers))
                _insert(connection, "streams", _STREAMS, map(stream_row, numbers))
                for number in numbers:
                    rows = ((*row, as_indexed(row[-2], connection.dialect)) for row in segment_rows(number))
                    _insert(connection, "segments", _SEGMENTS, rows)
            progress.update(task, completed=numbers[-1])
        progress.update(task, description="The index for search")
        for statement in (index, "ANALYZE"):
            with connection.begin():
                connection.execute(text(statement))


def _take_index(connection: Connection) -> str:
    """PostgreSQL's index for search is made afresh at the end, which is faster. Gives the statement that makes it."""
    if connection.dialect.name == "sqlite":
        return "SELECT 1"
    with connection.begin():
        made = str(
            connection.scalar(text("SELECT indexdef FROM pg_indexes WHERE indexname = 'segments_searchable'")),
        )
        connection.execute(text("DROP INDEX segments_searchable"))
    return made


def _insert(connection: Connection, table: str, columns: str, rows: Iterator[Row]) -> None:
    cursor = connection.connection.cursor()
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns.split(",")))
        cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(rows))
        return
    with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


# --- What is asked --------------------------------------------------------------------------------------------


def questions(store: Store, calls: int) -> Iterator[tuple[str, Question]]:
    """All that the store is asked, by name."""
    search, listed = partial(_items, store.search), partial(_items, store.calls)
    a_call = f"CA{calls // 2:032x}"
    yield "a word of every third segment", search("w00000")
    yield "a common word", search("w00010")
    yield "a word", search("w01000")
    yield "a rare word", search(RARE)
    yield "a word nobody said", search("nosuchword")
    yield "a common and a rare word", search(f"w00000 {RARE}")
    yield "a common phrase", search('"w00000 w00001"')
    yield "a rare phrase", search('"w05000 w05001"')
    yield "a beginning of half of all words", search("w0*")
    yield "a beginning of ten common words", search("w0000*")
    yield "a beginning of ten words", search("w0100*")
    yield "a beginning of two letters and a rare word", search(f"w1* {RARE}")
    yield "a common word on one side", search("w00000", track="inbound")
    yield "a common word by a rare speaker", search("w00000", speaker=3)
    yield "a common word by nobody", search("w00000", speaker=9)
    yield "a common word in one call", search("w00000", call_sid=a_call)
    deep = _deep(store.search, "w00000", DEEP)
    yield f"a common word, {DEEP:,} hits deep", search("w00000", cursor=deep)
    yield "calls", listed()
    yield "live calls", listed(state="live")
    yield "calls of a number", listed(number=f"{calls // 2:07}")
    yield "calls since a day, by service", listed(since=BEGAN_AT + calls // 2 * 60_000, service="deepgram")
    yield "calls by a service that never listened", listed(service="Gladia")
    yield "calls in which a common word was said", listed(text="w00000")
    yield "calls in which a word was said", listed(text="w01000")
    yield "calls in which a rare word was said", listed(text=RARE)
    yield "calls in which a beginning was said", listed(text="w0100*")
    yield "calls, the last page", listed(cursor=_deep(store.calls, None, calls - PAGE_MOST))
    yield "what was said on a call", partial(store.segments, a_call)


def _items(ask: Callable[..., Page[Any]], *arguments: object, **filters: object) -> Question:
    return lambda: ask(*arguments, **filters).items


def _deep(ask: Callable[..., Page[Any]], words: str | None, items: int) -> str | None:
    """The cursor behind so many items, or behind the last full page."""
    cursor, arguments = None, [] if words is None else [words]
    for _ in range(items // PAGE_MOST):
        following = ask(*arguments, cursor=cursor, limit=PAGE_MOST).next
        if following is None:
            break
        cursor = following
    return cursor


@dataclass(frozen=True, slots=True)
class Answer:
    """How long a question took, in ms, and what the database did for it."""

    question: str
    times: Sequence[float]
    found: int
    plans: Sequence[str]


def answered(store: Store, name: str, question: Question) -> Answer:
    """Asks once to warm up, and to see the statements; then as often as it takes."""
    with seen(store) as statements:
        found = len(question())
    plans = [plan(store, *statement) for statement in dict.fromkeys(statements)]
    times = []
    for _ in range(TIMES):
        began = monotonic()
        question()
        times.append((monotonic() - began) * 1000)
    return Answer(name, times, found, plans)


@contextmanager
def seen(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are executed meanwhile, but for the store's own look for news."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith(("SELECT", "WITH")) and "FROM events" not in statement:
            hashable = tuple(parameters.items()) if isinstance(parameters, dict) else tuple(parameters)
            statements.append((statement, hashable))

    event.listen(store._database.reader, "before_cursor_execute", note)
    yield statements
    event.remove(store._database.reader, "before_cursor_execute", note)


def plan(store: Store, statement: str, parameters: Any) -> str:
    """The database's plan for a statement."""
    explain = "EXPLAIN QUERY PLAN" if store._database.is_sqlite else "EXPLAIN"
    given = parameters if store._database.is_sqlite else dict(parameters)
    with store._database.reader.connect() as connection:
        rows = connection.exec_driver_sql(f"{explain} {statement}", given).all()
    return "\n".join(str(row[-1]) for row in rows)


# --- What is printed ------------------------------------------------------------------------------------------


def measure(console: Console, name: str, url: str, calls: int) -> None:
    """Fills a database and asks all of it."""
    store = Store(url)
    store.open()
    try:
        fill(store, calls)
        answers = [answered(store, *asked) for asked in questions(store, calls)]
    finally:
        store.close(60)
    table = Table(f"{name}, {calls:,} calls", "median", "worst", "found", box=SIMPLE, highlight=False)
    for answer in answers:
        times = f"{median(answer.times):.1f} ms", f"{max(answer.times):.1f} ms"
        table.add_row(answer.question, *times, str(answer.found))
    console.print(table)
    for answer in answers:
        console.print(f"\n{name}: {answer.question}", *answer.plans, sep="\n", markup=False, highlight=False)
    whole = [answer.question for answer in answers if any(map(WHOLE_TABLE.search, answer.plans))]
    assert not whole, f"{name} scans the table of segments for: {', '.join(whole)}"


@click.command()
@click.option("--quick", is_flag=True, help="A look: 200 calls instead of 10,000.")
def main(quick: bool) -> None:
    """Measures both databases and prints a table and the plans."""
    calls, console = CALLS_QUICK if quick else CALLS, Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        measure(console, "SQLite", f"sqlite:///{Path(folder)}/calls.db", calls)
    server = Server()
    try:
        measure(console, "PostgreSQL", server.new_database(), calls)
    finally:
        server.remove()


if __name__ == "__main__":
    main()

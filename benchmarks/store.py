"""What storing costs: finals per second from Store.hear to their commit, and what a slow disk does to the media path.

    python -m benchmarks.store [--finals N] [--seconds S]

On SQLite in a temporary folder, and on a PostgreSQL server that is started for it. Each figure is a median of three
rounds. The media path is a greenlet that wakes every 10 ms, as streams do: how late it wakes is what anything that
holds the event loop would add to a chunk of audio. The slow disk is a pause before every commit, in the thread that
makes it; the last row makes the same pause on the loop instead, as a program would that writes where it listens.
"""
# ruff: noqa: E402  # gevent patches the standard library before anything else is imported

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from time import monotonic
from typing import Final

import click
import gevent
from gevent.event import Event as Flag
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from sqlalchemy.pool import PoolProxiedConnection

from relay.events import StreamBegun, StreamEnded, Track, Transcript, Word
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.store.records import Event, Kind
from relay.store.store import Store
from tests.databases import Server

ROUNDS: Final = 3
CALLS: Final = 50
SENTENCE: Final = ["what", "is", "said", "in", "a", "final", "is", "about", "twelve", "words", "long", "or", "so"]
TICK_S: Final = 0.010  # relay.call.TICK_MS
FINALS_PER_S: Final = 100  # a hundred calls in which both sides take turns
PAUSE_S: Final = 0.250  # of the slow disk, before each commit

_LINES: Final = count(1)

pause: Final = monkey.get_original("time", "sleep")  # holds the thread that calls it, and no other


class Line:
    """Calls that are stored, and someone who is told of it."""

    def __init__(self, store: Store) -> None:
        self.told = 0  # finals
        self._store = store
        line = next(_LINES)
        self._calls = [CallInfo(f"CA{line}-{n}", f"MZ{line}-{n}", (Track.INBOUND,)) for n in range(CALLS)]
        self._said = 0
        self._changed = Flag()
        self._leave = store.subscribe(self._take)
        for call in self._calls:
            store.hear(Happened(call, StreamBegun(("Deepgram",))))

    def say(self) -> None:
        """One more final comes, on the next call."""
        call, at = self._calls[self._said % CALLS], self._said // CALLS * 3000
        self._said += 1
        words = tuple(Word(word, at + 200 * n, at + 200 * n + 180, 0.9) for n, word in enumerate(SENTENCE))
        said = Transcript(Track.INBOUND, " ".join(SENTENCE), at, at + 2400, True, words, 0.9)
        self._store.hear(Happened(call, said, "Deepgram"))

    def wait(self) -> None:
        """Until all that was said is committed."""
        while self.told < self._said:
            self._changed.wait()
            self._changed.clear()

    def end(self) -> None:
        """The calls end."""
        self.wait()
        self._leave()
        for call in self._calls:
            self._store.hear(Happened(call, StreamEnded("stop", 0, 0, 0, 0, 0, 0, 0, 0, None, None)))
        while self._store.waiting:
            gevent.sleep(TICK_S)

    def _take(self, events: Sequence[Event]) -> None:
        self.told += sum(event.is_stored and event.kind is Kind.SEGMENT_FINAL for event in events)
        self._changed.set()


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """A store on this database."""
    store = Store(url)
    store.open()
    try:
        yield store
    finally:
        store.close(60)


@contextmanager
def slow_disk(store: Store) -> Iterator[None]:
    """Each commit takes a while longer."""
    dialect = store._database.writer.dialect
    commit = dialect.do_commit

    def commit_slowly(connection: PoolProxiedConnection) -> None:
        pause(PAUSE_S)
        commit(connection)

    setattr(dialect, "do_commit", commit_slowly)  # noqa: B010  # mypy: it is a method otherwise
    yield
    setattr(dialect, "do_commit", commit)  # noqa: B010


def finals_per_second(store: Store, finals: int) -> float:
    """How many finals are committed in a second, when that is all there is to do."""
    line = Line(store)
    began = monotonic()
    for _ in range(finals):
        line.say()
    line.wait()
    took = monotonic() - began
    line.end()
    return finals / took


def commit_ms(store: Store, finals: int) -> float:
    """How long a lone final takes until it is committed and told, in the middle."""
    line, delays = Line(store), []
    for _ in range(finals):
        began = monotonic()
        line.say()
        line.wait()
        delays.append(monotonic() - began)
    line.end()
    return median(delays) * 1000


def lateness_ms(seconds: float) -> float:
    """How late a greenlet wakes that wants to every 10 ms: the 99th percentile."""
    late, until = [], monotonic() + seconds
    while (now := monotonic()) < until:
        gevent.sleep(TICK_S)
        late.append(monotonic() - now - TICK_S)
    return quantiles(late, n=100)[98] * 1000


def lateness_while_storing_ms(store: Store, seconds: float) -> float:
    """The same, while finals come at the pace of a hundred calls."""
    line = Line(store)
    talking = gevent.spawn(_talk, line)
    late = lateness_ms(seconds)
    talking.kill()
    line.end()
    return late


def _talk(line: Line) -> None:
    while True:
        gevent.sleep(1 / FINALS_PER_S)
        line.say()


def lateness_with_commits_on_the_loop_ms(seconds: float) -> float:
    """The same, with a slow disk and nobody but the loop to wait for it."""
    waiting = gevent.spawn(_commit_on_the_loop)
    late = lateness_ms(seconds)
    waiting.kill()
    return late


def _commit_on_the_loop() -> None:
    while True:
        gevent.sleep(1 / FINALS_PER_S)
        pause(PAUSE_S)


def measure(name: str, url: str, finals: int, seconds: float) -> list[str]:
    """A row of the table."""
    with opened(url) as store:
        rate = median(finals_per_second(store, finals) for _ in range(ROUNDS))
        lone = median(commit_ms(store, 100) for _ in range(ROUNDS))
        idle = median(lateness_ms(seconds) for _ in range(ROUNDS))
        busy = median(lateness_while_storing_ms(store, seconds) for _ in range(ROUNDS))
        with slow_disk(store):
            slow = median(lateness_while_storing_ms(store, seconds) for _ in range(ROUNDS))
    held = lateness_with_commits_on_the_loop_ms(seconds)
    times = [f"{late:.2f} ms ({late / idle:.1f} x)" for late in (idle, busy, slow, held)]
    return [name, f"{rate:.0f}", f"{lone:.1f} ms", *times]


@click.command()
@click.option("--finals", default=5000, show_default=True, help="Finals in a round that counts them.")
@click.option("--seconds", default=10.0, show_default=True, help="Length of a round that looks for lateness.")
def main(finals: int, seconds: float) -> None:
    """Measures both databases and prints a table."""
    head = ("", "finals/s", "one final", "late: idle", "storing", "with a slow disk", "commits on the loop")
    table = Table(*head, box=SIMPLE, highlight=False)
    server = Server(is_durable=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            table.add_row(*measure("SQLite", f"sqlite:///{Path(folder)}/calls.db", finals, seconds))
        table.add_row(*measure("PostgreSQL", server.new_database(), finals, seconds))
    finally:
        server.remove()
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

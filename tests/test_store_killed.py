"""Programs that store calls are killed at random: what they announced is there once, and all calls are closed."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any, Final

import orjson
import pytest
from gevent import sleep

from relay.store.records import Event, State
from relay.store.store import Store
from tests.program import ROOT
from tests.storing import opened

pytest_plugins = ("tests.databases",)

KILLS: Final = 30
AT_ONCE: Final = 3  # programs that share the database


def start(url: str, name: str) -> subprocess.Popen[bytes]:
    """A program that stores calls and prints what it is told."""
    return subprocess.Popen([sys.executable, "-m", "tests.store_victim", url, name], cwd=ROOT, stdout=subprocess.PIPE)


def until_a_final(program: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """What it prints until it has stored something that was said."""
    assert program.stdout is not None
    printed: list[dict[str, Any]] = []
    while not printed or printed[-1]["kind"] != "segment.final":
        printed.append(orjson.loads(program.stdout.readline()))
    return printed


def killed(program: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """What it had printed when it was killed; a line that it was in the middle of does not count."""
    program.kill()
    printed, _ = program.communicate()
    return [orjson.loads(line) for line in printed.splitlines(keepends=True) if line.endswith(b"\n")]


def all_events(store: Store) -> list[Event]:
    """All there are."""
    events: list[Event] = []
    while more := store.events_after(events[-1].id if events else 0, limit=500):
        events += more
    return events


@pytest.mark.once
@pytest.mark.timeout(300)
def test_what_was_announced_is_there_once_however_often_programs_are_killed(database: str) -> None:
    printed: list[dict[str, Any]] = []
    for turn in range(KILLS // AT_ONCE):
        programs = [start(database, f"{turn}-{number}") for number in range(AT_ONCE)]
        for program in programs:
            printed += until_a_final(program)
        for program in programs:
            sleep(random.uniform(0, 0.3))
            printed += killed(program)

    with opened(database) as store:
        stored = {event.id: event for event in all_events(store)}
        for told in printed:
            event = stored[told["id"]]
            assert (event.call_sid, event.sequence, event.kind) == (told["call"], told["sequence"], told["kind"])
            assert event.data == told["data"]
        calls = {event.call_sid for event in stored.values()}
        for sid in calls:
            is_sound(store, sid, [event for event in stored.values() if event.call_sid == sid])
        assert store.calls(state="live").items == ()
        finals = sum(event.kind == "segment.final" for event in stored.values())
        assert finals == sum(len(store.segments(sid)) for sid in calls) == deliveries(store)
        assert finals >= KILLS


def is_sound(store: Store, sid: str, events: list[Event]) -> None:
    """A call is closed, and what is told of it is what is stored."""
    assert (call := store.call(sid)) is not None
    assert call.state is State.ENDED
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].kind == "call.ended"
    segments = store.segments(sid)
    assert [event.data["segment"]["id"] for event in events if event.kind == "segment.final"] == [
        segment.id for segment in segments
    ]
    assert [segment.text.rpartition(" ")[2] for segment in segments] == [str(n) for n in range(len(segments))]
    assert call.duration_ms >= max((segment.end_ms for segment in segments), default=0)


def deliveries(store: Store) -> int:
    """How many there are."""
    found, page = 0, store.deliveries(limit=500)
    while True:
        found += len(page.items)
        if page.next is None:
            return found
        page = store.deliveries(limit=500, cursor=page.next)

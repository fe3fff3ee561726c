"""What viewers of the live feed are told of a stream that Twilio could not open."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from gevent.event import Event

from relay.protocol import CallInfo
from relay.store.store import Store
from tests.serving import Serving, begun, call_info, ended, serving
from tests.test_neighbours import neighbours
from tests.watching import WITHIN

if TYPE_CHECKING:
    from tests.databases import Server as Database
    from tests.watching import Watcher

pytest_plugins = ("tests.databases", "tests.stores")

NEVER = CallInfo(f"CA{'9' * 32}", f"MZ{'9' * 32}", ())
LATER = CallInfo(f"CA{'8' * 32}", f"MZ{'8' * 32}", ())
KIND = "stream-unopened"


def report(running: Serving, call: CallInfo, error: str, event: str = "stream-error") -> None:
    """Twilio says how a stream fares."""
    names = {"CallSid": call.call_sid, "StreamSid": call.stream_sid}
    said = urlencode(names | {"StreamEvent": event, "StreamError": error})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert running.ask_as(form, f"/stream-status/{running.passes.stream_key}", "POST", said).status == 204


def told(watcher: Watcher) -> list[str]:
    """The failures it was told of."""
    return [each.data["error"] for each in watcher.of(KIND)]


def test_it_is_told_at_once_and_to_who_comes_later_until_a_call_begins(store: Store) -> None:
    with serving(store) as running:
        watcher = running.watch()
        report(running, NEVER, "31920 - Handshake wss://calls.example.com/media/s3cr3t")
        watcher.wait_for_kind(KIND)
        late = running.watch()
        late.wait_for_kind(KIND)
        failure: Any = late.of(KIND)[0]
        assert failure.id is None
        assert failure.data == watcher.of(KIND)[0].data
        assert failure.data.keys() == {"call_sid", "failed_at", "error", "advice"}
        assert (failure.data["call_sid"], failure.data["error"]) == (NEVER.call_sid, "31920 - Handshake (URL)")
        assert "Is the path right" in failure.data["advice"]
        running.happens(call_info(1), begun())
        watcher.wait_for_kind("call.started")
        afterwards = running.watch()
        running.happens(call_info(1), ended())
        afterwards.wait_for_kind("call.ended")
        assert told(afterwards) == []


def test_reports_of_calls_that_have_begun_and_of_streams_that_are_well_are_no_news(store: Store) -> None:
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call_info(1), begun(), ended())
        running.happens(call_info(2), begun())
        watcher.wait_for_kind("call.started", 2)
        report(running, NEVER, "", "stream-started")
        for number in (1, 2):
            report(running, call_info(number), f"31930 - of call {number}")
        report(running, LATER, "31901 - and this is news")
        watcher.wait_for_kind(KIND)
        assert told(watcher) == ["31901 - and this is news"]


def test_a_report_of_a_call_that_runs_but_is_not_written_yet_is_no_news(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'calls.db'}")
    store.open()
    with serving(store) as running, closing(sqlite3.connect(tmp_path / "calls.db")) as other:
        watcher = running.watch()
        other.execute("BEGIN IMMEDIATE")  # nobody else can write
        running.happens(call_info(1), begun())
        report(running, call_info(1), "31930 - of a call that runs")
        report(running, NEVER, "31901 - and this is news")
        watcher.wait_for_kind(KIND)
        other.rollback()
        assert told(watcher) == ["31901 - and this is news"]
    store.close(10)


def test_nobody_is_told_who_may_see_one_call_only(store: Store) -> None:
    with serving(store) as running:
        of_one = running.watch(NEVER.call_sid)
        of_all = running.watch()
        report(running, NEVER, "31920")
        of_all.wait_for_kind(KIND)
        of_one_later = running.watch(NEVER.call_sid)
        running.happens(NEVER, begun(), ended())  # after all
        for watcher in (of_one, of_one_later):
            watcher.wait_for_kind("call.ended")
            assert told(watcher) == []
        assert told(of_all) == ["31920"]


def test_viewers_at_other_workers_are_told_too(make_store: Callable[[], Store]) -> None:
    with neighbours(2) as (one, other), ExitStack() as both:
        here = both.enter_context(serving(make_store(), neighbours=one))
        there = both.enter_context(serving(make_store(), neighbours=other))
        watcher = there.watch()
        report(here, NEVER, "31920")
        watcher.wait_for_kind(KIND)
        late = there.watch()
        late.wait_for_kind(KIND)
        here.happens(call_info(1), begun())
        watcher.wait_for_kind("call.started")
        afterwards = there.watch()
        here.happens(call_info(1), ended())
        afterwards.wait_for_kind("call.ended")
        assert told(afterwards) == []


@pytest.mark.once
def test_while_the_database_is_away_nobody_knows_whether_a_call_began(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(postgresql.new_database())
    store.open()
    with serving(store) as running:
        watcher, judged = running.watch(), Event()
        has_begun = running.live._unopened._has_begun

        def judge(call_sid: str) -> bool:
            begun = has_begun(call_sid)
            judged.set()
            return begun

        monkeypatch.setattr(running.live._unopened, "_has_begun", judge)
        postgresql.stop()
        try:
            report(running, NEVER, "31920 - while it is away")
            assert judged.wait(WITHIN)
        finally:
            postgresql.start()
        running.happens(call_info(1), begun(), ended())
        watcher.wait_for_kind("call.ended")
        report(running, LATER, "31901 - when it is back")
        watcher.wait_for_kind(KIND)
        assert told(watcher) == ["31901 - when it is back"]
    store.close(10)

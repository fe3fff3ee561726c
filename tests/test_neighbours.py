"""What several workers tell one another: what is nowhere kept, and which streams are over."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import gevent
import pytest

from relay.events import Listened, ServiceConnected
from relay.passes import Kind as PassKind
from relay.passes import Passes, Scope
from relay.store.store import Store
from relay.web import elsewhere as elsewhere_module
from relay.web.elsewhere import PORTION, portions
from relay.web.neighbours import MESSAGE_MOST, Kind, Lines, Neighbours
from relay.web.shown import Frame
from standins.twilio import SimulatedCall
from tests.calling import answered, hang_up, say
from tests.program import Program, program
from tests.serving import Serving, begun, call_info, ended, final, interim, serving
from tests.talking import listening
from tests.watching import WITHIN, Watcher

if TYPE_CHECKING:
    from tests.databases import Server as Database

pytest_plugins = ("tests.databases", "tests.stores")
pytestmark = pytest.mark.once

KEY = "k3y-n0b0dy-may-s33"
several_workers = pytest.mark.skipif(sys.platform != "linux", reason="processes share a port on Linux only")


def wait_until(predicate: Callable[[], object], within: float = 30.0) -> None:
    """Returns once the predicate holds; of other processes there is no event to wait for."""
    with gevent.Timeout(within):
        while not predicate():
            gevent.sleep(0.05)


@contextmanager
def neighbours(count: int) -> Iterator[list[Neighbours]]:
    """So many in this process."""
    lines = Lines(count)
    several = [Neighbours(place, [os.dup(line) for line in lines.of(place)]) for place in range(count)]
    try:
        yield several
    finally:
        for each in several:
            each.close()
        lines.close()


# --- Messages ------------------------------------------------------------------------------------------------------


def note(heard: list[tuple[str, int, object]], name: str, place: int, said: object) -> None:
    """Who heard what, and from whom."""
    heard.append((name, place, said))


def test_all_are_told_or_one_and_know_by_whom() -> None:
    with neighbours(3) as (one, other, third):
        heard: list[tuple[str, int, object]] = []
        for name, each in (("one", one), ("other", other), ("third", third)):
            each.on(Kind.OVER, partial(note, heard, name))
        other.tell(Kind.OVER, ["all"])
        third.tell(Kind.OVER, "you", to=0)
        with gevent.Timeout(WITHIN):
            while len(heard) < 3:
                gevent.sleep(0.01)
        assert sorted(heard, key=str) == [("one", 1, ["all"]), ("one", 2, "you"), ("third", 1, ["all"])]
        assert (other.sent[Kind.OVER], third.sent[Kind.OVER]) == (2, 1)


def test_one_that_does_not_read_holds_up_nobody_and_what_it_has_no_room_for_is_counted() -> None:
    with neighbours(2) as (one, other):
        heard: list[int] = []
        other.on(Kind.SHOWN, lambda place, said: heard.append(len(said)))
        for _ in range(10_000):
            one.tell(Kind.SHOWN, "x" * 1_000)  # and nobody else has a turn
        assert heard == []
        assert one.sent[Kind.SHOWN] > 20
        assert one.dropped[Kind.SHOWN] > 1_000
        assert one.dropped[Kind.SHOWN] == 10_000 - one.sent[Kind.SHOWN]
        with gevent.Timeout(WITHIN):
            while len(heard) < one.sent[Kind.SHOWN]:
                gevent.sleep(0.01)
        one.tell(Kind.SHOWN, "again")
        with gevent.Timeout(WITHIN):
            while heard[-1] != 5:
                gevent.sleep(0.01)


def test_what_is_too_large_is_not_sent_and_what_cannot_be_heard_does_no_harm() -> None:
    with neighbours(2) as (one, other):
        heard: list[object] = []
        other.on(Kind.OVER, lambda place, said: heard.append(said["none"] if said == "bad" else said))
        one.tell(Kind.OVER, "x" * MESSAGE_MOST)
        for said in ("bad", "good"):
            one.tell(Kind.OVER, said)
        with gevent.Timeout(WITHIN):
            while not heard:
                gevent.sleep(0.01)
        assert heard == ["good"]
        assert one.dropped[Kind.OVER] == 1


def test_who_takes_a_dead_workers_place_reads_where_that_one_did() -> None:
    lines = Lines(2)
    one, dead, successor = (Neighbours(at, [os.dup(line) for line in lines.of(at)]) for at in (0, 1, 1))
    heard: list[object] = []
    successor.on(Kind.OVER, lambda place, said: heard.append(said))
    dead.close()
    one.tell(Kind.OVER, "hello")
    with gevent.Timeout(WITHIN):
        while not heard:
            gevent.sleep(0.01)
    for each in (one, successor, lines):
        each.close()


def test_frames_are_sent_in_messages_of_a_bounded_size() -> None:
    frames = [Frame("CA1", 0, b"x" * size) for size in (10, PORTION, 5, 5, 3 * PORTION, 1)]
    assert [len(some) for some in portions(frames)] == [1, 1, 2, 1, 1]
    assert [frame for some in portions(frames) for frame in some] == frames
    assert list(portions([])) == []


# --- Two servers in this process -----------------------------------------------------------------------------------


def test_an_interim_is_never_shown_after_its_final(make_store: Callable[[], Store]) -> None:
    """Finals come by the store and interims do not, so they might overtake each other."""
    call = call_info(1)
    with neighbours(2) as (one, other), ExitStack() as both:
        here = both.enter_context(serving(make_store(), neighbours=one))
        there = both.enter_context(serving(make_store(), neighbours=other))
        watcher = there.watch(call.call_sid, last_id=0)
        here.happens(call, begun())
        with gevent.Timeout(WITHIN):
            while not one.sent[Kind.SHOWN]:
                here.happens(call, Listened(20))
                gevent.sleep(0.01)
        for number in range(120):
            here.happens(call, interim(f"um {number}", number * 1_000))
            gevent.sleep(number % 8 * 0.01)
            here.happens(call, interim(f"word {number}", number * 1_000), final(f"word {number}", number * 1_000))
            gevent.sleep(number % 5 * 0.01)
        here.happens(call, ended())
        watcher.wait_for_kind("call.ended")
    told = [(each.kind, int(text.split()[1])) for each in watcher.told if (text := text_of(each.data))]
    assert {kind for kind, _ in told} == {"interim", "segment.final"}
    for at, (kind, number) in enumerate(told):
        assert kind == "interim" or ("interim", number) not in told[at:], f"{number} comes back"


def text_of(data: dict[str, object]) -> str:
    """What was said, if something was."""
    segment = data.get("segment") or data
    assert isinstance(segment, dict)
    return str(segment.get("text", ""))


def test_the_newest_is_told_while_it_is_wanted_and_nothing_before_and_afterwards(
    make_store: Callable[[], Store],
) -> None:
    call, unwatched = call_info(1), call_info(2)
    with neighbours(2) as (one, other), ExitStack() as both:
        here = both.enter_context(serving(make_store(), neighbours=one))
        there = both.enter_context(serving(make_store(), neighbours=other, heartbeat_s=0.02))
        here.happens(call, begun(), ServiceConnected("Deepgram", 0), interim("before"))
        here.happens(unwatched, begun(), interim("secret"))
        gevent.sleep(0.2)
        assert not one.sent
        assert not other.sent
        watcher = there.watch(call.call_sid)
        watcher.wait_for(lambda: watcher.texts("interim") == ["before"])
        for number in range(1_000):
            here.happens(call, interim(f"number {number}"))
        watcher.wait_for(lambda: "number 999" in watcher.texts("interim"))
        assert watcher.texts("interim") == ["before", "number 999"]
        assert one.sent[Kind.SHOWN] < 10
        watcher.close()
        with gevent.Timeout(WITHIN):
            while there.live.viewers:
                gevent.sleep(0.01)
        wait_until(lambda: not wants(here, call.call_sid))
        sent = one.sent.copy() + other.sent
        here.happens(call, interim("afterwards"), ended())
        here.happens(unwatched, ended())
        gevent.sleep(0.2)
        assert one.sent + other.sent == sent


def wants(running: Serving, call_sid: str) -> bool:
    """Whether a server knows of viewers at its neighbours who watch this call."""
    assert running.live._elsewhere is not None
    return running.live._elsewhere.wants(call_sid)


def test_a_neighbour_that_says_nothing_more_is_sent_nothing_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed, perhaps; what it would be sent would be in the way of what its successor is."""
    monkeypatch.setattr(elsewhere_module, "FORGOTTEN_AFTER", 0.5)
    with neighbours(2) as (one, other), serving(store, neighbours=one) as running:
        running.happens(call_info(1), begun())
        with gevent.Timeout(WITHIN):
            while not one.sent[Kind.SHOWN]:
                other.tell(Kind.WANTED, {"calls": None, "now": []})
                running.happens(call_info(1), interim("hello"))
                gevent.sleep(0.01)
            while wants(running, call_info(1).call_sid):
                running.happens(call_info(1), interim("hello"))
                gevent.sleep(0.01)
        sent = one.sent[Kind.SHOWN]
        running.happens(call_info(1), interim("nobody hears this"), ended())
        gevent.sleep(0.2)
        assert one.sent[Kind.SHOWN] == sent


def test_finals_that_cannot_be_stored_yet_are_shown_at_other_workers_too(postgresql: Database) -> None:
    database = postgresql.new_database()
    stores = [Store(database) for _ in range(2)]
    for each in stores:
        each.open()
    call = call_info(1)
    with neighbours(2) as (one, other), ExitStack() as both:
        here = both.enter_context(serving(stores[0], neighbours=one))
        there = both.enter_context(serving(stores[1], neighbours=other))
        here.happens(call, begun(), final("before"))
        watcher = there.watch(call.call_sid, last_id=0)
        watcher.wait_for_kind("segment.final")
        postgresql.stop()
        try:
            here.happens(call, final("meanwhile", 2_000))
            watcher.wait_for_kind("final-unsaved")
        finally:
            postgresql.start()
        watcher.wait_for_kind("segment.final", 2)
        here.happens(call, ended())
        watcher.wait_for_kind("call.ended")
    for each in stores:
        each.close(10)
    assert watcher.texts("final-unsaved") == ["meanwhile"]
    assert watcher.texts() == ["before", "meanwhile"]


# --- Whole servers -------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """A server of several workers."""

    started: Program
    port: int
    token: str
    key: str

    @property
    def workers(self) -> set[str]:
        """By process."""
        pid = self.started.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    @property
    def url(self) -> str:
        """Where calls go."""
        return f"ws://127.0.0.1:{self.port}/media/{self.key}"

    def figures(self, name: str) -> dict[str, float]:
        """A figure of each worker, of all its labels together. Which of them answers is chance, so they are asked until
        all have."""
        found: dict[str, float] = {}
        with gevent.Timeout(WITHIN):
            while self.workers - found.keys():
                text = self._ask("GET", "/metrics")
                worker = re.search(r'worker="(\d+)"', text)
                assert worker is not None
                figures = re.findall(rf"^{name}{{.*}} (\S+)$", text, re.MULTILINE)
                found[worker[1]] = sum(map(float, figures))
        return {worker: found[worker] for worker in self.workers}

    def report_over(self, call: SimulatedCall) -> None:
        """Twilio says that a call's stream is over, to some worker."""
        said = {"CallSid": call.call_sid, "StreamSid": call.stream_sid, "StreamEvent": "stream-stopped"}
        self._ask("POST", f"/stream-status/{self.key}", urlencode(said))

    def watch(self, call_sid: str | None = None) -> Watcher:
        """At some worker."""
        return Watcher(f"http://127.0.0.1:{self.port}", call_sid, token=self.token)

    def watch_everywhere(self, call_sid: str | None = None) -> list[Watcher]:
        """At every worker."""
        watchers = [self.watch(call_sid) for _ in range(6)]
        while not all(self.figures("relay_viewers").values()):
            watchers.append(self.watch(call_sid))
        return watchers

    def is_whole(self) -> bool:
        """Whether all workers listen."""
        table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return sum(row[1].endswith(f":{self.port:04X}") and row[3] == "0A" for row in table) == 3

    def _ask(self, method: str, path: str, form: str | None = None) -> str:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/x-www-form-urlencoded"}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WITHIN)
        try:
            connection.request(method, path, form, headers)
            response = connection.getresponse()
            assert response.status in (200, 204), response.read()
            return response.read().decode()
        finally:
            connection.close()


@contextmanager
def three_workers(folder: Path) -> Iterator[Server]:
    """`python app.py` with three workers, all of which listen."""
    with listening() as speech:
        settings = {"WORKERS": "3", "PORT": "0", "DEEPGRAM_URL": speech.url, "DEEPGRAM_API_KEY": KEY}
        with program(folder=folder, **settings) as started:
            port = int(started.line(r"Server listening on: http://localhost:(\d+)")[1])
            passes = Passes(folder / "data" / "access")
            server = Server(started, port, passes.issue(PassKind.TOKEN, Scope, for_s=600), passes.stream_key)
            wait_until(server.is_whole)
            yield server
            assert "Traceback" not in str(started)


def say_on(call: SimulatedCall) -> None:
    """Speech in real time, for as long as nobody stops it."""
    for at_ms in count(0, 100):
        say(call, 100, at_ms=at_ms)
        gevent.sleep(0.1)


def sees_words(watcher: Watcher, call_sid: str) -> bool:
    """Whether it has seen what seems to be said."""
    return call_sid in [told.data["call_sid"] for told in watcher.of("interim")]


def see_it_all(watchers: list[Watcher], call: SimulatedCall) -> None:
    """Each sees what seems to be said on a call."""
    for watcher in watchers:
        watcher.wait_for(partial(sees_words, watcher, call.call_sid))


def states(watcher: Watcher) -> list[str | None]:
    """What it has seen of how the service is, one after the other."""
    return [status.data["services"].get("Deepgram", {}).get("state") for status in watcher.of("status")]


@several_workers
def test_viewers_at_every_worker_see_interims_and_how_a_stream_is_doing(tmp_path: Path) -> None:
    with three_workers(tmp_path) as server:
        call = SimulatedCall(server.url, tracks=("inbound",))
        watchers, of_all = server.watch_everywhere(call.call_sid), server.watch_everywhere()
        call.open()
        call.start()
        speaker = gevent.spawn(say_on, call)
        see_it_all([*watchers, *of_all], call)
        for watcher in watchers:
            watcher.wait_for(lambda watcher=watcher: "listening" in states(watcher))  # type: ignore[misc]
        speaker.kill()
        hang_up(call)
        for watcher in [*watchers, *of_all]:
            watcher.wait_for_kind("call.ended")
            assert all(re.fullmatch("in[0-9]+", word) for word in " ".join(watcher.texts("interim")).split())
        for watcher in watchers:  # how it is told comes another way than its end
            watcher.wait_for(lambda watcher=watcher: states(watcher)[-1:] == [None])  # type: ignore[misc]
        assert not any(watcher.of("status") for watcher in of_all)
        assert not sum(server.figures("relay_neighbours_untold_total").values())


@several_workers
def test_who_begins_to_watch_a_quiet_call_at_another_worker_sees_how_it_is_now(tmp_path: Path) -> None:
    with three_workers(tmp_path) as server:
        call = answered(server.url, "inbound")
        say(call, 1_000)
        first = server.watch_everywhere(call.call_sid)
        see_it_all(first, call)
        for watcher in (more := server.watch_everywhere(call.call_sid)):
            watcher.wait_for_kind("status")
        see_it_all(more, call)
        hang_up(call)


@several_workers
def test_without_viewers_nothing_is_said(tmp_path: Path) -> None:
    with three_workers(tmp_path) as server:
        call = answered(server.url)
        say(call, 3_000)
        hang_up(call)
        server.started.line("^Call CA.* ended")
        assert set(server.figures("relay_neighbours_told_total").values()) == {0.0}


@several_workers
def test_a_killed_worker_is_missed_by_nobody_and_its_successor_is_told(tmp_path: Path) -> None:
    with three_workers(tmp_path) as server:
        of_all = server.watch_everywhere()
        before = server.workers
        victim = min(before)
        os.kill(int(victim), signal.SIGKILL)
        server.started.line("a worker ended with status -9 and is replaced")
        wait_until(lambda: len(server.workers - {victim}) == 3 and server.is_whole())
        (successor,) = server.workers - before
        left = [watcher for watcher in of_all if not watcher.over] + server.watch_everywhere()
        calls = [answered(server.url, "inbound") for _ in range(6)]
        while not server.figures("relay_streams_live")[successor]:
            calls.append(answered(server.url, "inbound"))
        for call in calls:
            # A new worker learns within seconds what is watched at the others, and what it showed before is gone.
            speaker = gevent.spawn(say_on, call)
            see_it_all([watcher for watcher in left if not watcher.over], call)
            speaker.kill()
            hang_up(call)
        assert len(left) > len(of_all) / 3


@several_workers
def test_a_stream_that_twilio_says_is_over_ends_whichever_worker_was_told(tmp_path: Path) -> None:
    with three_workers(tmp_path) as server:
        calls = [answered(server.url, "inbound") for _ in range(12)]
        for call in calls:
            say(call, 200)
        wait_until(lambda: sum(server.figures("relay_streams_live").values()) == len(calls))
        for call in calls:
            server.report_over(call)
        for call in calls:
            server.started.line(rf"^Call CA\.\.{call.call_sid[-6:]} ended \(Twilio reported stream-stopped\)")
        assert sum(server.figures("relay_neighbours_told_total").values()) >= 2, "each was told where it ran"

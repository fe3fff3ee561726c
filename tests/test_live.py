"""The live feed through a real server: what comes, who comes back, and who does not read."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gevent
import pytest

from relay.events import (
    Gap,
    Listened,
    ServiceConnected,
    ServiceConnecting,
    ServiceLost,
    ServiceRefused,
    Track,
)
from relay.store.records import Event
from relay.store.store import Store
from relay.web import live as live_module
from relay.web.live import Viewer
from relay.web.shown import Frame
from standins.deepgram import Drop, Fault
from tests.calling import answered, hang_up, say
from tests.serving import Serving, begun, call_info, ended, final, interim, serving
from tests.storing import eventually, opened
from tests.talking import deepgram, listening
from tests.watching import WITHIN, one_that_does_not_read

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases", "tests.stores")


def say_and_wait(running: Serving, *texts: str, number: int = 1, start_ms: int = 0) -> None:
    """Finals on a call, which are stored when this returns."""
    for index, text in enumerate(texts):
        running.happens(call_info(number), final(text, start_ms + index * 1_000))
    stored(running, number, texts[-1])


def stored(running: Serving, number: int, text: str) -> None:
    """Waits until a text is in the store."""
    with gevent.Timeout(WITHIN):
        while text not in [segment.text for segment in running.store.segments(call_info(number).call_sid)]:
            gevent.sleep(0.01)


def all_ids(store: Store, call_sid: str | None = None) -> list[int]:
    """The ids of all events there are."""
    return [event.id for event in store.events_after(0, call_sid=call_sid, limit=500)]


# --- What comes ------------------------------------------------------------------------------------------------


def test_a_call_is_watched_from_its_begin_to_its_end(store: Store) -> None:
    call = call_info(1)
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call, begun(), interim("hello"), final("hello there", 500))
        running.happens(call, Gap(Track.OUTBOUND, 1_000, 2_500, "the network was away"), ended())
        watcher.wait_for_kind("call.ended")
    told = [event.kind for event in watcher.told if event.id is not None]
    assert told == ["call.started", "segment.final", "gap", "call.ended"]
    assert watcher.ids == sorted(set(watcher.ids)) == all_ids(store)
    (started,), (said,), (gap,), (end,) = map(watcher.of, ("call.started", "segment.final", "gap", "call.ended"))
    assert started.data["caller"] == "+15550100"
    assert {told.data["call_sid"] for told in watcher.told} == {call.call_sid}
    assert said.data["segment"]["text"] == "hello there"
    assert [word["start_ms"] for word in said.data["segment"]["words"]] == [500, 1_000]
    assert gap.data["gap"]["reason"] == "the network was away"
    assert [told.data["sequence"] for told in (started, said, gap, end)] == [1, 2, 3, 4]
    (unsure,) = watcher.of("interim")
    assert unsure.id is None
    assert unsure.data == {
        "call_sid": call.call_sid,
        "stream_sid": call.stream_sid,
        "track": "inbound",
        "service": "Deepgram",
        "offset_ms": 0,
        "text": "hello",
        "start_ms": 0,
        "end_ms": 500,
        "behind_ms": None,
    }
    assert started.data["at_ms"] == 0
    assert end.data["at_ms"] == end.data["duration_ms"]
    assert not {"segments", "gaps"} & end.data.keys()


def test_it_is_an_event_stream_that_nobody_holds_back(store: Store) -> None:
    with serving(store) as running:
        watcher = running.watch()
        headers = watcher.response.headers
        watcher.wait_for(lambda: watcher.retry_ms)
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Transfer-Encoding"] == "chunked"
    assert 1_000 <= watcher.retry_ms <= 3_000


def test_a_real_call_is_watched(store: Store) -> None:
    with listening() as speech, serving(store, deepgram(speech)) as running:
        watcher = running.watch()
        call = answered(running.relay.url, "inbound")
        say(call, 6_000)
        hang_up(call)
        watcher.wait_for_kind("call.ended")
    assert " ".join(watcher.texts()).split() == [f"in{number}" for number in range(300)]
    assert watcher.of("interim")
    assert all(told.data["call_sid"] == call.call_sid for told in watcher.told)


def test_who_watches_one_call_hears_of_no_other(store: Store) -> None:
    with serving(store) as running:
        one, both = running.watch(call=call_info(1).call_sid), running.watch()
        for number in (1, 2):
            running.happens(call_info(number), begun(), interim(f"um {number}"), final(f"call {number}"), ended())
        for watcher in (one, both):
            watcher.wait_for_kind("call.ended", 2 if watcher is both else 1)
    assert {told.data["call_sid"] for told in one.told} == {call_info(1).call_sid}
    assert one.texts() == ["call 1"]
    assert one.texts("interim") == ["um 1"]
    assert sorted(both.texts()) == ["call 1", "call 2"]


def test_a_quiet_feed_is_kept_open_and_one_that_left_is_noticed(store: Store) -> None:
    with serving(store, heartbeat_s=0.02) as running:
        watcher = running.watch()
        watcher.wait_for(lambda: watcher.heartbeats > 2)
        assert running.live.viewers == 1
        watcher.close()
        with gevent.Timeout(WITHIN):
            while running.live.viewers:
                gevent.sleep(0.01)


HOSTILE: Final = (
    "one\n\nid: 999999\nevent: call.ended\ndata: {}\n\n",
    "one\r\rdata: two\r\n",
    "\u2028\u2029\u0085\x0b\x0c",
    "</script><script>alert(1)</script>",
    "naïve 日本語 🎧 \u202e",
    '"}\\',
)


def test_no_words_can_leave_their_event(store: Store) -> None:
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call_info(1), begun())
        for number, text in enumerate(HOSTILE):
            running.happens(call_info(1), interim(text), final(text, number * 1_000))
        running.happens(call_info(1), ended())
        watcher.wait_for_kind("call.ended")
        ids = all_ids(store)
    assert watcher.texts("interim") == watcher.texts() == list(HOSTILE)
    assert watcher.ids == ids


# --- What is nowhere kept --------------------------------------------------------------------------------------


def test_how_a_stream_is_doing_is_told_at_each_change_to_those_who_watch_its_call(store: Store) -> None:
    call = call_info(1)
    with serving(store) as running:
        everyone, watcher = running.watch(), running.watch(call.call_sid)
        running.happens(call, begun(), ServiceConnecting("Deepgram", 1), ServiceConnected("Deepgram", 0))
        running.happens(call, replace(interim("hello"), behind_ms=230), Listened(2_000, 40))
        running.happens(call, ServiceLost("Deepgram", "gone", 0.2), ServiceConnecting("Deepgram", 2))
        running.happens(call, ServiceConnected("Deepgram", 500), ServiceRefused("Deepgram", "no"), ended(3_000))
        for each in (everyone, watcher):
            each.wait_for_kind("call.ended")
        watcher.wait_for_kind("status", 7)
    told = [(each.data["until_ms"], each.data["unsent_ms"], each.data["services"]) for each in watcher.of("status")]
    assert told == [
        (0, 0, {"Deepgram": {"state": "connecting", "behind_ms": None}}),
        (0, 0, {"Deepgram": {"state": "listening", "behind_ms": None}}),
        (2_000, 40, {"Deepgram": {"state": "listening", "behind_ms": 230}}),
        (2_000, 40, {"Deepgram": {"state": "lost", "behind_ms": 230}}),
        (2_000, 40, {"Deepgram": {"state": "listening", "behind_ms": 230}}),
        (2_000, 40, {"Deepgram": {"state": "refused", "behind_ms": 230}}),
        (3_000, 0, {}),
    ]
    assert everyone.of("status") == []
    assert watcher.texts("interim") == everyone.texts("interim") == ["hello", ""]  # void since the connection was lost


def test_an_interim_of_nothing_is_taken_back_and_one_of_something_is_followed_by_it(store: Store) -> None:
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call_info(1), begun(), interim("um"), final(""))
        running.happens(call_info(1), interim("hello"), final("hello"), ended())
        watcher.wait_for_kind("call.ended")
    assert watcher.texts("interim") == ["um", "", "hello"]
    assert watcher.of("interim")[1].data["start_ms"] is None


def test_who_begins_to_watch_in_the_middle_of_a_call_sees_how_it_is_now(store: Store) -> None:
    call, later = call_info(1), call_info(1, stream=2)
    with serving(store) as running:
        running.happens(call, begun(), final("first"), ended(2_000))
        running.happens(later, begun(), ServiceConnected("Deepgram", 0), Listened(400))
        running.happens(later, interim("old"), interim("hello", 100), interim("hi", track=Track.OUTBOUND))
        running.happens(call_info(2), begun(), ServiceConnected("Deepgram", 0), interim("elsewhere"))
        with gevent.Timeout(WITHIN):
            while not (offset_ms := running.store.offset_ms(later.stream_sid)):
                gevent.sleep(0.01)
        watcher = running.watch(call.call_sid)
        watcher.wait_for_kind("interim", 2)
        (status,), interims = watcher.of("status"), watcher.of("interim")  # which are void at the end
        running.happens(later, ended())
        running.happens(call_info(2), ended())
    assert status.data["services"] == {"Deepgram": {"state": "listening", "behind_ms": None}}
    assert (status.data["stream_sid"], status.data["until_ms"]) == (later.stream_sid, 400)
    assert {each.data["offset_ms"] for each in (status, *interims)} == {offset_ms}
    assert {each.data["text"]: each.data["start_ms"] for each in interims} == {"hello": 100, "hi": 0}


def test_of_a_real_call_one_sees_the_service_go_and_come_back(store: Store) -> None:
    drop = Fault(drop=Drop(2_000, "reset"))
    with listening(drop) as speech, serving(store, deepgram(speech)) as running:
        call = answered(running.relay.url, "inbound")
        watcher = running.watch(call.call_sid, last_id=0)
        say(call, 6_000)
        watcher.wait_for_kind("service.back")
        hang_up(call)
        watcher.wait_for_kind("call.ended")
    states = [status.data["services"].get("Deepgram", {}).get("state") for status in watcher.of("status")]
    assert [state for state, _ in groupby(states)][-4:] == ["listening", "lost", "listening", None]
    (lost,), (back,) = watcher.of("service.lost"), watcher.of("service.back")
    assert (lost.data["service"], back.data["service"]) == ("Deepgram", "Deepgram")
    assert 0 <= lost.data["at_ms"] <= back.data["at_ms"]
    assert back.data["from_ms"] <= back.data["at_ms"]
    assert " ".join(watcher.texts()).split() == [f"in{number}" for number in range(300)]


def test_an_outage_is_stored_once_however_often_the_service_is_tried(store: Store) -> None:
    call = call_info(1)
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call, begun(), ServiceConnected("Deepgram", 0), Listened(1_500))
        for _ in range(3):
            running.happens(call, ServiceLost("Deepgram", "gone", 0.2), ServiceConnecting("Deepgram", 2))
        running.happens(call, ServiceConnected("Deepgram", 700), ServiceLost("Deepgram", "gone again", 0.2), ended())
        watcher.wait_for_kind("call.ended")
    told = [(each.kind, each.data.get("reason")) for each in watcher.of("service.lost", "service.back")]
    assert told == [("service.lost", "gone"), ("service.back", None), ("service.lost", "gone again")]


# --- Coming back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_header", [True, False])
def test_who_comes_back_gets_what_was_missed_and_nothing_twice(store: Store, by_header: bool) -> None:
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call_info(1), begun(), final("before"))
        watcher.wait_for(lambda: watcher.texts() == ["before"])
        last_id = watcher.last_id
        assert last_id is not None
        watcher.close()
        say_and_wait(running, "missed one", "missed two", start_ms=5_000)
        back = running.watch(header=str(last_id)) if by_header else running.watch(last_id=last_id)
        back.wait_for(lambda: len(back.texts()) == 2)
        running.happens(call_info(1), final("after", 9_000), ended())
        back.wait_for_kind("call.ended")
    assert back.texts() == ["missed one", "missed two", "after"]
    assert watcher.ids + back.ids == all_ids(store)


def test_a_browser_that_comes_back_sends_the_newer_id_in_its_header(store: Store) -> None:
    with serving(store) as running:
        running.happens(call_info(1), begun())
        say_and_wait(running, "one", "two")
        ids = all_ids(store)
        watcher = running.watch(last_id=0, header=str(ids[-2]))
        watcher.wait_for(lambda: watcher.ids == ids[-1:])


def test_a_whole_history_is_read_in_portions_and_then_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MISSED_AT_ONCE", 7)
    with serving(store) as running:
        for number in (1, 2):
            running.happens(call_info(number), begun())
            say_and_wait(running, *(f"word{index}" for index in range(20)), number=number)
        watcher = running.watch(last_id=0)
        one = running.watch(call_info(2).call_sid, last_id=0)
        running.happens(call_info(2), final("at last", 30_000))
        for each in (watcher, one):
            each.wait_for_kind("segment.final", 41 if each is watcher else 21)
            assert each.texts()[-1] == "at last"
    assert watcher.ids == all_ids(store)
    assert one.ids == all_ids(store, call_info(2).call_sid)


def test_the_seam_between_what_was_missed_and_what_comes_is_tight(store: Store) -> None:
    """Viewers come at any moment of a busy call; each gets every event once and in order."""
    call = call_info(1)
    with serving(store) as running:
        running.happens(call, begun())
        talking = gevent.spawn(_talk, running, 400)
        watchers = []
        while not talking.dead:
            watchers.append(running.watch(last_id=0))
            gevent.sleep(0.01)
        running.happens(call, ended())
        for watcher in watchers:
            watcher.wait_for_kind("call.ended")
    assert len(watchers) > 10
    for watcher in watchers:
        assert watcher.texts() == [f"word{number}" for number in range(400)]
        assert watcher.ids == all_ids(store)


def _talk(running: Serving, count: int) -> None:
    for number in range(count):
        running.happens(call_info(1), final(f"word{number}", number * 1_000))
        gevent.sleep(0.001)


def test_a_new_server_on_the_same_database_goes_on_where_the_old_one_ended(make_store: Callable[[], Store]) -> None:
    store = make_store()
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call_info(1), begun(), final("before the restart"))
        watcher.wait_for(lambda: watcher.texts())
        watcher.close()
        say_and_wait(running, "missed", start_ms=3_000)
    store.close(10)
    store = make_store()
    with serving(store) as running:
        back = running.watch(last_id=watcher.last_id)
        running.happens(call_info(2), begun(), final("after the restart"))
        back.wait_for(lambda: "after the restart" in back.texts())
        assert watcher.ids + back.ids == all_ids(store)
        assert back.texts() == ["missed", "after the restart"]


def test_an_id_of_another_database_silences_nobody(store: Store) -> None:
    with serving(store, heartbeat_s=0.02) as running:
        watcher = running.watch(last_id=10**15)
        watcher.wait_for(lambda: watcher.heartbeats)  # by then it was looked for what it has missed
        running.happens(call_info(1), begun(), final("hello"))
        watcher.wait_for(lambda: watcher.texts() == ["hello"])


def test_what_happens_while_an_id_of_another_database_is_looked_at_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store) as running:
        look = store.events_after

        def look_and_take_long(*arguments: Any, **options: Any) -> list[Event]:
            found = look(*arguments, **options)
            if not look(0, limit=1):
                running.happens(call_info(1), begun(), final("meanwhile"))
                eventually(lambda: len(look(0, limit=9)) == 2)
            return found

        monkeypatch.setattr(store, "events_after", look_and_take_long)
        watcher = running.watch(last_id=10**15)
        watcher.wait_for(lambda: watcher.texts() == ["meanwhile"])


def test_who_watches_goes_on_in_a_database_that_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    with opened(f"sqlite:///{file}") as store, serving(store) as running:
        watchers = [running.watch(), running.watch(call_info(1).call_sid)]
        running.happens(call_info(1), begun(), *(final(f"before {number}") for number in range(5)))
        for watcher in watchers:
            watcher.wait_for_kind("segment.final", 5)
        file.unlink()
        running.happens(call_info(1), final("after"), ended())
        for watcher in watchers:
            watcher.wait_for_kind("call.ended")
    for watcher in watchers:
        assert watcher.texts() == [*(f"before {number}" for number in range(5)), "after"]


def test_a_viewer_at_one_worker_sees_the_calls_of_the_others(make_store: Callable[[], Store]) -> None:
    with serving(make_store()) as one, serving(make_store()) as other:
        watchers = [running.watch() for running in (one, other)]
        for number in range(20):
            running = (one, other)[number % 2]
            running.happens(call_info(number), begun(), final(f"call {number}"), ended())
        for watcher in watchers:
            watcher.wait_for_kind("call.ended", 20)
        ids = all_ids(one.store)
    for watcher in watchers:
        assert watcher.ids == ids


def test_a_server_that_leaves_lets_its_viewers_go(store: Store) -> None:
    with serving(store) as running:
        watcher = running.watch()
        watcher.wait_for(lambda: watcher.retry_ms)
    watcher.wait_for(lambda: watcher.over)


def test_who_is_let_go_before_the_store_could_be_asked_is_told_nothing_that_comes_later(postgresql: Server) -> None:
    """Its last id would be beyond what it has missed."""
    store = Store(postgresql.new_database())
    store.open()
    postgresql.stop()
    try:
        viewer = Viewer(store, None, 0, lambda: True)
        told: list[bytes] = []
        reading = gevent.spawn(lambda: told.extend(viewer.read(60)))
        viewer.show([Frame("CA1", 0, b"unsaved"), Frame("CA1", 20, b"id: 20")])
        viewer.leave()
        reading.get(timeout=WITHIN)
    finally:
        postgresql.start()
        store.close(5)
    assert b"unsaved" in b"".join(told)
    assert b"id: " not in b"".join(told)


# --- A database that is away ------------------------------------------------------------------------------------


def test_finals_come_unsaved_while_the_database_is_away_and_again_when_it_is_back(postgresql: Server) -> None:
    store = Store(postgresql.new_database())
    store.open()
    call = call_info(1)
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call, begun(), final("before"))
        watcher.wait_for_kind("segment.final")
        postgresql.stop()
        try:
            running.happens(call, interim("um"), final("meanwhile", 2_000))
            watcher.wait_for_kind("final-unsaved")
            late = running.watch(last_id=0)
            running.happens(call, final("still away", 4_000))
            late.wait_for_kind("final-unsaved")
            assert late.ids == []
        finally:
            postgresql.start()
        for each in (watcher, late):
            each.wait_for_kind("segment.final", 3)
        assert watcher.ids == late.ids == all_ids(store)
    store.close(10)
    assert watcher.texts() == late.texts() == ["before", "meanwhile", "still away"]
    assert watcher.texts("interim") == ["um"]
    assert watcher.texts("final-unsaved") == ["meanwhile", "still away"]
    unsaved, saved = watcher.of("final-unsaved")[0], watcher.of("segment.final")[1]
    assert unsaved.id is None
    for name in ("track", "start_ms", "service", "text", "words"):
        assert unsaved.data["segment"][name] == saved.data["segment"][name]


# --- Those who do not read -------------------------------------------------------------------------------------


def test_one_that_does_not_read_is_let_go_and_holds_up_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "WAITING_MOST", 100_000)
    call = call_info(1)
    with serving(store) as running:
        reader = running.watch()
        sleepers = [one_that_does_not_read(running.url, running.token) for _ in range(3)]
        with gevent.Timeout(WITHIN):
            while running.live.viewers < 4:
                gevent.sleep(0.01)
        running.happens(call, begun())
        said = 0
        with gevent.Timeout(60):
            while running.live.viewers > 1:  # the kernel takes a few megabytes for each before anyone is held up
                running.happens(call, replace(final(f"{said} " + "blah " * 15_000, said * 1_000), words=()))
                said += 1
                reader.wait_for_kind("segment.final", said)
                assert running.live.waiting < 3 * 200_000
        assert [text.split()[0] for text in reader.texts()] == [str(number) for number in range(said)]
        back = running.watch(last_id=0)
        back.wait_for(lambda: back.ids == reader.ids)
        for sleeper in sleepers:
            assert _is_cut_off(sleeper)


def _is_cut_off(sleeper: socket.socket) -> bool:
    """Reads what the kernel still has, up to the end, which is not that of a whole answer."""
    sleeper.settimeout(WITHIN)
    rest = b""
    try:
        while data := sleeper.recv(1 << 16):
            rest = (rest + data)[-5:]
    except ConnectionResetError:
        return True
    finally:
        sleeper.close()
    return rest != b"0\r\n\r\n"


def test_for_one_that_lags_behind_interims_are_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "FRESH_MOST", 0)
    with serving(store) as running:
        watcher = running.watch()
        running.happens(call_info(1), begun(), interim("um"), final("hello"))
        watcher.wait_for(lambda: watcher.texts() == ["hello"])
    assert watcher.of("interim") == []


def test_a_hundred_viewers_of_one_call_all_get_all_of_it(store: Store) -> None:
    call = call_info(1)
    with serving(store) as running:
        watchers = [running.watch(call.call_sid) for _ in range(100)]
        running.happens(call, begun())
        _talk(running, 30)
        running.happens(call, ended())
        for watcher in watchers:
            watcher.wait_for_kind("call.ended")
    for watcher in watchers:
        assert watcher.texts() == [f"word{number}" for number in range(30)]


def test_there_are_so_many_viewers_and_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "VIEWERS_MOST", 1)
    with serving(store) as running:
        running.watch()
        answer = running.ask("/api/live")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")


# --- What is asked wrongly -------------------------------------------------------------------------------------


def test_an_id_that_is_none_is_refused_in_one_sentence(store: Store) -> None:
    with serving(store) as running:
        for last_id in ("x", "-1", "1.5", "9" * 30, "\u0661".encode().decode("latin-1")):
            answer = running.ask("/api/live", **{"Last-Event-ID": last_id})
            assert answer.status == 400
            assert answer.document["detail"].startswith("Last-Event-ID should be a whole number")

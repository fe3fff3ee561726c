"""The server is killed with signal 9 while calls run; what anybody was told is kept, once, and what was owed is sent.

`make test` kills a few times; `KILLS=50 python -m pytest tests/test_killed.py` as often as you like.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from socket import create_server

import gevent
import pytest

from relay.backfill import UNSURE_MS, fill, open_gaps
from relay.endpoints import TOLD
from relay.events import Track
from relay.passes import Kind, Passes, Scope
from relay.protocol import SpeechService
from relay.store.lifetime import UNHEARD
from relay.store.records import Call, Event, Gap, State
from relay.store.store import Store
from standins.deepgram import ListenServer
from standins.twilio import CallFailed, SimulatedCall
from tests.numbered import frame_of, number_ears, numbered
from tests.program import program
from tests.receiving import Received, Receiver
from tests.talking import HASTE, deepgram, listening
from tests.watching import Watcher

KILLS = int(os.environ.get("KILLS", "3"))
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g="
LEASE_S = 60.0  # for which a delivery belongs to whoever was about to send it, dead or alive


def a_free_port() -> int:
    with create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def media_url(port: int, folder: Path) -> str:
    """Where calls may be streamed to."""
    return f"ws://127.0.0.1:{port}/media/{Passes(folder / 'data' / 'access').stream_key}"


def keep_calling(url: str) -> None:
    """Calls in real time, one after the other, until the line is cut."""
    while True:
        call = SimulatedCall(url)
        with suppress(OSError, CallFailed):
            call.open()
            call.start()
            for ms in range(0, 1_500, 20):
                for track in call.tracks:
                    call.say(track, numbered(track, ms, 20), at_ms=ms)
                gevent.sleep(0.02)
            call.stop()
            call.close()
        gevent.sleep(0.05)


@pytest.mark.once
@pytest.mark.timeout(300 + 20 * KILLS)
def test_what_was_told_is_kept_once_and_what_is_owed_is_sent(tmp_path: Path) -> None:
    chance, port = random.Random(9), a_free_port()
    url = f"http://127.0.0.1:{port}"
    token = Passes(tmp_path / "data" / "access").issue(Kind.TOKEN, {Scope.READ}, for_s=3600)
    watched: dict[int, str] = {}  # the finals that a viewer was told, by id
    received: list[Received] = []
    with Receiver() as receiver, ListenServer(ear=number_ears(final_ms=200)) as speech:
        settings = {
            "PORT": str(port),
            "DEEPGRAM_API_KEY": "key",
            "DEEPGRAM_URL": speech.url,
            "WEBHOOK_URLS": receiver.url(),
            "WEBHOOK_SECRETS": SECRET,
            "WEBHOOK_ALLOW_PRIVATE": "true",
        }
        callers = [gevent.spawn(keep_calling, media_url(port, tmp_path)) for _ in range(3)]
        last_id = 0  # calls come as soon as the server listens, and so before the first viewer
        for _ in range(KILLS):
            with program(folder=tmp_path, **settings) as server:
                server.line("Server listening on")
                watcher = Watcher(url, last_id=last_id, token=token)
                watcher.wait_for_kind("segment.final")
                gevent.sleep(chance.uniform(0, 2.0))  # the moment does not matter: any will do
                server.tell(signal.SIGKILL)
                server.end()
                watcher.wait_for(lambda watcher=watcher: watcher.over)  # type: ignore[misc]
                note(watcher, watched)
                last_id = watcher.last_id or last_id
        gevent.killall(callers)
        with program(folder=tmp_path, **settings) as server:
            server.line("Server listening on")
            watcher = Watcher(url, last_id=last_id, token=token)
            store = Store(f"sqlite:///{tmp_path}/data/calls.db")
            store.open()
            events = all_events(store)
            owed = {event.id for event in events if event.kind in TOLD}
            wait_until_sent(receiver, received, owed)
            watcher.wait_for(lambda: max(watcher.last_id or 0, last_id) >= max(owed))  # or had it before
            note(watcher, watched)
            watcher.close()
            live = store.calls(state=State.LIVE.value, limit=500).items
            server.tell(signal.SIGTERM)
            assert server.end() == 0
            store.close(5)
    assert not live, "calls of killed servers were left open"
    finals = {event.id: text_of(event) for event in events if event.kind == "segment.final"}
    assert len(finals) >= KILLS  # the watcher waited for one each time
    assert {id_: finals.get(id_) for id_ in watched} == watched
    assert finals.keys() == watched.keys()
    said = Counter(
        (event.call_sid, event.data["segment"]["track"], text_of(event)) for event in events if event.id in finals
    )
    assert set(said.values()) == {1}, "a final was stored twice"
    meant: dict[str, object] = {}
    for one in received:
        document = one.document
        assert meant.setdefault(one.message_id, document) == document, "an id was used for two messages"
    assert {event.id for event in events if event.kind == "segment.final"} <= owed


@pytest.mark.once
@pytest.mark.timeout(300)
def test_what_a_killed_server_had_not_transcribed_is_named_and_found_on_the_recording(tmp_path: Path) -> None:
    """Of a call that ends with its server, and of one that Twilio brings again."""
    port = a_free_port()
    ear = number_ears(final_ms=range(1_000, 4_000, 20))
    with ListenServer(ear=ear) as speech:
        settings = {"PORT": str(port), "DEEPGRAM_API_KEY": "key", "DEEPGRAM_URL": speech.url, "RECORD": "wav"}
        lost, resumed = (SimulatedCall(media_url(port, tmp_path)) for _ in range(2))
        with program(folder=tmp_path, **settings) as server:
            server.line("Server listening on")
            talking = [gevent.spawn(talk, call, 60_000) for call in (lost, resumed)]
            gevent.sleep(random.uniform(5.0, 8.0))  # the moment does not matter: any will do
            server.tell(signal.SIGKILL)
            server.end()
            gevent.joinall(talking)
        again = SimulatedCall(media_url(port, tmp_path), call_sid=resumed.call_sid)
        with program(folder=tmp_path, **settings) as server:
            server.line("Server listening on")
            talk(again, 2_000)
            again.stop()
            again.close()
            server.tell(signal.SIGTERM)
            assert server.end() == 0
        store = Store(f"sqlite:///{tmp_path}/data/calls.db")
        store.open()
        with listening() as speech_again:
            for call in (lost, resumed):
                is_whole_after_back_fill(store, call, deepgram(speech_again))
        store.close(5)


def talk(call: SimulatedCall, length_ms: int) -> None:
    """Speaks in real time, until the line is cut."""
    with suppress(OSError, CallFailed):
        call.open()
        call.start()
        for ms in range(0, length_ms, 20):
            for track in call.tracks:
                call.say(track, numbered(track, ms, 20), at_ms=ms)
            gevent.sleep(0.02)


def is_whole_after_back_fill(store: Store, simulated: SimulatedCall, service: SpeechService) -> None:
    """What is missing is named, no more and no less, and found on the recording; so each frame is said once."""
    call = store.call(simulated.call_sid)
    assert call is not None
    first, *others = call.streams
    for track in simulated.tracks:
        missing = {ms // 20 for gap in open_gaps(store, call) if gap.track == track for ms in range(*reach(gap), 20)}
        said = frames(store, call, track)
        assert UNHEARD in {gap.reason for gap in open_gaps(store, call) if gap.track == track}
        assert set(range(first.heard_ms // 20)) <= {*said} | missing, "what is missing has no name"
        assert len({*said} & missing) <= 1, "what was said is named as missing"
    for gap in open_gaps(store, call):
        fill(store, call, gap, service, patience=HASTE)
    for track in simulated.tracks:
        said = frames(store, call, track)
        assert said == list(range(len(said)))
        still = [gap for gap in store.gaps(call.sid) if gap.track == track and not gap.filled]
        assert len(said) * 20 > min([first.heard_ms, *(gap.start_ms for gap in still)]) - 20
        assert all(first.heard_ms - gap.start_ms <= UNSURE_MS for gap in still)
        if others:
            assert frames(store, call, track, stream=1) == list(range(100))


def reach(gap: Gap) -> tuple[int, int]:
    return gap.start_ms, gap.end_ms


def frames(store: Store, call: Call, track: Track, stream: int = 0) -> list[int]:
    """The numbers of the frames that were said on one of its streams."""
    begins = [each.offset_ms for each in call.streams] + [call.duration_ms + 1]
    return [
        frame_of(word.text)[1]
        for segment in store.segments(call.sid)
        for word in segment.words
        if segment.track == track and begins[stream] <= word.start_ms < begins[stream + 1]
    ]


def note(watcher: Watcher, watched: dict[int, str]) -> None:
    for told in watcher.of("segment.final"):
        if told.id is not None:
            assert told.id not in watched, "told twice to a viewer that came back"
            watched[told.id] = told.data["segment"]["text"]


def text_of(event: Event) -> str:
    text: str = event.data["segment"]["text"]
    return text


def all_events(store: Store) -> list[Event]:
    events: list[Event] = []
    while found := store.events_after(events[-1].id if events else 0, limit=500):
        events += found
    return events


def wait_until_sent(receiver: Receiver, received: list[Received], owed: set[int]) -> None:
    """Returns when a webhook has come for every event that one is sent for, however often."""
    with gevent.Timeout(LEASE_S + 60):
        while len({one.message_id for one in received}) < len(owed):
            received.append(receiver.received.get())

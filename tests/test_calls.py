"""Calls through a running relay: the simulator on one side, the stand-in for Deepgram on the other."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import urlopen

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

from relay import call as call_module
from relay.call import NOT_SENT
from relay.events import (
    Gap,
    MediaReceived,
    MessageReceived,
    NotTranscribed,
    ServiceConnected,
    ServiceLost,
    ServiceRefused,
    SocketAccepted,
    StreamBegun,
    Track,
    Transcript,
)
from relay.web.routes import create_app
from standins.deepgram import Drop, Fault, Refusal
from standins.twilio import CallFailed, SimulatedCall
from tests.calling import answered, hang_up, relay, say
from tests.numbered import numbered
from tests.storing import eventually
from tests.talking import BOTH, HASTE, deepgram, listening, whole


@pytest.mark.parametrize("tracks", [("inbound",), ("outbound",), ("inbound", "outbound")])
@pytest.mark.parametrize("together", ["together", "apart"])
def test_a_call_is_transcribed_from_its_first_frame_to_its_last(tracks: tuple[str, ...], together: str) -> None:
    with listening() as server, relay(deepgram(server), tracks=together) as running:
        call = answered(running.url, *tracks)
        say(call, 10_000)
        hang_up(call)
        end = running.ended(call)
        connections = len(server.connections)
    heard = running.of(call)
    for track in map(Track, tracks):
        assert heard.frames(track) == whole(10_000)
    assert connections == (len(tracks) if together == "apart" else 1)
    assert (end.reason, end.duration_ms, end.frames) == ("stop", 10_000, 500 * len(tracks))
    assert (end.audio_gaps, end.missing_messages, end.reconnects, end.lost_ms) == (0, 0, 0, 0)
    assert end.words == 500 * len(tracks)


def test_what_is_told_of_a_call_comes_in_order() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url, "inbound")
        say(call, 3_000)
        hang_up(call)
        running.ended(call)
    kinds = [type(happened.event) for happened in running.told]
    assert kinds[0] is SocketAccepted
    assert kinds.index(MessageReceived) < kinds.index(StreamBegun) < kinds.index(MediaReceived)
    assert kinds.index(ServiceConnected) < kinds.index(Transcript)
    firsts = [happened.event for happened in running.told if isinstance(happened.event, MediaReceived)]
    assert firsts == [MediaReceived(1, 160)]


def test_a_stranger_cannot_fill_the_terminal() -> None:
    with relay() as running:
        call = SimulatedCall(running.url, tracks=("inbound",))
        call.open()
        for _ in range(1000):
            call.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
        call.start()
        hang_up(call)
        running.ended(call)
    told = [happened.event for happened in running.told if isinstance(happened.event, MessageReceived)]
    assert [event.kind for event in told] == ["connected", "start"]


def test_custom_parameters_are_told_by_name_only() -> None:
    with relay() as running:
        call = SimulatedCall(running.url, parameters={"colour": "hush-hush"})
        call.open()
        call.start()
        hang_up(call)
        running.ended(call)
    (start,) = [
        happened.event
        for happened in running.told
        if isinstance(happened.event, MessageReceived) and happened.event.kind == "start"
    ]
    assert "hush-hush" not in start.message
    assert json.loads(start.message)["start"]["customParameters"] == {"colour": "…"}


# --- The clock -------------------------------------------------------------------------------------------------


def test_a_jump_in_timestamps_is_filled_with_silence_and_counted() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 2_000)
        say(call, 2_000, at_ms=5_000)
        hang_up(call)
        end = running.ended(call)
        assert server.connections[0].audio_ms == 7_000
    for track in BOTH:
        assert running.of(call).frames(track) == [*range(100), *range(250, 350)]
    assert (end.audio_gaps, end.missing_ms) == (2, 6_000)
    assert running.of(call).of(Gap) == [Gap(track, 2_000, 5_000, NOT_SENT) for track in BOTH]


def test_a_short_jump_is_counted_and_not_named() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 1_000)
        say(call, 1_000, at_ms=1_980)
        hang_up(call)
        end = running.ended(call)
    assert (end.audio_gaps, end.missing_ms) == (2, 2 * 980)
    assert not running.of(call).of(Gap)


def test_a_track_that_begins_late_keeps_its_time_and_holds_nothing_up() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        call.say("inbound", numbered(Track.INBOUND, 0, 6_000), at_ms=0)
        heard = running.of(call)
        running.wait_for(lambda: heard.finals(Track.INBOUND))  # although the outbound track is still silent
        for ms in range(6_000, 9_000, 20):
            for track in BOTH:
                call.say(track, numbered(track, ms, 20), at_ms=ms)
        hang_up(call)
        running.ended(call)
    assert heard.frames(Track.INBOUND) == whole(9_000)
    assert heard.frames(Track.OUTBOUND) == list(range(300, 450))


def test_a_late_burst_is_no_loss() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 1_000)
        gevent.sleep(0.3)
        say(call, 1_000, at_ms=1_000)
        hang_up(call)
        end = running.ended(call)
    assert (end.audio_gaps, end.lost_ms) == (0, 0)
    assert running.of(call).frames(Track.INBOUND) == whole(2_000)


@pytest.mark.parametrize("length", [1, 8, 159, 320, 999])
def test_frames_may_have_any_length(length: int) -> None:
    audio = numbered(Track.INBOUND, 0, 4_000)
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url, "inbound")
        if length == 1:
            audio = audio[:160]
        for start in range(0, len(audio), length):
            call.media("inbound", b64encode(audio[start : start + length]).decode(), start // 8)
        hang_up(call)
        running.ended(call)
    assert running.of(call).frames(Track.INBOUND) == list(range(len(audio) // 160))


def test_missing_messages_are_counted() -> None:
    with relay() as running:
        call = answered(running.url, "inbound")
        say(call, 100)
        call._sequence += 7
        say(call, 100, at_ms=100)
        hang_up(call)
        assert running.ended(call).missing_messages == 7


# --- Ends ------------------------------------------------------------------------------------------------------


def test_the_last_words_come_after_a_reset_without_a_goodbye() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 3_340)
        running.wait_for(lambda: any(isinstance(happened.event, Transcript) for happened in running.told))
        (stream,) = running.switchboard._streams
        eventually(lambda: stream._frames == 2 * 167)  # a reset takes with it what is still on its way
        call.reset()
        end = running.ended(call)
    assert end.reason != "stop"
    assert running.of(call).frames(Track.OUTBOUND) == whole(3_340)


def test_a_stream_on_which_nothing_comes_is_over() -> None:
    with listening() as server, relay(deepgram(server), media_silence_s=1) as running:
        call = answered(running.url, "inbound")
        say(call, 1_000)
        end = running.ended(call)
        call.wait_closed(30)
    assert end.reason == "Twilio sent nothing more"
    assert running.of(call).frames(Track.INBOUND) == whole(1_000)


def test_a_socket_without_a_start_is_closed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(call_module, "START_WITHIN", 0.2)
    with relay() as running:
        call = SimulatedCall(running.url)
        call.open()
        call.wait_closed(30)
    assert "no start message came" in caplog.text


def test_chatter_does_not_keep_a_socket_without_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "START_WITHIN", 0.3)
    with relay() as running:
        call = SimulatedCall(running.url)
        call.open()
        with gevent.Timeout(10), pytest.raises(CallFailed):
            _chatter(call)


def _chatter(call: SimulatedCall) -> None:
    while True:
        call.send('{"event":"connected"}')
        gevent.sleep(0.02)


def test_the_relay_sends_nothing_to_twilio() -> None:
    """Sending on a unidirectional stream is an error of ours (31924)."""
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 2_000)
        call.stop()
        farewell = call.wait_closed(30)
    assert call.unwanted == 0
    assert farewell.code == 1000


# --- What Twilio would not send ----------------------------------------------------------------------------------


def test_oddities_are_told_once_each_and_harm_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = SimulatedCall(running.url, tracks=("inbound",))
        call.open()
        say(call, 60)
        call.start()
        call.start()
        foreign = SimulatedCall(running.url).stream_sid
        for _ in range(3):
            call.send(json.dumps({"event": "weather"}))
            call.send(b"\x00\x01")
            call.send("{")
            call.send(json.dumps({"event": "stop", "streamSid": foreign, "sequenceNumber": "1", "stop": {}}))
            call.media("outbound", "//8=", 0)
        call.send(
            json.dumps({"event": "dtmf", "streamSid": call.stream_sid, "sequenceNumber": "5", "dtmf": {"digit": "7"}})
        )
        say(call, 1_000)
        hang_up(call)
        running.ended(call)
    assert running.of(call).frames(Track.INBOUND) == whole(1_000)
    for complaint in (
        "sends audio before its start",
        "was started twice",
        "messages of another stream",
        "unknown kind 'weather'",
        "a binary message",
        "not JSON",
        "outbound track, which its start did not name",
    ):
        assert caplog.text.count(complaint) == 1, complaint


@pytest.mark.parametrize("message", ["x" * (1 << 20), b"\x00" * (1 << 20)], ids=["text", "binary"])
def test_a_message_of_a_megabyte_ends_its_stream_and_no_other(message: str | bytes) -> None:
    with listening() as server, relay(deepgram(server)) as running:
        other, call = answered(running.url, "inbound"), answered(running.url, "inbound")
        say(other, 500)
        say(call, 500)
        call.send(message)
        assert call.wait_closed(30).code == 1009
        say(other, 500, at_ms=500)
        hang_up(other)
        assert "longer than" in running.ended(call).reason
        running.ended(other)
    assert running.of(call).frames(Track.INBOUND) == whole(500)
    assert running.of(other).frames(Track.INBOUND) == whole(1_000)


def test_audio_in_a_format_we_cannot_handle_is_refused_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with relay() as running:
        call = SimulatedCall(running.url)
        call.open()
        call.send(
            json.dumps(
                {
                    "event": "start",
                    "sequenceNumber": "1",
                    "streamSid": call.stream_sid,
                    "start": {
                        "streamSid": call.stream_sid,
                        "callSid": call.call_sid,
                        "accountSid": call.account_sid,
                        "tracks": ["inbound"],
                        "mediaFormat": {"encoding": "audio/opus", "sampleRate": 48000, "channels": 2},
                        "customParameters": {},
                    },
                }
            )
        )
        call.wait_closed(30)
    assert "audio/opus" in caplog.text


# --- Streams of one call -----------------------------------------------------------------------------------------


def twin_of(call: SimulatedCall) -> SimulatedCall:
    """Another stream of the same call, as a second `<Start><Stream>` makes it."""
    twin = SimulatedCall(call.url, tracks=call.tracks)
    twin.call_sid = call.call_sid
    twin.open()
    twin.start()
    return twin


def test_a_second_stream_of_the_same_tracks_is_not_transcribed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "STALE_AFTER", 1000)
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 1_000)
        twin = twin_of(call)
        say(twin, 1_000)
        running.of(twin).wait_for(NotTranscribed)
        hang_up(twin)
        hang_up(call)
        running.ended(call)
        running.ended(twin)
        assert len(server.connections) == 1
    assert running.of(call).frames(Track.INBOUND) == whole(1_000)
    assert running.of(twin).frames(Track.INBOUND) == []


def test_a_second_stream_takes_over_when_the_first_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "STALE_AFTER", 1000)
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 1_000)
        twin = twin_of(call)
        say(twin, 1_000)
        running.of(twin).wait_for(NotTranscribed)
        hang_up(call)
        running.ended(call)
        say(twin, 1_000, at_ms=1_000)
        hang_up(twin)
        running.ended(twin)
    assert running.of(twin).frames(Track.OUTBOUND) == list(range(50, 100))


def test_a_second_stream_takes_over_from_one_that_has_gone_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "STALE_AFTER", 0.1)
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 1_000)
        server.wait_for(lambda: server.connections and server.connections[0].audio_ms == 1_000, within=10)
        (stream,) = running.switchboard._streams
        with gevent.Timeout(10):
            while not stream.stale:
                gevent.sleep(0.01)
        twin = twin_of(call)
        say(twin, 1_000)
        hang_up(twin)
        assert running.ended(call).reason == "replaced by a newer stream"
        running.ended(twin)
    assert running.of(twin).frames(Track.INBOUND) == whole(1_000)


def test_one_track_each_on_two_streams_is_no_repetition() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = answered(running.url, "inbound")
        other = SimulatedCall(running.url, tracks=("outbound",))
        other.call_sid = call.call_sid
        other.open()
        other.start()
        for one in (call, other):
            say(one, 1_000)
            hang_up(one)
            running.ended(one)
    assert running.of(call).frames(Track.INBOUND) == whole(1_000)
    assert running.of(other).frames(Track.OUTBOUND) == whole(1_000)


# --- Many calls, and troubled services -----------------------------------------------------------------------------


def test_without_a_service_each_call_is_told_why() -> None:
    with relay(why_not="DEEPGRAM_API_KEY is not set") as running:
        call = answered(running.url)
        say(call, 500)
        hang_up(call)
        running.ended(call)
    assert running.of(call).wait_for(NotTranscribed) == NotTranscribed("DEEPGRAM_API_KEY is not set")


def test_a_refusing_service_ends_no_call() -> None:
    refusal = Fault(refuse=Refusal(401, "INVALID_AUTH", "Invalid credentials."))
    with listening(refusal) as server, relay(deepgram(server)) as running:
        call = answered(running.url)
        say(call, 1_000)
        running.of(call).wait_for(ServiceRefused)
        say(call, 1_000, at_ms=1_000)
        hang_up(call)
        end = running.ended(call)
    assert end.reason == "stop"
    assert end.lost_ms == 4_000
    gaps = [gap for gap in running.of(call).of(Gap) if isinstance(gap, Gap)]
    assert {gap.track: sum(g.end_ms - g.start_ms for g in gaps if g.track is gap.track) for gap in gaps} == {
        Track.INBOUND: 2_000,
        Track.OUTBOUND: 2_000,
    }


def test_a_call_whose_service_hangs_leaves_the_others_untouched() -> None:
    faults = [Fault(drop=Drop(1_000, "abandon"))]
    patience = replace(HASTE, answer=3.0, send=3.0)
    with listening(*faults) as server, relay(deepgram(server), patience=patience) as running:
        stuck = answered(running.url)
        running.of(stuck).wait_for(ServiceConnected)
        others = [answered(running.url) for _ in range(5)]
        say(stuck, 10_000)
        for other in others:
            say(other, 10_000)
            hang_up(other)
        for other in others:
            running.ended(other)
            for track in BOTH:
                assert running.of(other).frames(track) == whole(10_000)
            assert not running.of(other).of(ServiceLost)
        running.of(stuck).wait_for(ServiceLost)
        hang_up(stuck)
        running.ended(stuck)
    for track in BOTH:
        assert running.of(stuck).frames(track) == whole(10_000)


@pytest.mark.timeout(300)
def test_a_hundred_calls_at_once_lose_nothing() -> None:
    patient = replace(HASTE, answer=60, drain=60)  # so much work takes a while on a slow machine
    with listening() as server, relay(deepgram(server), patience=patient) as running:
        calls = [answered(running.url) for _ in range(100)]
        talking = [gevent.spawn(_talk, call, 6_000) for call in calls]
        gevent.joinall(talking, raise_error=True)
        ends = [running.ended(call, within=200) for call in calls]
    for call in calls:
        for track in BOTH:
            assert running.of(call).frames(track) == whole(6_000)
    assert sum(end.words for end in ends) == 100 * 600
    assert sum(end.lost_ms for end in ends) == 0


def _talk(call: SimulatedCall, length_ms: int) -> None:
    for ms in range(0, length_ms, 200):
        say(call, 200, at_ms=ms)
        gevent.sleep(0)
    hang_up(call)


# --- What else is answered -----------------------------------------------------------------------------------------


def fetch(url: str) -> tuple[int, str]:
    """Status and body of a page."""
    try:
        with urlopen(url, timeout=5) as page:
            return page.status, page.read().decode()
    except HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def test_a_browser_and_a_health_check_find_something() -> None:
    with relay() as running:
        home = running.url.replace("ws://", "http://").partition("/media")[0]
        status, health = fetch(f"{home}/healthz")
        assert (status, json.loads(health)) == (200, {"status": "ok", "streams": 0})
        assert fetch(f"{home}/media")[0] == 426
        assert fetch(f"{home}/nothing")[0] == 404


def test_a_server_about_to_end_takes_no_new_stream() -> None:
    with relay() as running:
        running.switchboard.answers = False
        call = SimulatedCall(running.url)
        call.open()
        assert call.wait_closed(30).code == 1001


def test_it_works_at_the_handshake_of_plain_gevent_websocket() -> None:
    with listening() as speech, relay(deepgram(speech)) as running:
        app = create_app(running.switchboard, admission=running.admission)
        plain = WSGIServer(("127.0.0.1", 0), app, handler_class=WebSocketHandler, log=None, error_log=None)
        plain.start()
        stranger = SimulatedCall(f"ws://127.0.0.1:{plain.server_port}/media/no-key")
        stranger.open()  # this handshake asks nobody
        assert stranger.wait_closed(30).code == 1008
        call = answered(f"ws://127.0.0.1:{plain.server_port}/media/{running.passes.stream_key}")
        say(call, 1_000)
        hang_up(call)
        running.ended(call)
        plain.stop()
    assert running.of(call).frames(Track.OUTBOUND) == whole(1_000)

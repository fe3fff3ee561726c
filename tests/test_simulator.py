"""The stand-in for Twilio says what Twilio says, when Twilio says it, and goes wrong only as it is told to."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from socket import SHUT_WR, gaierror
from typing import Any, ClassVar

import gevent
import pytest
from gevent.event import Event
from gevent.server import StreamServer
from gevent.socket import socket
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from relay.events import Track
from standins import simulation, twilio
from standins.simulation import CallReport, Faults, Pace, SimulationReport, simulate
from standins.twilio import (
    Disconnected,
    Ending,
    Farewell,
    SimulatedCall,
    SimulationError,
    Stalled,
    UpgradeRefused,
)

WITHIN = 10.0  # seconds anything here may take on a busy machine
FAST = 1000.0  # times real time, where a test is not about time

INBOUND, OUTBOUND = Track.INBOUND, Track.OUTBOUND
SPOKEN = bytes(range(256)) * 25  # 0.8 s
PLAYED = SPOKEN[::-1]
BOTH = {INBOUND: SPOKEN, OUTBOUND: PLAYED}
LONG = {INBOUND: bytes(8000 * 60)}  # a pause of this machine is not the end of it


@dataclass
class Stream:
    """What a server heard on one connection."""

    messages: list[Any] = field(default_factory=list)  # text as the JSON it is, anything else as bytes
    close_code: int | None = None
    pongs: int = 0
    reset: bool = False
    over: Event = field(default_factory=Event)
    heard: Event = field(default_factory=Event)  # at least one frame of audio

    def named(self, event: str) -> list[Any]:
        return [message for message in self.messages if message["event"] == event]

    def media(self, track: str) -> list[Any]:
        return [message["media"] for message in self.named("media") if message["media"]["track"] == track]

    def audio(self, track: str) -> bytes:
        return b"".join(b64decode(media["payload"], validate=True) for media in self.media(track))

    def take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.close_code = int.from_bytes(frame.data[:2], "big")
        elif frame.opcode is Opcode.PONG:
            self.pongs += 1
        elif frame.opcode is Opcode.BINARY:
            self.messages.append(bytes(frame.data))
        else:
            assert frame.opcode is Opcode.TEXT
            assert frame.fin
            self.messages.append(json.loads(bytes(frame.data)))
            if b'"media"' in bytes(frame.data):
                self.heard.set()


class Connection:
    """The server's end of one WebSocket, as strict as `websockets` is."""

    def __init__(self, server: Server, sock: socket) -> None:
        self.stream = Stream()
        self.sock = sock
        self.protocol = ServerProtocol()
        self._server = server

    def serve(self) -> None:
        acted = False
        while self.read():
            if self.stream.heard.is_set() and not acted:
                acted = True
                self._server.then(self)
                self.flush()

    def read(self) -> bool:
        """Takes in what has come. False when nothing more will."""
        data = self.sock.recv(65536)
        assert not data or self.stream.close_code is None, "something follows a close frame"
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.shake_hands(event)
            elif isinstance(event, Frame):
                self.stream.take(event)
        self.flush()
        assert not isinstance(self.protocol.parser_exc, ProtocolError), self.protocol.parser_exc
        return bool(data)

    def shake_hands(self, request: Request) -> None:
        if self._server.hesitates:
            self.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                self.sock.recv(1)
            self.sock.settimeout(None)
        if self._server.status == 101:
            self.protocol.send_response(self.protocol.accept(request))
        else:
            response = self.protocol.reject(HTTPStatus(self._server.status), "no")
            response.headers["Location"] = self._server.url
            self.protocol.send_response(response)

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.sock.sendall(data)
            else:
                self.sock.shutdown(SHUT_WR)


class Server:
    """Writes down what it is told. `then` is what it does on each connection once it has heard a first frame."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.errors: list[Exception] = []
        self.then: Callable[[Connection], object] = lambda connection: None
        self.status = 101
        self.hesitates = False
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.server_port}/stream/secret-token"

    @property
    def stream(self) -> Stream:
        """What its only connection carried, now that it is over."""
        assert len(self.streams) == 1
        assert self.streams[0].over.wait(WITHIN)
        return self.streams[0]

    def stop(self) -> None:
        self._server.stop()
        assert not self.errors

    def _serve(self, sock: socket, _address: object) -> None:
        connection = Connection(self, sock)
        self.streams.append(connection.stream)
        try:
            connection.serve()
        except ConnectionResetError:
            connection.stream.reset = True
        except OSError:
            pass
        except Exception as error:  # noqa: BLE001  # to fail the test with, in `stop`
            self.errors.append(error)
        finally:
            sock.close()
            connection.stream.over.set()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def call(server: Server) -> Iterator[SimulatedCall]:
    call = SimulatedCall(server.url)
    yield call
    call.close()


def only(report: SimulationReport) -> CallReport:
    assert len(report.calls) == 1
    return report.calls[0]


# --- What Twilio says --------------------------------------------------------------------------------------


def test_the_messages_have_the_documented_shapes(server: Server) -> None:
    audio = {INBOUND: b"\x01" * 160, OUTBOUND: b"\x02" * 160}
    report = only(simulate(server.url, audio, speed=FAST, parameters={"lang": "é\n", "token": '"'}))
    connected, start, inbound, outbound, stop = server.stream.messages
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    account_sid, call_sid, stream_sid = start["start"]["accountSid"], report.call_sid, report.stream_sid
    for kind, sid in {"AC": account_sid, "CA": call_sid, "MZ": stream_sid}.items():
        assert re.fullmatch(kind + "[0-9a-f]{32}", sid)
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": account_sid,
            "streamSid": stream_sid,
            "callSid": call_sid,
            "tracks": ["inbound", "outbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"lang": "é\n", "token": '"'},
        },
        "streamSid": stream_sid,
    }
    for number, (track, message) in enumerate({"inbound": inbound, "outbound": outbound}.items(), 1):
        payload = b64encode(audio[Track(track)]).decode()
        assert message == {
            "event": "media",
            "sequenceNumber": str(number + 1),
            "media": {"track": track, "chunk": str(number), "timestamp": "0", "payload": payload},
            "streamSid": stream_sid,
        }
    assert stop == {
        "event": "stop",
        "sequenceNumber": "4",
        "stop": {"accountSid": account_sid, "callSid": call_sid},
        "streamSid": stream_sid,
    }
    assert server.stream.close_code == 1000


def test_nothing_is_said_before_the_handshake_is_done(server: Server) -> None:
    server.hesitates = True
    assert simulate(server.url, BOTH, speed=FAST).went_well


def test_messages_and_chunks_are_counted_without_holes(server: Server) -> None:
    simulate(server.url, BOTH, speed=FAST)
    numbered = server.stream.messages[1:]
    assert [message["sequenceNumber"] for message in numbered] == [str(n) for n in range(1, len(numbered) + 1)]
    media = [message["media"] for message in server.stream.named("media")]
    assert [one["chunk"] for one in media] == [str(n) for n in range(1, len(media) + 1)]


def test_both_tracks_take_turns_on_one_clock(server: Server) -> None:
    simulate(server.url, BOTH, speed=FAST)
    said = [(message["media"]["timestamp"], message["media"]["track"]) for message in server.stream.named("media")]
    assert said == [(str(ms), track) for ms in range(0, 800, 20) for track in ("inbound", "outbound")]


@pytest.mark.parametrize("lengths", [(1, 1), (159, 160), (161, 0), (1000, 333), (0, 7), (6400, 6400)])
def test_every_byte_arrives_in_order(server: Server, lengths: tuple[int, int]) -> None:
    spoken, played = SPOKEN[: lengths[0]], PLAYED[: lengths[1]]
    report = only(simulate(server.url, {INBOUND: spoken, OUTBOUND: played}, speed=FAST))
    assert server.stream.audio("inbound") == spoken
    assert server.stream.audio("outbound") == played
    assert report.audio_bytes[INBOUND] == len(spoken)
    assert report.audio_bytes[OUTBOUND] == len(played)
    assert report.frames[INBOUND] == len(server.stream.media("inbound"))
    assert report.seconds == max(lengths) / 8000


@pytest.mark.parametrize("track", ["inbound", "outbound"])
def test_one_track_can_be_chosen(server: Server, track: str) -> None:
    report = only(simulate(server.url, BOTH, tracks=[track], speed=FAST))
    assert server.stream.named("start")[0]["start"]["tracks"] == [track]
    assert server.stream.audio(track) == BOTH[Track(track)]
    assert {message["media"]["track"] for message in server.stream.named("media")} == {track}
    assert list(report.frames) == [track]


def test_many_calls_are_told_apart(server: Server) -> None:
    report = simulate(server.url, BOTH, calls=5, speed=FAST)
    assert report.went_well
    assert report.frames == {INBOUND: 200, OUTBOUND: 200}
    assert report.audio_bytes == {INBOUND: 32000, OUTBOUND: 32000}
    assert report.seconds == pytest.approx(4.0)
    assert str(report).startswith("5 calls: 5 stopped; 4.0 s of audio in 400 frames")
    assert len({call.call_sid for call in report.calls} | {call.stream_sid for call in report.calls}) == 10
    assert {stream.named("start")[0]["streamSid"] for stream in server.streams} == {
        call.stream_sid for call in report.calls
    }
    for stream in server.streams:
        assert stream.audio("inbound") == SPOKEN


def test_calls_begin_within_a_second_and_no_two_together() -> None:
    starts = sorted(map(simulation._start_s, range(100)))
    assert starts[0] == simulation._start_s(0) == 0
    assert starts[-1] < 1
    assert min(after - before for before, after in pairwise(starts)) > 0.002


# --- When it is said ---------------------------------------------------------------------------------------


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.time += seconds


@pytest.mark.parametrize("speed", [1.0, 2.0, 0.5])
def test_deadlines_are_absolute(speed: float) -> None:
    clock = Clock()
    pace = Pace(speed, now=clock.now, sleep=clock.sleep)
    left = []
    for frame in range(10):
        pace.wait_until(frame * 20)
        left.append(clock.time)
        clock.time += 0.003  # sending takes its time, and moves no deadline
        if frame == 3:
            clock.time += 0.097  # a stall
        pace.sent()
    due = [100 + frame * 0.02 / speed for frame in range(10)]
    late = [moment - deadline for moment, deadline in zip(left, due, strict=True)]
    assert late[:4] == pytest.approx([0, 0, 0, 0])
    assert late[4] == pytest.approx(0.1 - 0.02 / speed)
    assert late[5] == pytest.approx(late[4] + 0.003 - 0.02 / speed)  # it catches up
    assert pace.worst_lateness_s == pytest.approx(0.1)
    assert late[9] == pytest.approx(0, abs=1e-9) or speed == 2.0


class Unhurried(Pace):
    """Notes what is waited for, and waits for nothing."""

    waited: ClassVar[list[float]] = []

    def wait_until(self, call_ms: float) -> None:
        self.waited.append(call_ms)


def test_every_frame_waits_for_its_moment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unhurried, "waited", [])
    monkeypatch.setattr(simulation, "Pace", Unhurried)
    simulate(server.url, BOTH)
    assert Unhurried.waited == [*range(0, 800, 20), 800]  # and `stop` for the end of the last


def test_lateness_that_was_asked_for_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unhurried, "waited", [])
    monkeypatch.setattr(simulation, "Pace", Unhurried)
    faults = Faults(jitter_ms=80, burst_ms=100, burst_every_s=0.3)
    simulate(server.url, BOTH, faults=faults)
    assert Unhurried.waited == [*faults.due(range(0, 800, 20), seed=0), 800]


def test_progress_rises_to_the_end(server: Server) -> None:
    told: list[float] = []
    simulate(server.url, {INBOUND: SPOKEN}, speed=2.0, on_progress=told.append)
    assert told == sorted(told)
    assert 0 <= told[0] < 1
    assert told[-1] == 1


# --- Faults ------------------------------------------------------------------------------------------------

MOMENTS = range(0, 10_000, 20)


def test_without_faults_every_frame_leaves_in_its_moment() -> None:
    assert list(Faults().due(MOMENTS, seed=1)) == list(MOMENTS)


@given(jitter_ms=st.floats(0, 2000), seed=st.integers())
def test_jitter_delays_and_keeps_the_order(jitter_ms: float, seed: int) -> None:
    due = list(Faults(jitter_ms=jitter_ms).due(MOMENTS, seed=seed))
    assert due == sorted(due)
    assert all(0 <= leaves - at <= jitter_ms + 1e-6 for leaves, at in zip(due, MOMENTS, strict=True))


def test_jitter_is_the_same_for_the_same_call_and_different_for_another() -> None:
    faults = Faults(jitter_ms=80)
    first, again, other = (list(faults.due(MOMENTS, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert max(leaves - at for leaves, at in zip(first, MOMENTS, strict=True)) > 40


def test_a_burst_holds_frames_up_and_sends_them_at_once() -> None:
    due = list(Faults(burst_ms=500, burst_every_s=2).due(MOMENTS, seed=1))
    assert due[:100] == list(MOMENTS)[:100]
    assert due[100:126] == [2500] * 26
    assert due[126:200] == list(MOMENTS)[126:200]
    assert due[200:226] == [4500] * 26


def test_a_gap_skips_audio_and_the_timestamps_jump(server: Server) -> None:
    report = only(simulate(server.url, BOTH, speed=FAST, faults=Faults(gap_ms=100, gap_at_s=0.2)))
    assert server.stream.audio("inbound") == SPOKEN[:1600] + SPOKEN[2400:]
    assert server.stream.audio("outbound") == PLAYED[:1600] + PLAYED[2400:]
    timestamps = [int(media["timestamp"]) for media in server.stream.media("inbound")]
    assert timestamps == [*range(0, 200, 20), *range(300, 800, 20)]
    numbers = [int(message["sequenceNumber"]) for message in server.stream.messages[1:]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert report.frames == {INBOUND: 35, OUTBOUND: 35}


def test_without_stop_the_socket_is_just_closed(server: Server) -> None:
    report = only(simulate(server.url, BOTH, speed=FAST, faults=Faults(no_stop=True)))
    assert server.stream.messages[-1]["event"] == "media"
    assert server.stream.audio("inbound") == SPOKEN
    assert server.stream.close_code == 1000
    assert report.ending is Ending.UNSTOPPED
    assert report.went_well


def test_a_drop_resets_the_connection_in_mid_call(server: Server) -> None:
    report = only(simulate(server.url, BOTH, speed=10, faults=Faults(drop_at_s=0.4)))
    assert server.stream.reset
    assert server.stream.close_code is None
    assert server.stream.named("stop") == []
    assert SPOKEN[:3200].startswith(server.stream.audio("inbound"))
    assert report.frames == {INBOUND: 20, OUTBOUND: 20}
    assert report.ending is Ending.DROPPED
    assert report.went_well


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        ([], Faults()),
        (["jitter=80"], Faults(jitter_ms=80)),
        (["burst=500@2"], Faults(burst_ms=500, burst_every_s=2)),
        (["gap=1000@5"], Faults(gap_ms=1000, gap_at_s=5)),
        (["no-stop"], Faults(no_stop=True)),
        (["drop@7.5"], Faults(drop_at_s=7.5)),
        (["jitter=5", "gap=40@0.25", "no-stop"], Faults(jitter_ms=5, gap_ms=40, gap_at_s=0.25, no_stop=True)),
    ],
)
def test_faults_are_read_from_words(words: list[str], faults: Faults) -> None:
    assert Faults.parse(words) == faults


@pytest.mark.parametrize(
    "words",
    [
        ["jitter"],
        ["jitter=-1"],
        ["jitter=80ms"],
        ["jitter=nan"],
        ["jitter=٣"],
        ["burst=500"],
        ["burst=2000@2"],
        ["burst=1@0"],
        ["gap=1000"],
        ["drop=7"],
        ["no-stop=1"],
        ["echo"],
        [""],
        ["jitter=80", "jitter=90"],
        ["no-stop", "no-stop"],
    ],
)
def test_words_that_are_no_faults_are_one_sentence(words: list[str]) -> None:
    with pytest.raises(SimulationError) as refused:
        Faults.parse(words)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) > 20


# --- What can go wrong by itself ---------------------------------------------------------------------------


def refusal(url: str) -> str:
    """Why a call could not be made: the report's sentence, which is the library's, too."""
    with pytest.raises(UpgradeRefused) as refused:
        SimulatedCall(url).open()
    report = only(simulate(url, BOTH))
    assert report.ending is Ending.REFUSED
    assert report.detail == str(refused.value)
    assert not report.went_well
    assert not report.frames
    assert "secret-token" not in str(report)
    return report.detail


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(UpgradeRefused, match=r"^127\.0\.0\.1:1 cannot be reached"):
        SimulatedCall("ws://me:secret@127.0.0.1:1/").open()


def test_a_refused_connection_is_one_sentence(server: Server) -> None:
    url = server.url
    server.stop()
    assert refusal(url).endswith("cannot be reached: nothing listens there")


@pytest.mark.parametrize("status", [302, 403, 404, 500])
def test_an_upgrade_answered_otherwise_is_one_sentence(server: Server, status: int) -> None:
    server.status = status
    assert refusal(server.url).endswith(f"with HTTP {status}")
    with pytest.raises(UpgradeRefused) as refused:
        SimulatedCall(server.url).open()
    assert refused.value.status == status
    assert len(server.streams) == 3  # no redirect was followed


@pytest.mark.parametrize(
    "answer", [b"", b"220 mail.example ESMTP\r\n\r\n", b"\xff\r\n\r\n", b"HTTP/1.1 101 OK\r\n\r\n"]
)
def test_an_answer_that_is_no_handshake_is_one_sentence(answer: bytes) -> None:
    def serve(sock: socket, _address: object) -> None:
        sock.recv(65536)
        sock.sendall(answer)
        sock.close()

    listener = StreamServer(("127.0.0.1", 0), serve)
    listener.start()
    assert "no WebSocket handshake" in refusal(f"ws://127.0.0.1:{listener.server_port}/secret-token")
    listener.stop()


def test_a_server_that_never_answers_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio, "UPGRADE_WITHIN", 0.1)
    listener = StreamServer(("127.0.0.1", 0), lambda _sock, _address: gevent.sleep(WITHIN))
    listener.start()
    assert refusal(f"ws://127.0.0.1:{listener.server_port}/secret-token").endswith("no answer within 0.1 s")
    listener.stop(timeout=0)


def test_an_unknown_host_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_asked: object) -> None:
        raise gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    assert refusal("wss://nowhere.invalid/secret-token") == "nowhere.invalid cannot be reached: there is no such host"


def test_tls_to_a_server_without_it_is_one_sentence(server: Server) -> None:
    assert "cannot be reached: [SSL" in refusal(server.url.replace("ws:", "wss:"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://127.0.0.1/secret",
        "https://127.0.0.1/secret",
        "ws:///secret",
        "ws://a:b:c/secret",
        "wss://h:99999/",
    ],
)
def test_only_a_websocket_can_be_called(url: str) -> None:
    with pytest.raises(SimulationError, match="its URL looks like ws://") as refused:
        simulate(url, BOTH)
    assert "secret" not in str(refused.value)


def test_a_query_string_is_refused_as_twilio_does() -> None:
    with pytest.raises(SimulationError, match="no query string"):
        SimulatedCall("ws://127.0.0.1:5000/stream?token=secret")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"calls": 0}, "0 calls cannot be played"),
        ({"speed": 0}, "a speed of 0"),
        ({"speed": -1.0}, "a speed of -1"),
        ({"speed": float("nan")}, "a speed of nan"),
        ({"speed": float("inf")}, "a speed of inf"),
        ({"tracks": ["outbound"]}, "has no outbound track"),
        ({"tracks": ["sideways"]}, "has no sideways track"),
        ({"audio": {INBOUND: b""}}, "holds no audio"),
        ({"audio": {}}, "holds no audio"),
        ({"faults": Faults(drop_at_s=60)}, "lasts 0.8 s; nothing can go wrong at 60 s"),
        ({"faults": Faults(gap_ms=100, gap_at_s=2)}, "lasts 0.8 s; nothing can go wrong at 2 s"),
    ],
)
def test_what_cannot_be_played_is_one_sentence(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SimulationError, match=re.escape(sentence)):
        simulate("ws://127.0.0.1:1/", **{"audio": {INBOUND: SPOKEN}} | asked)


def test_a_close_by_the_server_is_reported_with_its_code(server: Server) -> None:
    server.then = lambda connection: connection.protocol.send_close(1008, "unknown \x1b[31mcaller")
    report = only(simulate(server.url, LONG))
    assert report.ending is Ending.DISCONNECTED
    assert report.detail == "the server closed the connection with 1008 (unknown  [31mcaller)"
    assert 0 < report.frames[INBOUND] < 3_000
    assert not report.went_well
    assert server.stream.close_code == 1000
    assert server.stream.named("stop") == []


def test_a_connection_that_breaks_is_reported(server: Server) -> None:
    server.then = lambda connection: connection.sock.close()
    report = only(simulate(server.url, LONG))
    assert report.ending is Ending.DISCONNECTED
    assert "without a close frame" in report.detail


def test_frames_that_break_the_protocol_end_the_call(server: Server) -> None:
    server.then = lambda connection: connection.sock.sendall(b"\xf0\x00")
    assert only(simulate(server.url, LONG)).ending is Ending.DISCONNECTED


def test_a_server_that_says_anything_breaks_the_protocol(server: Server) -> None:
    server.then = lambda connection: connection.protocol.send_text(b"{}")
    report = only(simulate(server.url, LONG, speed=FAST))
    assert report.ending is Ending.STOPPED
    assert report.unwanted == 1
    assert not report.went_well
    assert "31924" in str(report)


def test_pings_are_answered(server: Server) -> None:
    server.then = lambda connection: connection.protocol.send_ping(b"there?")
    report = only(simulate(server.url, LONG, speed=FAST))
    assert server.stream.pongs == 1
    assert report.went_well


def test_a_server_that_stops_reading_fails_its_own_call_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio, "SEND_WITHIN", 4.0)
    enough = Event()
    server.then = lambda connection: connection.stream is server.streams[0] and enough.wait(WITHIN)
    report = simulate(server.url, {INBOUND: bytes(8000 * 200)}, calls=2, speed=1e6)
    enough.set()
    assert [call.ending for call in report.calls] == [Ending.STALLED, Ending.STOPPED]
    assert report.calls[0].detail == "the server did not read for 4 s"
    assert report.calls[0].frames[INBOUND] < report.calls[1].frames[INBOUND] == 10_000
    assert not report.went_well


def test_an_interrupted_simulation_hangs_up_first(server: Server) -> None:
    playing = gevent.spawn(simulate, server.url, {INBOUND: bytes(8000 * 60)}, calls=3, speed=10)
    while len(server.streams) < 3 or not all(stream.heard.is_set() for stream in server.streams):
        gevent.sleep(0.01)
    playing.kill(timeout=WITHIN)
    assert playing.dead
    for stream in server.streams:
        assert stream.over.wait(WITHIN)
        assert [message["event"] for message in stream.messages[-2:]] == ["media", "stop"]
        assert stream.close_code == 1000


# --- One call, message by message --------------------------------------------------------------------------


def test_a_call_speaks_when_it_is_told_to(server: Server, call: SimulatedCall) -> None:
    call.open()
    call.start()
    call.say("inbound", SPOKEN[:400])
    call.say("inbound", SPOKEN[400:600])
    call.say("outbound", PLAYED[:160], at_ms=1000)
    call.say("outbound", PLAYED[160:320])
    call.stop()
    call.close()
    assert [
        (int(media["timestamp"]), len(b64decode(media["payload"]))) for media in server.stream.media("inbound")
    ] == [
        (0, 160),
        (20, 160),
        (40, 80),
        (50, 160),
        (70, 40),
    ]
    assert [int(media["timestamp"]) for media in server.stream.media("outbound")] == [1000, 1020]
    assert server.stream.audio("inbound") == SPOKEN[:600]
    assert server.stream.named("stop")
    assert call.farewell == Farewell(1000)


def test_a_call_can_say_anything(server: Server, call: SimulatedCall) -> None:
    call.open()
    call.send('["é"]')
    call.send(b"\x00\xff")
    call.close()
    assert server.stream.messages[1:] == [["é"], b"\x00\xff"]


def test_a_call_can_be_broken_off(server: Server, call: SimulatedCall) -> None:
    call.open()
    call.start()
    call.reset()
    assert server.stream.reset
    assert call.farewell is None
    with pytest.raises(Disconnected, match="no connection"):
        call.stop()


def test_a_call_waits_for_the_server_to_close(server: Server, call: SimulatedCall) -> None:
    server.then = lambda connection: connection.protocol.send_close(4001, "bye")
    call.open()
    call.start()
    with pytest.raises(SimulationError, match="did not close"):
        call.wait_closed(0.05)
    call.say("inbound", SPOKEN[:160])
    assert call.wait_closed(WITHIN) == Farewell(4001, "bye")
    with pytest.raises(Disconnected, match="with 4001"):
        call.stop()
    call.close()


def test_a_call_that_is_not_read_says_so(server: Server, call: SimulatedCall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio, "SEND_WITHIN", 0.1)
    enough = Event()
    server.then = lambda connection: enough.wait(WITHIN)
    call.open()
    call.start()
    call.say("inbound", SPOKEN[:160])
    assert server.streams[0].heard.wait(WITHIN)
    with pytest.raises(Stalled):
        call.send("x" * 20_000_000)
    with pytest.raises(Disconnected):  # half a message is on its way: nothing can follow it
        call.stop()
    enough.set()


def test_a_message_that_was_interrupted_is_the_last(server: Server, call: SimulatedCall) -> None:
    enough = Event()
    server.then = lambda connection: enough.wait(WITHIN)
    call.open()
    call.start()
    call.say("inbound", SPOKEN[:160])
    assert server.streams[0].heard.wait(WITHIN)
    sending = gevent.spawn(call.send, "x" * 20_000_000)
    gevent.idle()
    assert not sending.ready()
    sending.kill()
    with pytest.raises(Disconnected):
        call.stop()
    enough.set()


def test_a_call_that_is_not_open_has_no_connection() -> None:
    call = SimulatedCall("ws://127.0.0.1:1/")
    with pytest.raises(Disconnected, match="no connection"):
        call.start()
    call.close()
    call.reset()

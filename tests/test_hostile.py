"""A hostile client against the whole program, with a call in progress that must not notice.

The program runs in a process of its own. One call is spoken in real time from before the first attack until after the
last; at the end each of its frames has been heard, nothing was opened for anybody else, and nothing secret was told.
"""

from __future__ import annotations

import re
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from time import monotonic

import gevent
import pytest
from gevent.event import Event
from gevent.socket import create_connection

from relay.passes import Kind, Passes, Scope
from standins.deepgram import ListenServer
from standins.twilio import CallFailed, SimulatedCall, UpgradeRefused, signed
from tests.calling import hang_up, say
from tests.program import Program, program
from tests.storing import eventually
from tests.talking import listening

AUTH_TOKEN = "t0k3n-n0b0dy-may-s33"
PUBLIC_URL = "https://relay.example"
PATIENCE = 20  # seconds after which a test is stuck, not slow
KEY_OF_SERVICE = "k3y-n0b0dy-may-s33"
UPGRADE = (
    "Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {b64encode(b'sixteen bytes ok').decode()}\r\n"
)


@dataclass
class Target:
    """The program under attack, and what it would have to betray."""

    port: int
    passes: Passes
    speech: ListenServer
    program: Program
    token: str  # of one who may see all
    legitimate: int = 0  # calls that were let in by right

    def media(self, path: str = "") -> str:
        """A URL below /media."""
        return f"ws://127.0.0.1:{self.port}/media{path}"

    def a_pass(self, call_sid: str, for_s: float = 60) -> str:
        """A pass as `/twiml` makes it."""
        return self.passes.issue(Kind.STREAM, (), for_s=for_s, call_sid=call_sid)

    def says(self, request: bytes) -> bytes:
        """All that is answered to these bytes, until the server hangs up or has nothing more to say."""
        client = create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        said = bytearray()
        with suppress(ConnectionError, TimeoutError):
            client.sendall(request)
            client.settimeout(PATIENCE)
            while data := client.recv(65536):
                said += data
        client.close()
        return bytes(said)

    def asks(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> tuple[int, str]:
        """Status and body of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def counted(self, series: str) -> float:
        """What the metrics say."""
        _, figures = self.asks("/metrics", Authorization=f"Bearer {self.token}")
        return sum(float(line.split()[-1]) for line in figures.splitlines() if line.startswith(series))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The program with a call in progress, which is looked at when all is over."""
    folder = tmp_path_factory.mktemp("target")
    with listening(key=KEY_OF_SERVICE) as speech:
        settings = {
            "PORT": "0",
            "DEEPGRAM_URL": speech.url,
            "DEEPGRAM_API_KEY": KEY_OF_SERVICE,
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        }
        with program(folder=folder, **settings) as started:
            port = int(started.line(r"WebSocket endpoint: ws://localhost:(\d+)")[1])
            passes = Passes(folder / "data" / "access")
            attacked = Target(port, passes, speech, started, passes.issue(Kind.TOKEN, Scope, for_s=3600))
            with call_in_progress(attacked):
                yield attacked
            assert_nothing_happened(attacked, folder)
            started.tell()
            assert started.end() == 0
        assert_nothing_was_told(attacked)


@contextmanager
def call_in_progress(target: Target) -> Iterator[None]:
    """Speaks in real time; in the end, all of it was heard."""
    call = SimulatedCall(target.media(f"/{target.passes.stream_key}"), call_sid="CAinprogress")
    call.open()
    call.start()
    target.legitimate += 1
    over = Event()

    def speak() -> int:
        began = monotonic()
        for frame in count():
            say(call, 20, at_ms=frame * 20)
            gevent.sleep(max(0.0, began + frame * 0.02 - monotonic()))
            if over.is_set():
                return frame + 1
        raise AssertionError

    speaking = gevent.spawn(speak)
    try:
        yield
    finally:
        over.set()
        frames = 2 * speaking.get(timeout=PATIENCE)
        hang_up(call)
    ended = target.program.line(r"^Call CA..ogress ended \(stop\): .*")[0]
    assert f"{frames} frames, 0 audio gaps (0 ms), {frames} words, 0 reconnects, 0 ms lost" in ended


def assert_nothing_happened(target: Target, folder: Path) -> None:
    """Nobody who was not let in has opened anything, or was kept."""
    assert len(target.speech.connections) == target.legitimate
    with closing(sqlite3.connect(folder / "data" / "calls.db")) as store:
        eventually(lambda: store.execute("SELECT count(*) FROM calls").fetchone()[0] >= target.legitimate)
        assert store.execute("SELECT count(*) FROM calls").fetchone() == (target.legitimate,)
    for why in ("credential", "nothing", "origin", "path", "request", "crowd"):
        assert target.counted(f'relay_refused_total{{why="{why}"}}') > 0, why
    assert target.counted("relay_streams_admitted_total") == target.legitimate
    assert target.counted("relay_signatures_total") > 0


def assert_nothing_was_told(target: Target) -> None:
    """What was printed and logged holds nothing that lets anybody in, and is short for all that was tried."""
    told = str(target.program)
    for secret in (target.passes.stream_key, AUTH_TOKEN, KEY_OF_SERVICE, target.token, "hush-hush"):
        assert secret not in told
    assert "Traceback" not in told
    assert len(target.program.err) < 60, told
    assert "refused: The key or pass is wrong" in told
    assert "refused: Pages of other sites" in told


def test_a_call_that_comes_by_right_is_heard_between_all_of_this(target: Target) -> None:
    be_served(target)


def be_served(target: Target) -> None:
    """A call that may come does, whatever else goes on."""
    call_sid = f"CAbyright{target.legitimate}"
    call = SimulatedCall(target.media(f"/{target.a_pass(call_sid)}"), call_sid=call_sid)
    call.open()
    call.start()
    say(call, 200)
    target.legitimate += 1
    hang_up(call)
    target.speech.wait_for(lambda: len(target.speech.connections) == target.legitimate, within=PATIENCE)


# --- Tokens and signatures ----------------------------------------------------------------------------------------


def refused_with(target: Target, path: str, **headers: str) -> int | None:
    call = SimulatedCall(target.media(path), headers={name.replace("_", "-"): text for name, text in headers.items()})
    try:
        call.open()
    except UpgradeRefused as refusal:
        return refusal.status
    call.start()
    return call.wait_closed(PATIENCE).code


def test_forged_tokens(target: Target) -> None:
    real = target.a_pass("CAvictim")
    id_, _, signature = real.rpartition(".")
    other_id = target.a_pass("CAother").rpartition(".")[0]
    forged = [
        f"{other_id}.{signature}",
        f"{id_}.",
        id_,
        f".{signature}",
        f"{id_}.{signature[:-1]}",
        f"{real}.{signature}",
        real.swapcase(),
        "A" * 200,
        "hush-hush",
    ]
    assert {refused_with(target, f"/{text}") for text in forged} == {403}


def spend(target: Target, text: str) -> None:
    known = target.passes.look(text, Kind.STREAM)
    assert known is not None
    assert target.passes.end(known.id)


def test_stale_replayed_and_foreign_tokens(target: Target, tmp_path: Path) -> None:
    others = Passes(tmp_path)
    spent = target.a_pass("CAspent")
    spend(target, spent)
    worth_nothing = [
        target.a_pass("CAstale", for_s=-1),
        spent,
        others.issue(Kind.STREAM, (), for_s=60, call_sid="CA1"),
        others.stream_key,
        target.token,
        target.passes.issue(Kind.SESSION, Scope, for_s=60),
        target.passes.issue(Kind.SHARE, (Scope.READ,), for_s=60, call_sid="CAinprogress"),
    ]
    assert {refused_with(target, f"/{text}") for text in worth_nothing} == {403}
    assert refused_with(target, f"/{target.a_pass('CAanother')}") == 1008  # right, but not for this call


def test_forged_and_replayed_signatures(target: Target) -> None:
    right = signed("wss://relay.example/media", AUTH_TOKEN)["X-Twilio-Signature"]
    wrong = signed("wss://relay.example/media", "guessed")["X-Twilio-Signature"]
    for signature in (wrong, right[:-1], f"{right},{right}", "", "ÿ", "A" * 5000):
        assert refused_with(target, "", X_Twilio_Signature=signature) == 1008
    for settings in ("algorithm=HMAC_SHA256", "algorithm=none", "algorithm=HMAC_MD5,key=%s%n"):
        headers = {"X_Twilio_Signature": right, "X_Twilio_Webhooks_Signature_Settings": settings}
        assert refused_with(target, "", **headers) == 1008
    path = f"/{target.a_pass('CAonce')}"
    spend(target, path[1:])
    replayed = signed(f"wss://relay.example/media{path}", AUTH_TOKEN)["X-Twilio-Signature"]
    assert refused_with(target, path, X_Twilio_Signature=replayed) == 403  # though the signature is right


def test_requests_of_twilios_made_by_others(target: Target) -> None:
    form = "CallSid=CAinprogress&StreamSid=MZ1&StreamEvent=stream-stopped"
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    for path in ("/twiml", "/stream-status", "/twiml/hush-hush", "/stream-status/hush-hush"):
        assert target.asks(path, "POST", form, **kind)[0] == 403
        assert target.asks(path, "POST", form, **kind, X_Twilio_Signature="c2hhMQ==")[0] == 403
        assert target.asks(path, "POST", '{"CallSid": "CA1"}', Content_Type="application/json")[0] == 403
    body = form.replace("CAinprogress", "CAother")
    read = dict(pair.split("=") for pair in body.split("&"))
    signature = signed(f"{PUBLIC_URL}/stream-status", AUTH_TOKEN, read)["X-Twilio-Signature"]
    assert target.asks("/stream-status", "POST", form, **kind, X_Twilio_Signature=signature)[0] == 403


# --- Floods -------------------------------------------------------------------------------------------------------


def test_a_flood_of_upgrades(target: Target) -> None:
    wave = [gevent.spawn(refused_with, target, "/hush-hush") for _ in range(300)]
    be_served(target)
    gevent.joinall(wave, timeout=60, raise_error=True)
    assert {one.value for one in wave} == {403}


def test_a_flood_of_sockets_that_show_nothing(target: Target) -> None:
    calls = [SimulatedCall(target.media()) for _ in range(200)]
    for call in calls:
        call.open()
    be_served(target)
    for call in calls:
        call.close()


def test_a_flood_of_chatter(target: Target) -> None:
    calls = [SimulatedCall(target.media()) for _ in range(10)]
    for call in calls:
        call.open()
        with suppress(CallFailed):
            for _ in range(200):
                call.send('{"event":"hush-hush"}')
                call.media("inbound", "AAAA", 0)
                call.send(b"\x00" * 100)
    be_served(target)
    for call in calls:
        call.close()


def test_slow_heads_and_bodies(target: Target) -> None:
    beginnings = (
        b"",
        b"G",
        b"GET /",
        b"GET / HTTP/1.1\r\nX",
        b"POST /twiml HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
    )
    slow = [create_connection(("127.0.0.1", target.port)) for _ in beginnings for _ in range(150)]
    for number, client in enumerate(slow):
        with suppress(OSError):
            client.sendall(beginnings[number % len(beginnings)])
    be_served(target)
    assert target.asks("/healthz")[0] == 200
    for client in slow:
        client.close()


def test_messages_that_are_too_large(target: Target) -> None:
    for path in ("", f"/{target.passes.stream_key}"):
        call = SimulatedCall(target.media(path))
        call.open()
        with suppress(CallFailed):
            call.send("x" * (1 << 20))
        assert call.wait_closed(PATIENCE).code in (1009, 1006)
    assert target.asks("/healthz")[0] == 200


# --- Paths --------------------------------------------------------------------------------------------------------

TRICKS = (
    "//media",
    "/media//",
    "/./media",
    "/media/.",
    "/media/..",
    "/media/../api/calls",
    "/media/%2e%2e/api/calls",
    "/media/..%2fapi/calls",
    "/media%2f%2f",
    "/media/%00",
    "/media/a%00b",
    "/media/a%2fb",
    "/media/a;b",
    "/media/%c0%ae%c0%ae",
    "/media/%ff",
    "/MEDIA",
    "/mediax",
    "/media\\x",
    "http://evil.example/media",
    "http://localhost/media",
    "*",
    "localhost:443",
    "/api/live",
    "/",
)


@pytest.mark.parametrize("path", TRICKS)
def test_tricks_with_paths_open_no_socket(target: Target, path: str) -> None:
    answer = target.says(f"GET {path} HTTP/1.1\r\n{UPGRADE}\r\n".encode("latin-1"))
    status = int(answer.split()[1])
    assert status in (400, 403, 404)
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("path", [*TRICKS, "/%61pi/calls", "//api/calls", "/api//calls", "/static/../app.py"])
def test_tricks_with_paths_show_nothing(target: Target, path: str) -> None:
    answer = target.says(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
    assert int(answer.split()[1]) in (303, 308, 400, 401, 403, 404, 426)
    assert b"CAinprogress" not in answer
    assert b"evil.example" not in answer


def test_a_key_in_a_query_counts_for_nothing(target: Target) -> None:
    request = f"GET /media?key={target.passes.stream_key} HTTP/1.1\r\n{UPGRADE}\r\n"
    client = create_connection(("127.0.0.1", target.port), timeout=PATIENCE)
    client.sendall(request.encode())
    assert b" 101 " in client.recv(1024)  # as for any stranger: nothing is opened for it
    client.close()


# --- Requests that are read differently ---------------------------------------------------------------------------

HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 100\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: 0\r\nContent-Length: 43\r\n",
        b"Content-Length: 0, 43\r\n",
        b"Content-Length: +0\r\n",
        b"Content-Length: 0x0\r\n",
        b"Content-Length: 1_0\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length:\r\n",
        b"Content-Length : 43\r\n",
        b"X: a\r\n Content-Length: 43\r\n",
        b"X: a\r\n\tb\r\n",
        b"X: a\nContent-Length: 43\r\n",
        b"X: a\rContent-Length: 43\r\n",
        b"X: a\x00b\r\n",
        b"X\r\n",
        b": x\r\n",
        b"Host: other\r\n",
    ],
)
def test_what_may_be_read_in_two_ways_is_not_read(target: Target, fields: bytes) -> None:
    request = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n" + HIDDEN
    answer = target.says(request)
    assert int(answer.split()[1]) in (400, 411)
    assert answer.count(b"HTTP/1.1 ") == 1, "the hidden request was answered"


@pytest.mark.parametrize(
    "line",
    [
        b"GET /healthz\r\n",
        b"GET /healthz HTTP/2.0\r\n",
        b"GET /healthz HTTP/1.1 x\r\n",
        b"GET  /healthz HTTP/1.1\r\n",
        b"GET /healthz\tHTTP/1.1\r\n",
        b"get /healthz HTTP/1.1\r\n",
        b"GET /health\xffz HTTP/1.1\r\n",
        b"GET /healthz HTTP/1.1\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
        b"PRI * HTTP/2.0\r\n",
    ],
)
def test_other_first_lines_are_refused(target: Target, line: bytes) -> None:
    assert target.says(line + b"Host: localhost\r\n\r\n" + HIDDEN).count(b"HTTP/1.1 400 ") == 1


def test_no_header_is_injected(target: Target) -> None:
    tricks = ("%0d%0aX-Injected:%20yes", "%0aX-Injected:%20yes", "%E5%98%8D%E5%98%8AX-Injected:%20yes")
    for trick in tricks:
        for path in (f"/login?next=/{trick}", f"/{trick}", f"/media/{trick}", f"/calls/{trick}", f"/enter/{trick}"):
            answer = target.says(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert not re.search(rb"^x-injected", answer.partition(b"\r\n\r\n")[0], re.I | re.M), path
    key = target.passes.stream_key
    kind = {"Content_Type": "application/x-www-form-urlencoded"}
    status, _ = target.asks(f"/twiml/{key}", "POST", "CallSid=CA1%0d%0aX-Injected:%20yes", **kind)
    assert status == 400
    status, twiml = target.asks(f"/twiml/{key}", "POST", "CallSid=CA1&From=%22/%3E%3CHangup/%3E", **kind)
    assert (status, "<Hangup" in twiml) == (200, False)


def test_a_foreign_host_is_repeated_nowhere(target: Target) -> None:
    for path in ("/", "/login", "/media", "/nowhere", "//media", "//api//calls", "//static//style.css"):
        answer = target.says(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
        assert b"evil.example" not in answer, path


# --- Other sites' pages -------------------------------------------------------------------------------------------


def test_pages_of_other_sites_get_no_socket_and_no_feed(target: Target) -> None:
    key = target.passes.stream_key
    for origin in ("https://evil.example", "null", "https://relay.example.evil.example"):
        assert refused_with(target, f"/{key}", Origin=origin) == 403
        status, _ = target.asks("/api/live", Origin=origin, Authorization=f"Bearer {target.token}")
        assert status == 403
    headers = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Authorization": f"Bearer {target.token}"}
    assert target.asks("/api/live", **headers)[0] == 403

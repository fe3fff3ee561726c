"""Requests to services that answer, refuse, send us elsewhere, say nothing, or talk nonsense."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import gevent
import pytest
from gevent import socket
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import fetch as fetch_module
from relay.errors import Lost, Refused, ServiceError
from relay.fetch import Response, fetch
from relay.protocol import Request
from tests.test_connection import serving

KEY = "k3y-n0b0dy-may-s33"
TOKEN = "t0ken-n0b0dy-may-s33"
BODY = b'{"channels":2}'
SOON = 0.3  # seconds
ROOMY = 20.0  # seconds; nothing here takes nearly so long


def ask(
    host: str, within: float = ROOMY, *, method: str = "POST", body: bytes = BODY, key: str = KEY, scheme: str = "http"
) -> Response:
    return fetch("Gladia", Request(method, f"{scheme}://{host}/v2/live?token={TOKEN}", {"X-Key": key}, body), within)


def assert_tells_no_secret(trouble: ServiceError) -> None:
    sentence = str(trouble)
    assert sentence.startswith("Gladia")
    for secret in (KEY, TOKEN, "/v2/live"):
        assert secret not in sentence


def lost(host: str, within: float = ROOMY) -> str:
    """Why the service was lost."""
    with pytest.raises(Lost) as raised:
        ask(host, within)
    assert_tells_no_secret(raised.value)
    return str(raised.value)


def read_request(sock: socket.socket) -> bytes:
    """A request, with its body if it has one."""
    received = b""
    while b"\r\n\r\n" not in received or (received.startswith(b"POST") and not received.endswith(BODY)):
        chunk = sock.recv(4096)
        assert chunk, "the client has gone"
        received += chunk
    return received


def says(*parts: bytes) -> Callable[[socket.socket], None]:
    """A server that reads a request and answers with this."""

    def handle(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"".join(parts))

    return handle


# --- Answers -----------------------------------------------------------------------------------------------------


def test_what_was_asked_and_what_was_answered_arrive_whole() -> None:
    asked = []

    def create(sock: socket.socket) -> None:
        asked.append(read_request(sock))
        sock.sendall(b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"id":"7"}')

    with serving(create) as host:
        answer = ask(host)
    assert (answer.status, answer.body) == (201, b'{"id":"7"}')
    assert answer.headers["content-type"] == "application/json"
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(f"POST /v2/live?token={TOKEN} HTTP/1.1\r\n".encode())
    assert f"x-key: {KEY}".encode() in head.lower().splitlines()
    assert body == BODY


def test_a_question_without_a_body_has_none() -> None:
    asked = []

    def tell(sock: socket.socket) -> None:
        asked.append(read_request(sock))
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")

    with serving(tell) as host:
        assert ask(host, method="GET", body=b"").body == b"{}"
    assert asked[0].startswith(b"GET ")
    assert asked[0].endswith(b"\r\n\r\n")
    assert b"content-length" not in asked[0].lower()


@pytest.mark.parametrize("status", [400, 401, 402, 404, 429, 500, 503])
def test_a_refusal_is_an_answer_with_its_body_and_its_headers(status: int) -> None:
    with serving(says(f"HTTP/1.1 {status} No\r\nX-Request-ID: G-1\r\nContent-Length: 2\r\n\r\n[]".encode())) as host:
        answer = ask(host)
    assert (answer.status, answer.headers["x-request-id"], answer.body) == (status, "G-1", b"[]")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_redirect_is_not_followed_and_the_key_stays_here(status: int, method: str) -> None:
    asked_elsewhere = []
    with serving(lambda sock: asked_elsewhere.append(sock.recv(4096))) as elsewhere:
        redirect = f"HTTP/1.1 {status} Over there\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n"
        with serving(says(redirect.encode())) as host:
            answer = ask(host, method=method, body=BODY if method == "POST" else b"")
    assert answer.status == status
    assert asked_elsewhere == []


# --- No answer ---------------------------------------------------------------------------------------------------


def is_in_time(began: float) -> bool:
    return SOON <= monotonic() - began < ROOMY / 2


@pytest.mark.parametrize(
    "so_far", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_service_that_says_nothing_more_is_lost_within_the_deadline(so_far: bytes) -> None:
    def fall_silent(sock: socket.socket) -> None:
        sock.sendall(so_far)
        gevent.sleep(60)

    began = monotonic()
    with serving(fall_silent) as host:
        assert lost(host, SOON) == "Gladia did not answer within 0.3 s"
    assert is_in_time(began)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 500 No\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"],
)
def test_a_body_that_trickles_for_ever_is_lost_within_the_deadline(head: bytes) -> None:
    def trickle(sock: socket.socket) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(b"1\r\nx\r\n")
            gevent.sleep(0.01)

    began = monotonic()
    with serving(trickle) as host:
        assert "did not answer within" in lost(host, SOON)
    assert is_in_time(began)


def test_a_body_without_end_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "LARGEST_ANSWER", 1 << 20)

    def pour(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sock.sendall(b"x" * 65536)

    with serving(pour) as host:
        assert lost(host) == "Gladia's answer is larger than 1 MiB"


@pytest.mark.parametrize("over", [0, 1])
def test_the_largest_body_is_taken_and_no_larger_one(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    monkeypatch.setattr(fetch_module, "LARGEST_ANSWER", 1 << 20)
    size = (1 << 20) + over
    with serving(says(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode(), b"x" * size)) as host:
        if over:
            assert lost(host) == "Gladia's answer is larger than 1 MiB"
        else:
            assert len(ask(host).body) == size


@pytest.mark.parametrize(
    "half",
    [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n64\r\n{"],
    ids=["of a length", "in chunks"],
)
def test_half_an_answer_is_none(half: bytes) -> None:
    with serving(says(b"HTTP/1.1 200 OK\r\n", half)) as host:
        lost(host)


def test_nobody_there_is_lost() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert "Connection refused" in lost(f"127.0.0.1:{free.getsockname()[1]}")


def test_a_name_of_no_host_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(*_: object) -> None:  # as servers of names say it, if they are to be had, after a while
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(gevent.get_hub().resolver, "getaddrinfo", find_nothing)
    assert "could not be asked" in lost("no-such-host.invalid")


def test_a_service_that_hangs_up_is_lost() -> None:
    with serving(says()) as host:
        assert "could not be asked" in lost(host)


def test_a_certificate_nobody_vouches_for_is_refused() -> None:
    with serving(says(), tls=True) as host, pytest.raises(Refused, match="certificate") as raised:
        ask(host, scheme="https")
    assert_tells_no_secret(raised.value)


@pytest.mark.parametrize("key", ["k3y-n0b0dy-may-s33-\u2019", "k3y-n0b0dy-may-s33\r\nX-More: 1"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    with serving(says()) as host, pytest.raises(Refused, match="key or address") as raised:
        ask(host, key=key)
    assert_tells_no_secret(raised.value)
    assert raised.value.__suppress_context__, "a traceback would show it"


@pytest.mark.parametrize("host", ["[::1", "127.0.0.1/\u2019", "127.0.0.1:port", "127.0.0.1/ "])
def test_an_address_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(Refused, match="key or address") as raised:
        ask(host)
    assert_tells_no_secret(raised.value)


# --- Nonsense ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense",
    [
        b"hello\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"HTTP/1.1 abc Hm\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmany\r\n",
    ],
    ids=["a greeting", "TLS", "no status", "many headers", "a long header", "no chunks"],
)
def test_nonsense_is_lost(nonsense: bytes) -> None:
    with serving(says(nonsense)) as host:
        assert "not what HTTP should look like" in lost(host)


def test_an_echo_of_our_own_request_is_not_shown() -> None:
    def echo(sock: socket.socket) -> None:
        sock.sendall(read_request(sock))

    with serving(echo) as host:
        lost(host)


@settings(max_examples=200)
@given(head=st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]), rest=st.binary())
def test_whatever_comes_is_an_answer_or_none(head: bytes, rest: bytes) -> None:
    with serving(says(head, rest)) as host:
        try:
            assert isinstance(ask(host, 2.0).status, int)
        except ServiceError as trouble:
            assert_tells_no_secret(trouble)

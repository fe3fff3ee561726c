"""Requests to the outside: where they may go, how long they may take and how much may come back."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import gevent
import pytest
from gevent import socket
from gevent.monkey import get_original
from gevent.queue import Queue
from hypothesis import given
from hypothesis import strategies as st

from relay import outward as outward_module
from relay.outward import Answer, Line, Outward, Unreached, is_any, is_public
from tests.receiving import WITHIN, Receiver, client_tls, read_request, server_tls, serving
from tests.storing import eventually

SECRETS = ("tell-no-one", "pa55word", "topsecret")


@contextmanager
def line_to(url: str, outward: Outward | None = None) -> Iterator[Line]:
    line = (outward or Outward(allows=is_any)).line(url)
    try:
        yield line
    finally:
        line.close()


def post(url: str, outward: Outward | None = None, body: bytes = b"{}") -> Answer:
    with line_to(url, outward) as line:
        return line.post(body, {"content-type": "application/json"})


def why_not(url: str, outward: Outward | None = None, body: bytes = b"{}") -> str:
    with pytest.raises(Unreached) as trouble:
        post(url, outward, body)
    return str(trouble.value)


def found_at(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    """A name server that knows one answer."""
    return lambda _host, _port: addresses


# --- Which addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:c0a8:101::",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "64:ff9b::808:808",
    ],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses())
def test_what_python_takes_for_special_is_not_public(address: IPv4Address | IPv6Address) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    assert not (special and is_public(address)) or address in ip_network("64:ff9b::/96")


def test_this_machine_is_not_posted_to() -> None:
    with Receiver() as receiver:
        for host in ("localhost", "127.0.0.1", "127.1", "2130706433", "0.0.0.0", "[::ffff:127.0.0.1]"):
            why = why_not(receiver.url(host=host), Outward())
            assert "no public address; WEBHOOK_ALLOW_PRIVATE=true would allow it" in why
        assert receiver.so_far() == []


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    """Nobody listens at the first, which stands for a public one; and the second is not even knocked at."""
    knocks: Queue[Any] = Queue()
    with serving(lambda sock: knocks.put(sock.getpeername())) as url:
        outward = Outward(
            allows=lambda address: str(address) == "127.0.0.2", resolve=found_at("127.0.0.2", "127.0.0.1")
        )
        assert "127.0.0.1, which is no public address" in why_not(url, outward)
        with socket.create_connection(("127.0.0.1", urlsplit(url).port)) as ours:
            assert knocks.get(timeout=WITHIN) == ours.getsockname()


def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """127.0.0.1 stands for a public address, and 127.0.0.2 for one that is not."""
    answers = [["127.0.0.1"], ["127.0.0.2"]]

    def only_the_first(address: IPv4Address | IPv6Address) -> bool:
        return address == ip_address("127.0.0.1")

    with Receiver() as public, Receiver("127.0.0.2", public.port) as private:
        outward = Outward(allows=only_the_first, resolve=lambda _host, _port: answers.pop(0))
        url = public.url(host="hooks.example")  # a name that nobody else could find
        assert post(url, outward).status == 204
        assert len(answers) == 1  # looked up once, and connected to just that
        assert "127.0.0.2" in why_not(url, outward)
        assert len(public.so_far()) == 1
        assert private.so_far() == []


def test_where_a_connection_really_goes_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = socket.getaddrinfo

    def lying(host: str, *args: Any) -> Any:
        return honest("127.0.0.2" if host == "127.0.0.1" else host, *args)

    with Receiver("127.0.0.2") as private:
        monkeypatch.setattr(socket, "getaddrinfo", lying)
        monkeypatch.setattr("socket.getaddrinfo", lying)
        outward = Outward(allows=lambda address: str(address) == "127.0.0.1", resolve=found_at("127.0.0.1"))
        assert "127.0.0.2, which is no public" in why_not(private.url(host="hooks.example"), outward)
        assert private.so_far() == []


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    with Receiver() as receiver:
        outward = Outward(allows=is_any, resolve=found_at("127.0.0.2", "127.0.0.1"))
        assert post(receiver.url(host="hooks.example"), outward).status == 204


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", f"{'x' * 64}.example"])
def test_a_name_that_nobody_has(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert why_not(f"http://{host}/hook").startswith(host)
    assert capfd.readouterr() == ("", ""), "a dead endpoint would fill the terminal"


def test_a_port_where_nobody_listens() -> None:
    with Receiver() as receiver:
        url = receiver.url()
    assert why_not(url) == "localhost could not be talked to (Connection refused)"


def test_who_hangs_up_without_an_answer() -> None:
    def hang_up(sock: socket.socket) -> None:
        read_request(sock)

    with serving(hang_up) as url:
        assert why_not(url) == "localhost closed the connection and did not answer"


def test_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Receiver() as receiver:
        outward = Outward(allows=is_any, resolve=found_at("127.0.0.1"))
        assert post(receiver.url(host="hooks.example"), outward).status == 204


# --- What is sent -------------------------------------------------------------------------------------------


def test_what_is_posted_arrives() -> None:
    with Receiver() as receiver:
        post(receiver.url("/a%20b/c?token=tell-no-one"), body=b'{"a":1}')
        received = receiver.next()
        assert received.target == "/a b/c?token=tell-no-one"
        assert received.body == b'{"a":1}'
        assert received.headers["host"] == f"localhost:{receiver.port}"
        assert received.headers["content-type"] == "application/json"
        assert "authorization" not in received.headers


def test_a_user_in_the_url_is_said_as_basic_authentication_and_nowhere_else() -> None:
    with Receiver() as receiver:
        post(receiver.url(host="j%C3%BCrgen:pa55word%21@localhost"))
        received = receiver.next()
        assert received.headers["authorization"] == "Basic asO8cmdlbjpwYTU1d29yZCE="
        assert received.headers["host"] == f"localhost:{receiver.port}"


def test_one_connection_serves_several_posts_and_is_made_anew_when_it_is_gone() -> None:
    with Receiver() as receiver, line_to(receiver.url()) as line:
        line.post(b"1", {})
        line.post(b"2", {})
        receiver.replies = [(200, {"Connection": "close"})]
        line.post(b"3", {})
        line.post(b"4", {})
        first, second, third, fourth = receiver.take(4)
        assert first.port == second.port == third.port != fourth.port


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with Receiver() as receiver, Receiver() as elsewhere:
        receiver.reply = (302, {"Location": elsewhere.url()})
        assert post(receiver.url()).status == 302
        assert elsewhere.so_far() == []


# --- TLS ----------------------------------------------------------------------------------------------------


def test_over_tls_the_url_s_name_is_asked_for_and_believed() -> None:
    asked = []
    tls = server_tls()
    tls.sni_callback = lambda _sock, name, _context: asked.append(name)
    with Receiver(tls=tls) as receiver:
        outward = Outward(allows=is_any, resolve=found_at("127.0.0.1"), tls=client_tls())
        assert post(receiver.url(), outward).status == 204
        assert asked == ["localhost"]
        assert receiver.next().headers["host"] == f"localhost:{receiver.port}"


@pytest.mark.parametrize(
    ("host", "tls", "why"),
    [("localhost", ssl.create_default_context, "self-signed"), ("hooks.example", client_tls, "not valid for")],
)
def test_a_certificate_that_nobody_vouches_for_or_of_another_name(
    host: str, tls: Callable[[], ssl.SSLContext], why: str
) -> None:
    with Receiver(tls=server_tls()) as receiver:
        outward = Outward(allows=is_any, resolve=found_at("127.0.0.1"), tls=tls())
        trouble = why_not(receiver.url(host=host), outward)
        assert "certificate that cannot be trusted" in trouble
        assert why in trouble
        assert receiver.so_far() == []


def test_an_endpoint_that_does_not_speak_tls() -> None:
    with Receiver() as receiver:
        url = receiver.url().replace("http:", "https:")
        assert "could not be talked to" in why_not(url)


# --- Endpoints that misbehave -------------------------------------------------------------------------------


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward_module, "ANSWER_WITHIN", 0.5)


def drip(sock: socket.socket, piece: bytes) -> None:
    while True:
        sock.sendall(piece)
        gevent.sleep(0.05)


def never_answer(sock: socket.socket) -> None:
    read_request(sock)
    gevent.sleep(60)


def drip_a_head(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    drip(sock, b"x")


def take_nothing(_sock: socket.socket) -> None:
    gevent.sleep(60)


@pytest.mark.usefixtures("_in_a_hurry")
@pytest.mark.parametrize("handle", [never_answer, drip_a_head, take_nothing])
def test_an_endpoint_that_takes_for_ever_is_given_up(handle: Callable[[socket.socket], None]) -> None:
    with serving(handle) as url, gevent.Timeout(20):
        assert why_not(url, body=b"x" * 20_000_000) == "localhost did not answer within 0.5 s"


@pytest.mark.usefixtures("_in_a_hurry")
def test_a_look_up_that_takes_for_ever_is_given_up() -> None:
    def slow(_host: str, _port: int) -> Sequence[str]:
        gevent.sleep(60)
        return []

    assert "did not answer within" in why_not("https://hooks.example/", Outward(resolve=slow))


def test_a_name_that_takes_long_is_asked_for_once_and_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = get_original("threading", "Event")()

    def look_up(host: str, _port: int) -> list[str]:
        asked.append(host)
        if host == "slow.example":
            answers.wait(WITHIN)
        return ["127.0.0.1"]

    monkeypatch.setattr(outward_module, "look_up", look_up)
    resolve = Outward().resolve
    slow = [gevent.spawn(resolve, "slow.example", 443) for _ in range(100)]
    eventually(lambda: asked)
    gevent.killall(slow[:50])
    with gevent.Timeout(WITHIN / 2):
        assert resolve("quick.example", 443) == ["127.0.0.1"]
        assert gevent.get_hub().threadpool.apply(len, ("free",)) == 4
    assert asked == ["slow.example", "quick.example"]
    answers.set()
    gevent.joinall(slow[50:], timeout=WITHIN, raise_error=True)
    assert [greenlet.value for greenlet in slow[50:]] == [["127.0.0.1"]] * 50
    resolve("slow.example", 443)
    assert asked == ["slow.example", "quick.example", "slow.example"]


@pytest.mark.parametrize("how", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked", b"X: y"])
def test_an_answer_whose_body_drips_counts_and_its_connection_does_not(
    how: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outward_module, "REST_WITHIN", 0.2)
    connections = []

    def drip_a_body(sock: socket.socket) -> None:
        connections.append(sock)
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + how + b"\r\n\r\n")
        drip(sock, b"1\r\nx\r\n")

    with serving(drip_a_body) as url, line_to(url) as line, gevent.Timeout(WITHIN):
        assert line.post(b"1", {}).status == 200
        assert line.post(b"2", {}).status == 200
    assert len(connections) == 2


def flooding(start: bytes, piece: bytes) -> tuple[Callable[[socket.socket], None], list[int]]:
    """A server that says the same for as long as anyone listens, and how many bytes that was."""
    sent = []

    def flood(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(start)
        while True:
            sent.append(sock.send(piece * 1000))

    return flood, sent


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
        (b"", b"\0"),
    ],
)
def test_an_answer_without_end_is_not_listened_to(start: bytes, piece: bytes) -> None:
    flood, sent = flooding(start, piece)
    with serving(flood) as url, gevent.Timeout(20):
        assert "does not speak HTTP as we know it" in why_not(url)
    assert sum(sent) < 20_000_000  # what the kernel takes, and no more


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
)
def test_a_body_without_end_is_not_listened_to_either(start: bytes, piece: bytes) -> None:
    flood, sent = flooding(start, piece)
    with serving(flood) as url, gevent.Timeout(20):
        assert post(url).status == 200
    assert sum(sent) < 20_000_000


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_who_will_not_have_the_rest_may_say_why(says_goodbye: bool) -> None:
    def refuse(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        if says_goodbye:
            sock.shutdown(socket.SHUT_WR)  # then what is sent on breaks a pipe; else the connection is reset

    with serving(refuse) as url:
        assert post(url, body=b"x" * 20_000_000).status == 410


def echo(sock: socket.socket) -> None:
    sock.sendall(read_request(sock))


def say_odd_headers(sock: socket.socket) -> None:
    read_request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nwhat is this\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("handle", [echo, say_odd_headers, lambda sock: None])
def test_nothing_secret_is_in_logs_or_errors(
    handle: Callable[[socket.socket], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = ""
    with serving(handle) as url:
        url = url.replace("localhost", "me:pa55word@localhost") + "?token=tell-no-one"
        try:
            post(url, body=b"topsecret")
        except Unreached as trouble:
            said = repr(trouble) + str(trouble.__cause__)
    assert not any(secret in caplog.text + said for secret in SECRETS)

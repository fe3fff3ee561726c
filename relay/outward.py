"""HTTP to addresses that are not ours to trust: only to public ones, never redirected, bounded in time and in bytes.

Who can name a URL could otherwise have us knock at what only this machine reaches: its own services, its neighbours,
its cloud's metadata (OWASP, "Server Side Request Forgery Prevention Cheat Sheet").
"""

from __future__ import annotations

import io
import logging
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import gevent
from gevent.event import AsyncResult
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from relay.errors import RelayError
from relay.text import printable

ANSWER_WITHIN: Final = 15.0  # seconds from the look-up of the name to the answer's head
REST_WITHIN: Final = 1.0  # seconds for the rest of the answer, on which nothing depends
CONNECT_WITHIN: Final = 5.0  # seconds for one address; then the next one is tried
LARGEST_ANSWER: Final = 64 * 1024  # bytes of an answer, its head included
NAMES_AT_ONCE: Final = 16  # that are looked up; beyond that, names wait for one another

_getaddrinfo = get_original("socket", "getaddrinfo")  # the patched one would ask one of gevent's own threads

logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its warnings tell whole URLs, and what is secret in them

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Sequence[str]]  # a host's addresses, in the order they should be tried


class Unreached(RelayError):
    """No answer came from outside, or none was asked for. The message says why, and nothing of the URL but its host."""


# --- Which addresses are public -----------------------------------------------------------------------------


def _networks(*written: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, written))


# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, written out, since what
# `ipaddress` calls private or global has changed between releases of Python.
_NOT_PUBLIC_4: Final = _networks(
    "0.0.0.0/8",  # this host
    "10.0.0.0/8",
    "100.64.0.0/10",  # carriers' NAT, and the metadata of Alibaba's cloud
    "127.0.0.0/8",
    "168.63.129.16/32",  # what Azure's machines ask about themselves; public by its number only
    "169.254.0.0/16",  # link-local, and the metadata of most clouds
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",
)
_PUBLIC_6: Final = ip_network("2000::/3")  # all else is local, multicast, another form of IPv4 or not given out
_NOT_PUBLIC_6: Final = _networks(
    "2001::/23",  # protocols of their own, tunnels among them
    "2001:db8::/32",
    "2002::/16",  # IPv4 in another form, for tunnels that are no more (RFC 7526)
    "3fff::/20",
)
_NAT64: Final = ip_network("64:ff9b::/96")  # IPv4 addresses, in the last 32 bits, as networks without IPv4 write them


def is_public(address: Address) -> bool:
    """Whether an address is the internet's: neither of this machine, its network, its cloud, nor of many at once."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def is_any(_address: Address) -> bool:
    """For who trusts whoever names the URLs."""
    return True


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order they should be tried. Blocks its thread. Raises OSError."""
    found = _getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class NameServer:
    """Looks names up in threads of its own, each name in one at a time: who has given up waiting has not ended the
    look-up, and one that takes long would else keep gevent's few threads from all that calls need them for."""

    def __init__(self) -> None:
        self._pool = ThreadPool(NAMES_AT_ONCE)
        self._asked: dict[tuple[str, int], AsyncResult[list[str] | Exception]] = {}

    def __call__(self, host: str, port: int) -> list[str]:
        """A host's addresses. Raises OSError."""
        asked = self._asked.get((host, port))
        if asked is None or asked.ready():
            asked = self._asked[host, port] = self._pool.spawn(_try_to_look_up, host, port)
        found = asked.get()
        if isinstance(found, Exception):
            raise found
        return found or []


def _try_to_look_up(host: str, port: int) -> list[str] | Exception:
    """gevent prints a traceback of what a thread raises."""
    try:
        return look_up(host, port)
    except (OSError, UnicodeError) as trouble:
        return trouble


# --- One URL ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]


class Outward:
    """Lines to the outside: to which addresses, as found by what, and by whose word certificates are trusted."""

    def __init__(
        self,
        *,
        allows: Callable[[Address], bool] = is_public,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.allows = allows
        self.resolve = resolve or NameServer()
        self.tls = tls or ssl.create_default_context()  # made once: reading the list takes some 20 ms

    def line(self, url: str) -> Line:
        """A line to this URL; it is opened when there is something to post."""
        return Line(url, self)


class Line:
    """Posts to one URL, over one connection for as long as that lasts. For one greenlet at a time.

    The name is looked up once for each connection; all its addresses are checked, and one of just these is connected
    to, so that a second answer of the name server changes nothing. The environment's proxies are not asked.
    """

    def __init__(self, url: str, outward: Outward) -> None:
        self._outward = outward
        self._connection: HTTPConnection | None = None
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._is_tls else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Host": parts.netloc.rpartition("@")[2]}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {b64encode(user.encode()).decode()}"

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Sends this, and gives the answer, whatever its status. Raises Unreached when there is none in time."""
        too_late = Unreached(f"{self._host} did not answer within {ANSWER_WITHIN:g} s")
        try:
            with gevent.Timeout(ANSWER_WITHIN, too_late):
                response = self._ask(body, {**self._headers, **headers})
        except (HTTPError, HTTPException, OSError, UnicodeError) as trouble:  # the last: a name that none can have
            self.close()
            raise Unreached(f"{self._host} {_what_happened(trouble)}") from None
        except BaseException:
            self.close()
            raise
        answer = Answer(response.status, {name.lower(): value for name, value in response.headers.items()})
        self._finish(response)
        return answer

    def close(self) -> None:
        """Lets go of the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, body: bytes, headers: Mapping[str, str]) -> BaseHTTPResponse:
        connection = self._connected()
        with suppress(BrokenPipeError, ConnectionResetError):  # who will not have the rest of it may have said why
            connection.request("POST", self._target, body, headers, preload_content=False, decode_content=False)
        return connection.getresponse()

    def _finish(self, response: BaseHTTPResponse) -> None:
        """Reads the rest of an answer, for the sake of the next post; where that is long or slow to come, there will be
        a new connection."""
        with suppress(HTTPError, HTTPException, OSError), gevent.Timeout(REST_WITHIN, TimeoutError()):
            response.read()
            return
        self.close()

    def _connected(self) -> HTTPConnection:
        if self._connection is not None and not self._connection.is_connected:
            self.close()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> HTTPConnection:
        """A connection to one of the host's addresses. Raises OSError, HTTPError or Unreached."""
        addresses = self._outward.resolve(self._host, self._port)
        for address in addresses:
            self._check(address)
        failure: Exception = socket.gaierror(socket.EAI_NONAME, "it has no address")
        for address in addresses:
            try:
                return self._connect_to(address)
            except (HTTPError, OSError) as trouble:
                failure = trouble
        raise failure

    def _connect_to(self, address: str) -> HTTPConnection:
        connection: HTTPConnection = (
            _TlsConnection(
                address,
                self._port,
                timeout=CONNECT_WITHIN,
                server_hostname=self._host,
                ssl_context=self._outward.tls,
            )
            if self._is_tls
            else _PlainConnection(address, self._port, timeout=CONNECT_WITHIN)
        )
        try:
            connection.connect()
            self._check(connection.sock.getpeername()[0])
        except BaseException:
            connection.close()
            raise
        connection.timeout = ANSWER_WITHIN
        return connection

    def _check(self, address: str) -> None:
        if not self._outward.allows(ip_address(address.partition("%")[0])):  # a link-local one names its link behind %
            raise Unreached(
                f"{self._host} is at {address}, which is no public address; WEBHOOK_ALLOW_PRIVATE=true would allow it"
            )


# --- Bounded answers ----------------------------------------------------------------------------------------


class _Allowance(io.RawIOBase):
    """What a socket says, until that is too much. A peer that always has more would never let another greenlet run:
    gevent switches in a wait only, and the library would read any number of interim answers or trailers."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self._raw = raw
        self._left = LARGEST_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise HTTPException(f"answered with more than {LARGEST_ANSWER} bytes")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedResponse(HTTPResponse):
    """The standard library's response, reading through an allowance."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Allowance(self.fp.detach()))


class _PlainConnection(HTTPConnection):
    response_class = _BoundedResponse


class _TlsConnection(HTTPSConnection):
    response_class = _BoundedResponse


def _what_happened(trouble: Exception) -> str:
    """The rest of a sentence that begins with the host. What a peer or a library says stays out of it: the one may
    repeat what we sent, the other tells the URL."""
    if isinstance(trouble, HTTPError) and isinstance(trouble.__cause__, OSError):
        trouble = trouble.__cause__
    if isinstance(trouble, ssl.SSLCertVerificationError):
        return f"has a certificate that cannot be trusted ({trouble.verify_message})"
    if isinstance(trouble, socket.gaierror):
        return f"was not found ({trouble.strerror})"
    if isinstance(trouble, RemoteDisconnected):
        return "closed the connection and did not answer"
    if isinstance(trouble, TimeoutError):
        return f"could not be connected to within {CONNECT_WITHIN:g} s"
    if isinstance(trouble, OSError) and trouble.strerror:
        return f"could not be talked to ({printable(trouble.strerror)})"
    return f"does not speak HTTP as we know it ({type(trouble).__name__})"

"""Reads requests: strictly, whole, and within deadlines, so that nobody holds anything by being slow.

gevent's own handler waits for a head and for a body as long as it takes. It also reads what others read differently
(two lengths, a bare line feed, folded headers), which is how requests are smuggled past a proxy. Here a request is
read whole, or answered with its fault, before the app hears of it (RFC 9112; RFC 9110, 15.5).
"""

from __future__ import annotations

import errno
import logging
import re
from contextlib import suppress
from http import HTTPStatus
from io import BufferedReader, BytesIO
from typing import Any, Final

import gevent
from gevent.pywsgi import Input, WSGIServer
from gevent.socket import SHUT_RDWR

from relay.admission import Admission, TurnedAway, Visit
from relay.doorbook import Doorbook
from relay.mediasocket import MediaSocketHandler, UpgradeRefused
from relay.text import printable

log = logging.getLogger("relay.web.requests")

REQUEST_WITHIN: Final = 10.0  # seconds for a whole request, from its first byte
IDLE_FOR: Final = 60.0  # seconds that a connection may be silent between two requests
SEND_WITHIN: Final = 60.0  # seconds in which a client takes nothing of an answer, and is taken for gone
SEND_AT_ONCE: Final = 64 * 1024  # bytes, for which a client has so much time
LONGEST_HEAD: Final = 16 * 1024  # bytes; browsers' have about one thousand
LONGEST_BODY: Final = 64 * 1024  # bytes; forms of Twilio's have about two thousand
UNFINISHED_MOST: Final = 500  # connections that have not finished a request, and may never
TOO_SLOW: Final = "It was not whole in time."
VISIT: Final = "relay.visit"  # what the app finds in its environ of a WebSocket that was let in

_REQUEST_LINE: Final = re.compile(r"[A-Z]{1,20} [\x21-\x7e]+ HTTP/1\.[01]\r\n")
_FIELD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")  # RFC 9110, 5.5 and 5.6.2


class Unacceptable(ValueError):
    """A request that is not answered but refused, by a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Lobby:
    """Connections that have not finished a request. Of too many, the one that has taken longest is closed.

    A client's whole request takes moments; so even in a flood of connections that say nothing, it gets through.
    """

    def __init__(self, doorbook: Doorbook) -> None:
        self._doorbook = doorbook
        self._waiting: dict[RequestHandler, None] = {}  # oldest first

    def enter(self, handler: RequestHandler) -> None:
        """A connection begins to wait for a request."""
        self._waiting[handler] = None
        if len(self._waiting) > UNFINISHED_MOST:
            oldest = next(iter(self._waiting))
            self.leave(oldest)
            self._doorbook.refuse("crowd", "Too many connections waited for a request; the oldest was closed.")
            oldest.give_up()

    def leave(self, handler: RequestHandler) -> None:
        """It has one, or is over."""
        self._waiting.pop(handler, None)


class HTTPServer(WSGIServer):
    """gevent's WSGI server, and who guards its door."""

    max_accept = 16  # connections accepted before the calls have their turn

    def __init__(self, *arguments: Any, admission: Admission | None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.admission = admission
        self.doorbook = admission.doorbook if admission is not None else Doorbook()
        self.lobby = Lobby(self.doorbook)


class RequestHandler(MediaSocketHandler):
    """Handles a connection: one request after the other, or a WebSocket."""

    server: HTTPServer
    _hurry: gevent.Timeout | None = None
    _has_asked = False
    _body: bytes = b""

    def handle_one_request(self) -> Any:
        try:
            return super().handle_one_request()
        finally:
            self._stop_waiting()

    def read_requestline(self) -> str:
        """Waits for a request. Who says nothing, or not even a whole line, is hung up on without a word."""
        self.server.lobby.enter(self)
        gevent.sleep(0)  # calls have their turn: for a client that asks on and on, nothing else would make us wait
        with gevent.Timeout(IDLE_FOR if self._has_asked else REQUEST_WITHIN, TimeoutError()):
            self.rfile.peek(1)
        self._hurry = gevent.Timeout.start_new(REQUEST_WITHIN, TimeoutError())
        try:
            return super().read_requestline()  # type: ignore[no-any-return]
        except TimeoutError:
            self.server.doorbook.refuse("slow", f"A request was refused: {TOO_SLOW}")
            raise

    def read_request(self, raw_requestline: str) -> bool:
        """Reads the rest of it. Raises what `_handle_client_error` answers."""
        if not _REQUEST_LINE.fullmatch(raw_requestline):
            raise Unacceptable(HTTPStatus.BAD_REQUEST, "The first line is not one of HTTP/1.1.")
        super().read_request(raw_requestline)
        self._body = self._read_body()
        self._stop_waiting()
        self._has_asked = True
        return True

    def MessageClass(self, *_: object) -> Any:  # noqa: N802  # gevent's name
        """The head's fields, by gevent's hook for those who read them differently."""
        fields = super().MessageClass(BytesIO(self._read_head()), 0)
        lengths, hosts = fields.get_all("Content-Length", []), fields.get_all("Host", [])
        if "Transfer-Encoding" in fields:
            raise Unacceptable(HTTPStatus.LENGTH_REQUIRED, "A body should come with a Content-Length.")
        if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,18}", length) for length in lengths):
            raise Unacceptable(HTTPStatus.BAD_REQUEST, "Content-Length should be one number.")
        if len(hosts) > 1 or (self.request_version == "HTTP/1.1" and not hosts):
            raise Unacceptable(HTTPStatus.BAD_REQUEST, "There should be one Host.")
        return fields

    def _read_head(self) -> bytes:
        head = b""
        while (line := self.rfile.readline(LONGEST_HEAD)) != b"\r\n":
            if not line:
                raise ConnectionResetError
            head += line
            if len(head) > LONGEST_HEAD:
                raise Unacceptable(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head is too long.")
            if not _FIELD.fullmatch(line):
                raise Unacceptable(HTTPStatus.BAD_REQUEST, "A line of the head is not a field.")
        return head + b"\r\n"

    def _read_body(self) -> bytes:
        length = self.content_length or 0
        if length > LONGEST_BODY:
            raise Unacceptable(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body may have {LONGEST_BODY} bytes.")
        if length and self.headers.get("Expect", "").lower() == "100-continue":
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body: bytes = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError
        return body

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        self.wsgi_input = environ["wsgi.input"] = Input(BufferedReader(BytesIO(self._body)), len(self._body))
        environ["wsgi.input_terminated"] = True
        self._body = b""
        return environ

    def _stop_waiting(self) -> None:
        self.server.lobby.leave(self)
        if self._hurry is not None:
            self._hurry.close()
            self._hurry = None

    def give_up(self) -> None:
        """Ends the connection, whoever waits on it."""
        with suppress(OSError):
            self.socket.shutdown(SHUT_RDWR)

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes] | None:
        """What is answered to a request that cannot be read; None: nothing. None of its own words are logged."""
        if isinstance(ex, TimeoutError):
            ex = Unacceptable(HTTPStatus.REQUEST_TIMEOUT, TOO_SLOW)
        if isinstance(ex, ConnectionError):
            return None
        if not isinstance(ex, Unacceptable):
            ex = Unacceptable(HTTPStatus.BAD_REQUEST, "The request cannot be read.")
        why = "slow" if ex.status is HTTPStatus.REQUEST_TIMEOUT else "request"
        self.server.doorbook.refuse(why, f"A request was refused: {ex}")
        self.close_connection = True
        return f"{ex.status.value}", _answer(ex.status, str(ex))

    # --- Answers --------------------------------------------------------------------------------------------

    def check_upgrade(self) -> None:
        """Lets a WebSocket in, or refuses it before it is one."""
        super().check_upgrade()
        if self.server.admission is None:
            raise UpgradeRefused(HTTPStatus.FORBIDDEN, "This server takes no streams.")
        try:
            self.environ[VISIT] = self.server.admission.enter(self.environ)
        except TurnedAway as refusal:
            raise UpgradeRefused(refusal.status, str(refusal)) from None

    def handle_one_response(self) -> None:
        self.socket.settimeout(SEND_WITHIN)
        try:
            super().handle_one_response()
        finally:
            self.socket.settimeout(None)
            visit: Visit | None = self.environ.pop(VISIT, None)
            if visit is not None:
                visit.leave()

    def finalize_headers(self) -> None:
        super().finalize_headers()
        if self.command == "HEAD":  # whose answer ends with its head: a last chunk would begin the next answer
            self.response_use_chunked = False

    def _sendall(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), SEND_AT_ONCE):
                super()._sendall(data[start : start + SEND_AT_ONCE])
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, "nobody takes the answer") from None  # which gevent's handler keeps quiet

    def log_request(self) -> None:
        """One line, of which the path's end is left out: it may be a key, or name a call."""
        log.debug("%s answered %s", printable(_beginning(self.requestline)), self._orig_status or self.status)


def _beginning(requestline: str) -> str:
    method, _, rest = (requestline or "").partition(" ")
    first, _, more = rest.partition(" ")[0].partition("?")[0].lstrip("/").partition("/")
    return f"{method} /{first}{'/…' if more else ''}"


def _answer(status: HTTPStatus, sentence: str) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: text/plain",
        f"Content-Length: {len(sentence)}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", sentence)).encode()

"""A speech service on this machine that speaks Deepgram's live `/v1/listen`, and insists on what is documented.

Tests give it an ear that hears numbers and faults to misbehave by; `python -m standins.deepgram` gives it a real, if
poor, recogniser. A client's breach of the documentation is answered as documented, and noted in `violations`.

Sources, all below https://developers.deepgram.com: /reference/listen-live, /docs/audio-keep-alive, /docs/close-stream,
/docs/finalize, /docs/errors, /docs/stt-troubleshooting-websocket-data-and-net-errors and
/docs/recovering-from-connection-errors-and-timeouts.
"""

from __future__ import annotations

import argparse
import hmac
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from standins.conversation import CLOSE_WITHIN_S, Conversation, Rules
from standins.ear import EarFactory
from standins.faults import CloseFrame, Drop, Fault, Refusal
from standins.ledger import Connection, Ledger
from standins.line import Line
from standins.listen_messages import refusal
from standins.listen_options import BadQuery, ListenOptions
from standins.recognizer import HOW_OFTEN_IT_ERRS, NotInstalled, Recognizer

__all__ = ["CloseFrame", "Connection", "Drop", "Fault", "Faults", "ListenServer", "Refusal", "Rules"]

PATH: Final = "/v1/listen"
STOP_WITHIN_S: Final = 3.0  # for connections to end by themselves before they are cut

Faults = Callable[[int], Fault | None] | Sequence[Fault | None]


class ListenServer:
    """The service: accepts any number of clients at once, and gives each an ear of its own.

    `faults` says how the n-th connection, counted from 0, misbehaves. With `key=None` any key is accepted, but one must
    be given.
    """

    def __init__(
        self,
        *,
        ear: EarFactory,
        key: str | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        rules: Rules | None = None,
        faults: Faults = (),
    ) -> None:
        self._ear = ear
        self._key = key
        self._address = (host, port)
        self._rules = rules or Rules()
        self._faults = faults
        self._ledger = Ledger()
        self._stopping = threading.Event()
        self._lines: dict[Line, Conversation] = {}
        self._lock = threading.Lock()  # over `_lines`
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Where clients connect: scheme, host and port."""
        host, port = self._address
        return f"ws://{host}:{port}"

    @property
    def violations(self) -> list[str]:
        """Every documented rule that a client broke."""
        return self._ledger.violations

    @property
    def connections(self) -> deque[Connection]:
        """What every client did, refused ones too, in the order they came."""
        return self._ledger.connections

    def wait_for(self, predicate: Callable[[], object], *, within: float) -> None:
        """Returns once the predicate holds, or raises TimeoutError. It is asked whenever a record changed."""
        self._ledger.wait_for(predicate, within)

    def start(self) -> None:
        """Accepts connections from now on."""
        self._server = serve(
            self._serve,
            *self._address,
            process_request=self._answer_request,
            process_response=self._sign_response,
            compression=None,
            ping_interval=None,  # that Deepgram pings is not documented
            close_timeout=CLOSE_WITHIN_S,
            create_connection=Line,
        )
        self._address = self._server.socket.getsockname()[:2]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Closes every connection with 1001, and cuts those that do not close in time."""
        if self._server is None:
            return
        self._stopping.set()
        shutdown = threading.Thread(target=self._server.shutdown, daemon=True)
        shutdown.start()
        shutdown.join(STOP_WITHIN_S)
        with self._lock:
            left = dict(self._lines)
        for line, conversation in left.items():
            line.cut()
            conversation.hush()
        shutdown.join(STOP_WITHIN_S)
        self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _serve(self, line: ServerConnection) -> None:
        assert isinstance(line, Line)
        try:
            self._lines[line].run()
        finally:
            self._forget(line)

    def _forget(self, line: Line) -> Conversation | None:
        with self._lock:
            return self._lines.pop(line, None)

    # --- The handshake ---

    def _answer_request(self, line: ServerConnection, request: Request) -> Response | None:
        """Refuses with an HTTP error, or lets the handshake go on."""
        assert isinstance(line, Line)
        connection = self._ledger.open(request)
        fault = self._fault_of(connection.number)
        try:
            connection.options = self._examine(request, fault)
        except _Refused as refused:
            return self._refuse(connection, refused.refusal, is_violation=refused.is_violation)
        conversation = Conversation(
            line=line,
            connection=connection,
            options=connection.options,
            fault=fault,
            rules=self._rules,
            ledger=self._ledger,
            make_ear=self._ear,
            stopping=self._stopping,
        )
        with self._lock:
            self._lines[line] = conversation
        return None

    def _fault_of(self, number: int) -> Fault:
        if callable(self._faults):
            return self._faults(number) or Fault()
        return (self._faults[number] if number < len(self._faults) else None) or Fault()

    def _examine(self, request: Request, fault: Fault) -> ListenOptions:
        url = urlsplit(request.path)
        if url.path != PATH:
            raise _Refused(Refusal(404, "NOT_FOUND", "There is nothing at this path."), is_violation=True)
        if not self._is_authorized(request.headers.get_all("Authorization")):
            raise _Refused(Refusal(401, "INVALID_AUTH", "Invalid credentials."))
        if fault.refuse is not None:
            raise _Refused(fault.refuse)
        try:
            return ListenOptions.parse(url.query)
        except BadQuery as bad:
            raise _Refused(Refusal(400, "INVALID_QUERY_PARAMETER", str(bad)), is_violation=True) from bad

    def _is_authorized(self, values: Sequence[str]) -> bool:
        scheme, _, key = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        if scheme.lower() != "token" or not key:  # RFC 9110, 11.1: schemes are compared without regard to case
            return False
        return self._key is None or hmac.compare_digest(key.encode(), self._key.encode())

    def _refuse(self, connection: Connection, refused: Refusal, *, is_violation: bool) -> Response:
        connection.status = connection.close_code = refused.status
        if is_violation:
            self._ledger.complain(connection, refused.message)
        self._ledger.note()
        return _refusal_response(refused, connection.request_id)

    def _sign_response(self, line: ServerConnection, request: Request, response: Response) -> None:
        """Puts the request's id into the answer, which Deepgram does whatever the answer is."""
        assert isinstance(line, Line)
        conversation = self._lines.get(line)
        if conversation is None:
            return
        connection = conversation.connection
        connection.status = response.status_code
        response.headers["dg-request-id"] = connection.request_id
        if response.status_code != 101:  # it was no WebSocket handshake after all
            self._forget(line)
            connection.close_code = response.status_code
        self._ledger.note()


class _Refused(Exception):
    def __init__(self, refusal: Refusal, *, is_violation: bool = False) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.is_violation = is_violation


def _refusal_response(refused: Refusal, request_id: str) -> Response:
    body = refusal(refused.err_code, refused.message, request_id)
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            "dg-request-id": request_id,
            "dg-error": refused.message,
        }
    )
    return Response(refused.status, "Refused", headers, body)


_WELCOME: Final = """\
Speech service for trying out, on {url}: it speaks Deepgram's protocol and is not Deepgram.
Vocabulary "{vocabulary}": {errs}.
"""


def main() -> None:
    """Runs the service with a recogniser, until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m standins.deepgram", description="A speech service for trying out.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", help="the only key that is accepted; without it, any is")
    parser.add_argument("--vocabulary", choices=HOW_OFTEN_IT_ERRS, default="call")
    given = parser.parse_args()
    over = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: over.set())
    try:
        ear = Recognizer(given.vocabulary)
    except NotInstalled as missing:
        parser.exit(1, f"{missing}\n")
    errs = HOW_OFTEN_IT_ERRS[given.vocabulary]
    server = ListenServer(ear=ear, key=given.key, port=given.port)
    try:
        server.start()
    except OSError as trouble:
        parser.exit(1, f"Port {given.port} cannot be listened on: {trouble.strerror}\n")
    try:
        sys.stdout.write(_WELCOME.format(url=server.url, vocabulary=given.vocabulary, errs=errs))
        sys.stdout.flush()
        over.wait()
    finally:
        server.stop()


if __name__ == "__main__":
    main()

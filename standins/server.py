"""A stand-in for a speech service, on this machine: what every vendor's server has in common."""

from __future__ import annotations

import hmac
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Generic, Self

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from standins.conversation import CLOSE_WITHIN_S, Client, Conversation, OptionsT, RulesT
from standins.ear import EarFactory
from standins.faults import Fault, Refusal
from standins.ledger import Connection, Ledger
from standins.line import Line

STOP_WITHIN_S: Final = 3.0  # for connections to end by themselves before they are cut
MESSAGE_AT_MOST: Final = 1 << 20  # bytes; a longer one is answered with 1009

Faults = Callable[[int], Fault | None] | Sequence[Fault | None]


class Refused(Exception):
    """A client is turned away at the handshake; it may have broken a rule."""

    def __init__(self, refusal: Refusal, *, is_violation: bool = False) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.is_violation = is_violation


class SpeechServer(ABC, Generic[OptionsT, RulesT]):
    """A service: accepts any number of clients at once, and gives each an ear of its own.

    `faults` says how the n-th connection, counted from 0, misbehaves. With `key=None` any key is accepted, but one must
    be given. A client's breach of the documentation is answered as documented, and noted in `violations`.
    """

    def __init__(
        self,
        *,
        ear: EarFactory,
        key: str | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        rules: RulesT | None = None,
        faults: Faults = (),
    ) -> None:
        self.rules = rules or self.documented_rules()
        self.ledger = Ledger()
        self.stopping = threading.Event()
        self._ear = ear
        self._key = key
        self._address = (host, port)
        self._faults = faults
        self._lines: dict[Line, Conversation[Any, Any]] = {}
        self._lock = threading.Lock()  # over `_lines`
        self._server: Server | None = None

    # --- What a vendor's own server says ---

    @abstractmethod
    def documented_rules(self) -> RulesT:
        """The rules when none are given."""

    @abstractmethod
    def examine(self, request: Request, fault: Fault) -> OptionsT:
        """What the handshake asks for. Raises Refused, and is the one to heed `fault.refuse`."""

    @abstractmethod
    def converse(self, client: Client, options: OptionsT) -> Conversation[OptionsT, RulesT]:
        """The conversation with a client that was let in."""

    @abstractmethod
    def word_refusal(self, refusal: Refusal, connection: Connection) -> Response:
        """The answer to a handshake that is refused; `json_response` makes one."""

    def sign(self, response: Response, connection: Connection) -> None:  # few sign
        """Adds headers to the answer of a handshake that went well."""

    # --- For those who use it ---

    @property
    def url(self) -> str:
        """Where clients connect: scheme, host and port."""
        host, port = self._address
        return f"ws://{host}:{port}"

    @property
    def violations(self) -> list[str]:
        """Every documented rule that a client broke."""
        return self.ledger.violations

    @property
    def connections(self) -> deque[Connection]:
        """What every client did, refused ones too, in the order they came."""
        return self.ledger.connections

    def wait_for(self, predicate: Callable[[], object], *, within: float) -> None:
        """Returns once the predicate holds, or raises TimeoutError. It is asked whenever a record changed."""
        self.ledger.wait_for(predicate, within)

    def start(self) -> None:
        """Accepts connections from now on."""
        self._server = serve(
            self._serve,
            *self._address,
            process_request=self._answer_request,
            process_response=self._sign_response,
            compression=None,
            ping_interval=None,  # that a service pings is documented nowhere
            close_timeout=CLOSE_WITHIN_S,
            max_size=MESSAGE_AT_MOST,
            create_connection=Line,
        )
        self._address = self._server.socket.getsockname()[:2]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Closes every connection with 1001, and cuts those that do not close in time."""
        if self._server is None:
            return
        self.stopping.set()
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

    # --- For a vendor's own server ---

    def is_the_key(self, given: str) -> bool:
        """Whether a client with this key is let in."""
        if not given:
            return False
        return self._key is None or hmac.compare_digest(given.encode(errors="replace"), self._key.encode())

    # --- Its connections ---

    def _serve(self, line: ServerConnection) -> None:
        assert isinstance(line, Line)
        try:
            self._lines[line].run()
        finally:
            self._forget(line)

    def _forget(self, line: Line) -> None:
        with self._lock:
            self._lines.pop(line, None)

    def _answer_request(self, line: ServerConnection, request: Request) -> Response | None:
        """Refuses with an HTTP error, or lets the handshake go on."""
        assert isinstance(line, Line)
        connection = self.ledger.open(request)
        fault = fault_of(self._faults, connection.number)
        try:
            options = self.examine(request, fault)
        except Refused as refused:
            return self._refuse(connection, refused)
        connection.options, connection.bytes_a_ms = options, options.bytes_a_ms
        client = Client(line, connection, fault, self.ledger, self._ear, self.stopping)
        with self._lock:
            self._lines[line] = self.converse(client, options)
        return None

    def _refuse(self, connection: Connection, refused: Refused) -> Response:
        connection.status = connection.close_code = refused.refusal.status
        if refused.is_violation:
            self.ledger.complain(connection.name, refused.refusal.message)
        self.ledger.note()
        return self.word_refusal(refused.refusal, connection)

    def _sign_response(self, line: ServerConnection, request: Request, response: Response) -> None:
        assert isinstance(line, Line)
        conversation = self._lines.get(line)
        if conversation is None:  # it is refused
            return
        connection = conversation.connection
        connection.status = response.status_code
        self.sign(response, connection)
        if response.status_code != 101:  # it was no WebSocket handshake after all
            self._forget(line)
            connection.close_code = response.status_code
        self.ledger.note()


def fault_of(faults: Faults, number: int) -> Fault:
    """How the n-th misbehaves, counted from 0; beyond the end of a sequence, not at all."""
    if callable(faults):
        return faults(number) or Fault()
    return (faults[number] if number < len(faults) else None) or Fault()


def json_response(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    """An answer to a handshake that is refused."""
    length = str(len(body))
    about = {"Content-Type": "application/json", "Content-Length": length, "Connection": "close"}
    return Response(status, "Refused", Headers(about | (headers or {})), body)

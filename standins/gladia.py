"""A speech service on this machine that speaks Gladia's live `/v2/live`, and insists on what is documented.

A session begins with a POST, on a port of its own here; its answer holds the WebSocket's address. The session outlives
its connections: whoever comes back to that address goes on where the audio was lost. `python -m standins.gladia` runs
it with a real, if poor, recogniser.

Sources, all below https://docs.gladia.io: /api-reference/v2/live/init, /api-reference/v2/live/get,
/api-reference/v2/live/websocket, /api-reference/v2/live/action/audio-chunk, /chapters/live-stt/quickstart and
/chapters/limits-and-specifications/concurrency. What they leave open is decided in `Rules`, or said at its place.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

from websockets.http11 import Request, Response

from standins.conversation import Client
from standins.ear import EarFactory
from standins.faults import CloseFrame, Drop, Fault, Refusal
from standins.gladia_conversation import LiveConversation
from standins.gladia_messages import Shape, timestamp
from standins.gladia_options import BadBody, LiveOptions
from standins.gladia_session import Rules, Session
from standins.ledger import Connection
from standins.program import run
from standins.server import Faults, Refused, SpeechServer, fault_of, json_response
from standins.web import Asked, Reply, WebServer

__all__ = ["CloseFrame", "Connection", "Drop", "Fault", "Faults", "GladiaServer", "Refusal", "Rules", "Session"]

PATH: Final = "/v2/live"
KEY_HEADER: Final = "x-gladia-key"
REGIONS: Final = ("eu-west", "us-west")
REQUESTS_KEPT: Final = 1000  # the newest
SESSIONS_KEPT: Final = 1000  # that are over, the newest


@dataclass(slots=True)
class HttpRequest:
    """What one client asked over HTTP."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case; no key
    body: bytes = field(repr=False)
    status: int = 0  # of the answer; 0 while there is none


class GladiaServer(SpeechServer[LiveOptions, Rules]):
    """Gladia's live transcription.

    `faults` are those of the connections, as for every service: with `Fault.refuse`, a WebSocket is refused. Those of
    the POSTs that make sessions are `session_faults`, counted apart: they can be refused, late, garbage, or end without
    an answer, at once ("reset") or never ("abandon").
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
        session_faults: Faults = (),
    ) -> None:
        super().__init__(ear=ear, key=key, host=host, rules=rules, faults=faults)
        self.sessions: dict[str, Session] = {}
        self.requests: deque[HttpRequest] = deque(maxlen=REQUESTS_KEPT)
        self.posts = 0  # that asked for a session, refused ones too
        self._session_faults = session_faults
        self._web_address = (host, port)
        self._web: WebServer | None = None
        self._by_token: dict[str, Session] = {}
        self._sessions_lock = threading.Lock()  # over `sessions` and `posts`

    def documented_rules(self) -> Rules:
        """Gladia's numbers."""
        return Rules()

    @property
    def http_url(self) -> str:
        """Where clients ask for sessions: scheme, host and port."""
        host, port = self._web_address
        return f"http://{host}:{port}"

    @property
    def url(self) -> str:
        """Where clients begin, which is `http_url`. The WebSocket's address is in the answer there."""
        return self.http_url

    @property
    def left_sessions(self) -> list[Session]:
        """The sessions whose client has gone without stop_recording: Gladia keeps their places until they time out."""
        return [session for session in list(self.sessions.values()) if session.is_left]

    def start(self) -> None:
        """Accepts requests and connections from now on."""
        self._web = WebServer(self._web_address, self._answer)
        self._web_address = self._web.socket.getsockname()[:2]
        super().start()
        self._web.start()

    def stop(self) -> None:
        """Answers no more requests, and closes every connection."""
        web, self._web = self._web, None
        if web is not None:
            web.stop()
        super().stop()
        for session in list(self.sessions.values()):
            session.close()

    # --- Over HTTP ---

    def _answer(self, asked: Asked) -> Reply | None:
        headers = {name: value for name, value in asked.headers.items() if name != KEY_HEADER}
        request = HttpRequest(asked.method, asked.path, headers, asked.body)
        self.requests.append(request)
        try:
            reply = self._ask(asked)
        except Refused as refused:
            if refused.is_violation:
                self.ledger.complain(f"{asked.method} {urlsplit(asked.path).path}", refused.refusal.message)
            reply = _refusal_reply(refused)
        request.status = 0 if reply is None else reply.status
        self.ledger.note()
        return reply

    def _ask(self, asked: Asked) -> Reply | None:
        path = urlsplit(asked.path).path
        is_post = asked.method == "POST" and path == PATH
        if not is_post and not (asked.method == "GET" and path.startswith(f"{PATH}/")):
            raise Refused(Refusal(404, "NOT_FOUND", "There is nothing at this path."), is_violation=True)
        fault = self._next_session_fault() if is_post else Fault()
        if not self.is_the_key(asked.headers.get(KEY_HEADER, "")):
            raise Refused(Refusal(401, "UNAUTHORIZED", "The key is not known."))
        if fault.refuse is not None:
            raise Refused(fault.refuse)
        return self._create(asked, fault) if is_post else self._tell_of(path.removeprefix(f"{PATH}/"))

    def _next_session_fault(self) -> Fault:
        with self._sessions_lock:
            number, self.posts = self.posts, self.posts + 1
        return fault_of(self._session_faults, number)

    def _create(self, asked: Asked, fault: Fault) -> Reply | None:
        _check_region(urlsplit(asked.path).query)
        if asked.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise _BadRequest(["content-type must be application/json"])
        try:
            options = LiveOptions.parse(asked.body, str(uuid.uuid4()))
        except BadBody as bad:
            raise _BadRequest(bad.rules) from bad
        session = self._open_session(options)
        if fault.drop is not None:
            if fault.drop.how == "abandon":
                self.stopping.wait()
            return None
        self.stopping.wait(fault.answer_late_s)
        return Reply(201, b"<html>" if fault.garbage else _json(self._address_of(session)))

    def _open_session(self, options: LiveOptions) -> Session:
        with self._sessions_lock:
            for session in self.sessions.values():
                session.expire()
            over = [session for session in self.sessions.values() if not session.is_open]
            if len(self.sessions) - len(over) >= self.rules.concurrency:
                raise Refused(Refusal(429, "TOO_MANY_REQUESTS", "Too many sessions at once."))
            for session in over[:-SESSIONS_KEPT]:
                del self.sessions[session.id], self._by_token[session.token]
            session = Session(options, self.rules, self.ledger.note)
            self.sessions[session.id] = self._by_token[session.token] = session
        self.ledger.note()
        return session

    def _address_of(self, session: Session) -> Shape:
        url = f"{super().url}{PATH}?token={session.token}"
        return {"id": session.id, "created_at": timestamp(session.created), "url": url}

    def _tell_of(self, session_id: str) -> Reply:
        session = self.sessions.get(session_id)
        if session is None:
            raise Refused(Refusal(404, "NOT_FOUND", "There is no such session."))
        session.expire()
        return Reply(200, _json(session.job()))

    # --- Over WebSockets ---

    def examine(self, request: Request, fault: Fault) -> LiveOptions:
        """The options of the session whose token the URL holds. Gladia does not say how others are answered."""
        url = urlsplit(request.path)
        if url.path != PATH:
            raise Refused(Refusal(404, "NOT_FOUND", "There is nothing at this path."), is_violation=True)
        if fault.refuse is not None:
            raise Refused(fault.refuse)
        session = self._by_token.get(parse_qs(url.query).get("token", [""])[0])
        if session is None:
            raise Refused(Refusal(401, "UNAUTHORIZED", "The token is not known."))
        session.expire()
        if not session.is_open:
            raise Refused(Refusal(404, "NOT_FOUND", "The session is over."))
        return session.options

    def converse(self, client: Client, options: LiveOptions) -> LiveConversation:
        """The conversation with a client that was let in."""
        return LiveConversation(client, self.sessions[options.session_id], self.rules)

    def word_refusal(self, refusal: Refusal, connection: Connection) -> Response:
        """Gladia's error."""
        return json_response(refusal.status, _refusal_body(refusal, f"G-{connection.request_id[:8]}"))


class _BadRequest(Refused):
    """A body, or a query, that breaks rules. Gladia answers 400 or 422, and does not say when which."""

    def __init__(self, rules: list[str]) -> None:
        super().__init__(Refusal(400, "BAD_REQUEST", "; ".join(rules)), is_violation=True)
        self.rules = rules


def _check_region(query: str) -> None:
    asked = parse_qs(query, keep_blank_values=True)
    rules = [f"{name} must not be there: no such parameter is documented" for name in asked if name != "region"]
    if any(region not in REGIONS for region in asked.get("region", ())):
        rules.append(f"region must be one of {', '.join(REGIONS)}")
    if rules:
        raise _BadRequest(rules)


def _refusal_reply(refused: Refused) -> Reply:
    rules = refused.rules if isinstance(refused, _BadRequest) else []
    request_id = f"G-{uuid.uuid4().hex[:8]}"
    return Reply(refused.refusal.status, _refusal_body(refused.refusal, request_id, rules))


def _refusal_body(refusal: Refusal, request_id: str, rules: list[str] | None = None) -> bytes:
    return _json({"message": refusal.message, "request_id": request_id, "validation_errors": rules or []})


def _json(shape: Shape) -> bytes:
    return json.dumps(shape, separators=(",", ":")).encode()


def main() -> None:
    """Runs the service with a recogniser, until it is interrupted."""
    run("gladia", "Gladia", lambda ear, key, port: GladiaServer(ear=ear, key=key, port=port))


if __name__ == "__main__":
    main()

"""What is answered at which path."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, Response, request

from relay.admission import MEDIA_PATH as MEDIA_PATH
from relay.admission import Admission, TurnedAway, Visit
from relay.call import POLICY_VIOLATION, Switchboard
from relay.mediasocket import MediaSocket
from relay.passes import Passes
from relay.web.access import check_declared, for_twilio, guard, open_to_all
from relay.web.handler import LONGEST_BODY, VISIT

ADMISSION = "relay.admission"  # the app's extension that says who may send


class App(Flask):
    """Flask, but that its log names no path: that may hold a key, or a call."""

    def log_exception(self, exc_info: Any) -> None:
        """Tells of a failure in a view."""
        self.logger.error("a failure in answering %s %s", request.method, request.url_rule, exc_info=exc_info)


def create_app(
    switchboard: Switchboard, *parts: Blueprint, passes: Passes | None = None, admission: Admission | None = None
) -> Flask:
    """The WSGI application: runs under gevent's WSGIServer with any handler of gevent-websocket's.

    `parts` answer at paths of their own. Without `passes` nobody may see anything, without `admission` nobody send.
    Raises LookupError for a route that has declared no access.
    """
    app = App(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # who asks for //path would be redirected to whatever host he names
    app.config["MAX_CONTENT_LENGTH"] = LONGEST_BODY
    app.extensions[ADMISSION] = admission
    guard(app, switchboard.settings, passes)
    for part in parts:
        app.register_blueprint(part)

    @app.get("/healthz")
    @open_to_all
    def health() -> dict[str, object]:
        return {"status": "ok" if switchboard.answers else "leaving", "streams": switchboard.live}

    @app.get(MEDIA_PATH)
    @app.get(f"{MEDIA_PATH}/<shown>")
    @for_twilio
    def media_needs_websocket(shown: str = "") -> Response:
        answer = _plain("This address speaks WebSocket: it is where Twilio streams a call's audio to.\n", 426)
        answer.headers["Upgrade"] = "websocket"
        return answer

    @app.route(MEDIA_PATH, websocket=True)
    @app.route(f"{MEDIA_PATH}/", websocket=True)
    @app.route(f"{MEDIA_PATH}/<shown>", websocket=True)
    @app.route(f"{MEDIA_PATH}/<shown>/", websocket=True)
    @for_twilio
    def media(shown: str = "") -> Response:
        websocket = request.environ.get("wsgi.websocket")
        if websocket is None:
            return _plain("This server was started without WebSockets.\n", 501)
        socket = MediaSocket.over(websocket)
        try:
            visit = _let_in(admission)
        except TurnedAway as refusal:
            socket.close(POLICY_VIOLATION, str(refusal))
            return Response()
        try:
            _stream(switchboard, socket, visit)
        finally:
            visit.leave()
        return Response()

    check_declared(app)
    return app


def _let_in(admission: Admission | None) -> Visit:
    """Who comes by a handler that is not ours was asked nothing yet. Raises TurnedAway."""
    if admission is None:
        raise TurnedAway("nothing", "This server takes no streams.")
    visit: Visit | None = request.environ.get(VISIT)
    return visit or admission.enter(request.environ)


def _stream(switchboard: Switchboard, socket: MediaSocket, visit: Visit) -> None:
    if switchboard.answers:
        switchboard.answer(socket, visit)
    else:
        socket.close(1001, "the server is about to end")


def media_url(public_url: str | None) -> str | None:
    """Where Twilio finds the media socket, given how the world reaches us."""
    if public_url is None:
        return None
    scheme, _, rest = public_url.partition("://")
    return f"{'ws' if scheme == 'http' else 'wss'}://{rest}{MEDIA_PATH}"


def _plain(words: str, status: int = 200) -> Response:
    return Response(words, status, mimetype="text/plain")

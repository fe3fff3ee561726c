"""What is answered at which path."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, request

from relay.call import Switchboard
from relay.mediasocket import MediaSocket
from relay.twilio import twiml
from relay.web.access import only_this_machine

MEDIA_PATH = "/media"


def create_app(switchboard: Switchboard, *parts: Blueprint) -> Flask:
    """The WSGI application: runs under gevent's WSGIServer with any handler of gevent-websocket's.

    `parts` answer at paths of their own, and to this machine only.
    """
    app = Flask(__name__, static_folder=None)
    for part in parts:
        part.before_request(only_this_machine)
        app.register_blueprint(part)

    @app.get("/")
    def index() -> Response:
        url = media_url(switchboard.settings.public_url) or "wss://HOST/media"
        return _plain(
            "This listens in on phone calls and turns them into words, live.\n\n"
            "Put this into the TwiML of a call, before its <Dial>:\n\n"
            f"{twiml(url)}\n"
        )

    @app.get("/healthz")
    def health() -> dict[str, object]:
        return {"status": "ok" if switchboard.answers else "leaving", "streams": switchboard.live}

    @app.get(MEDIA_PATH)
    def media_needs_websocket() -> Response:
        answer = _plain("This address speaks WebSocket: it is where Twilio streams a call's audio to.\n", 426)
        answer.headers["Upgrade"] = "websocket"
        return answer

    @app.route(MEDIA_PATH, websocket=True)
    def media() -> Response:
        websocket = request.environ.get("wsgi.websocket")
        if websocket is None:
            return _plain("This server was started without WebSockets.\n", 501)
        socket = MediaSocket.over(websocket)
        if switchboard.answers:
            switchboard.answer(socket, request.path)
        else:
            socket.close(1001, "the server is about to end")
        return Response()

    return app


def media_url(public_url: str | None) -> str | None:
    """Where Twilio finds the media socket, given how the world reaches us."""
    if public_url is None:
        return None
    scheme, _, rest = public_url.partition("://")
    return f"{'ws' if scheme == 'http' else 'wss'}://{rest}{MEDIA_PATH}"


def _plain(words: str, status: int = 200) -> Response:
    return Response(words, status, mimetype="text/plain")

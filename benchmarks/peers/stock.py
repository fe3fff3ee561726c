"""gevent-websocket and websocket-client as shipped: what our program would be without a media path of its own."""

# ruff: noqa: E402  # gevent patches the standard library before anything else is imported

from gevent import monkey

monkey.patch_all()

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import gevent
import websocket
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

from benchmarks.peers.chunks import GOODBYE, HEADERS, PORT, Chunks


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Every request is a media stream."""
    relay(environ["wsgi.websocket"])
    return []


def relay(twilio: Any) -> None:
    """One call, from `start` to the service's last word."""
    while (message := twilio.receive()) is not None:
        said = json.loads(message)
        match said["event"]:
            case "start":
                chunks = Chunks(said["start"])
                upstream = websocket.create_connection(chunks.url, header=HEADERS)
                answers = gevent.spawn(read, upstream)
            case "media":
                if chunk := chunks.add(said["media"]):
                    upstream.send_binary(chunk)
            case "stop":
                upstream.send_binary(chunks.rest())
                upstream.send(GOODBYE)
                answers.join()
                return


def read(upstream: websocket.WebSocket) -> None:
    """Takes the service's answers until it closes."""
    with suppress(websocket.WebSocketConnectionClosedException):
        while True:
            upstream.recv()


if __name__ == "__main__":
    WSGIServer(("127.0.0.1", PORT), application, handler_class=WebSocketHandler, log=None, backlog=1024).serve_forever()

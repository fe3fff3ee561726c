"""flask-sock and simple-websocket in threads, as in Gladia's sample for Twilio."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from threading import Thread

import simple_websocket  # type: ignore[import-untyped]
from flask import Flask
from flask_sock import Sock  # type: ignore[import-untyped]

from benchmarks.peers.chunks import GOODBYE, HEADERS, PORT, Chunks

app = Flask(__name__)
sock = Sock(app)


@sock.route("/media")  # type: ignore[untyped-decorator]
def media(twilio: simple_websocket.Server) -> None:
    """One call, from `start` to the service's last word."""
    while True:
        said = json.loads(twilio.receive())
        match said["event"]:
            case "start":
                chunks = Chunks(said["start"])
                upstream = simple_websocket.Client(chunks.url, headers=HEADERS)
                answers = Thread(target=read, args=(upstream,))
                answers.start()
            case "media":
                if chunk := chunks.add(said["media"]):
                    upstream.send(chunk)
            case "stop":
                upstream.send(chunks.rest())
                upstream.send(GOODBYE)
                answers.join()
                return


def read(upstream: simple_websocket.Client) -> None:
    """Takes the service's answers until it closes."""
    with suppress(simple_websocket.ConnectionClosed):
        while True:
            upstream.receive()


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app.run("127.0.0.1", PORT, threaded=True)

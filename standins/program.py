"""Runs a stand-in speech service as a program, with a real recogniser: `python -m standins.deepgram` and the others."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from standins.ear import EarFactory
from standins.recognizer import HOW_OFTEN_IT_ERRS, NotInstalled, Recognizer
from standins.server import SpeechServer

MakeServer = Callable[[EarFactory, str | None, int], SpeechServer[Any, Any]]  # from an ear, a key and a port

_WELCOME: Final = """\
Speech service for trying out, on {url}: it speaks {vendor}'s protocol and is not {vendor}.
Vocabulary "{vocabulary}": {errs}.
"""


def run(module: str, vendor: str, make_server: MakeServer) -> None:
    """Reads the command line, and runs the service until it is interrupted."""
    parser = argparse.ArgumentParser(prog=f"python -m standins.{module}", description="A speech service to try out.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", help="the only key that is accepted; without it, any is")
    parser.add_argument("--vocabulary", choices=HOW_OFTEN_IT_ERRS, default="call")
    given = parser.parse_args()
    over = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: over.set())
    try:
        server = make_server(Recognizer(given.vocabulary), given.key, given.port)
        server.start()
    except NotInstalled as missing:
        parser.exit(1, f"{missing}\n")
    except OSError as trouble:
        parser.exit(1, f"Port {given.port} cannot be listened on: {trouble.strerror}\n")
    try:
        errs = HOW_OFTEN_IT_ERRS[given.vocabulary]
        sys.stdout.write(_WELCOME.format(url=server.url, vendor=vendor, vocabulary=given.vocabulary, errs=errs))
        sys.stdout.flush()
        over.wait()
    finally:
        server.stop()

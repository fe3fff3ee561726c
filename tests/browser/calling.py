"""A phone call's media stream as Twilio makes it, from a thread: silence on both tracks until it is ended."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.browser.serving import in_thread, join

TRACKS: Final = ("inbound", "outbound")
FRAME_MS: Final = 20
AT_ONCE_MS: Final = 100  # of audio between two sleeps: tests are no load test
SILENCE: Final = b64encode(b"\xff" * FRAME_MS * 8).decode()


class Call:
    """One call. It may have several streams, one after the other, as when Twilio has to connect anew."""

    def __init__(self, url: str, *, sid: str | None = None, **parameters: str) -> None:
        self.sid = sid or f"CA{token_hex(16)}"
        self.sent_ms = 0  # of audio, in its newest stream
        self._url = url
        self._parameters = parameters

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A stream that runs in real time until the end of the block, or until the server is gone."""
        over = threading.Event()
        begun = threading.Event()
        thread = in_thread(lambda: self._run(over, begun))
        try:
            assert begun.wait(30), "the server did not take the stream"
            yield
        finally:
            over.set()
            join([thread])

    def _run(self, over: threading.Event, begun: threading.Event) -> None:
        stream_sid = f"MZ{token_hex(16)}"
        with connect(self._url, proxy=None, compression=None) as socket, suppress(ConnectionClosed):
            socket.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
            socket.send(self._start(stream_sid))
            begun.set()
            started_at, self.sent_ms = time.monotonic(), 0
            while not over.wait(max(0.0, started_at + self.sent_ms / 1000 - time.monotonic())):
                for _ in range(AT_ONCE_MS // FRAME_MS):
                    for track in TRACKS:
                        socket.send(_media(stream_sid, track, self.sent_ms))
                    self.sent_ms += FRAME_MS
            socket.send(self._event("stop", stream_sid, {"callSid": self.sid}))

    def _start(self, stream_sid: str) -> str:
        about = {
            "accountSid": f"AC{'0' * 32}",
            "streamSid": stream_sid,
            "callSid": self.sid,
            "tracks": TRACKS,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        return self._event("start", stream_sid, about)

    def _event(self, event: str, stream_sid: str, about: Mapping[str, object]) -> str:
        return json.dumps({"event": event, "sequenceNumber": "1", event: about, "streamSid": stream_sid})


def _media(stream_sid: str, track: str, at_ms: int) -> str:
    number = at_ms // FRAME_MS + 2
    return (
        f'{{"event":"media","sequenceNumber":"{number}","media":{{"track":"{track}","chunk":"{number}",'
        f'"timestamp":"{at_ms}","payload":"{SILENCE}"}},"streamSid":"{stream_sid}"}}'
    )

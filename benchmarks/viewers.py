"""A thousand viewers of one call, ten of which do not read: what that costs the server, and its calls.

    python -m benchmarks.viewers

The server is `app.py` in a process of its own, the call a simulated one in real time, the speech service a stand-in.
"""
# ruff: noqa: E402, T201  # gevent patches the standard library before anything else is imported; it prints what it finds

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import re
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

import gevent

from relay.passes import Kind, Passes, Scope
from standins.deepgram import ListenServer
from standins.twilio import SimulatedCall
from tests.numbered import number_ears, numbered
from tests.program import Program, program

SECONDS: Final = 30
CALLS: Final = 20  # that run beside the watched one


class Reader:
    """Counts the finals that it gets; or reads nothing at all."""

    def __init__(self, port: int, call_sid: str, token: str, *, stalls: bool) -> None:
        self.finals = 0
        self.is_over = False
        self._socket = socket.create_connection(("127.0.0.1", port))
        if stalls:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /api/live?call={call_sid} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._socket.sendall(head.encode())
        if not stalls:
            gevent.spawn(self._read)

    def _read(self) -> None:
        with suppress(OSError):
            while data := self._socket.recv(65536):
                self.finals += data.count(b"event: segment.final")
        self.is_over = True

    def was_let_go(self) -> bool:
        """Whether the server has closed it."""
        self._socket.settimeout(2)
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


def speak(one: SimulatedCall, seconds: int) -> None:
    """A call in real time, both tracks."""
    one.open()
    one.start()
    for ms in range(0, seconds * 1000, 20):
        for track in one.tracks:
            one.say(track, numbered(track, ms, 20), at_ms=ms)
        gevent.sleep(0.02)
    one.stop()
    one.close()


def resident_mb(server: Program) -> float:
    """Of the server."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def own_lag(port: int, token: str) -> str:
    """How long audio has waited in the server, as its metrics tell."""
    asked = Request(f"http://localhost:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
    text = urlopen(asked).read().decode()  # noqa: S310  # it is our own server
    counts = re.findall(r'relay_own_lag_seconds_bucket\{le="([^"]+)"\} ([0-9.]+)', text)
    total = float(counts[-1][1]) or 1
    return ", ".join(
        f"{float(count) / total:.1%} below {bound} s" for bound, count in counts if float(count) / total < 1
    ) or (f"all below {counts[0][0]} s")


def main() -> None:
    """Measures once without viewers and once with them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.viewers", description=__doc__)
    parser.add_argument("--viewers", type=int, default=1000)
    asked = parser.parse_args()
    for viewers in (0, asked.viewers):
        with tempfile.TemporaryDirectory() as folder, ListenServer(ear=number_ears(final_ms=500)) as speech:
            settings = {"PORT": "0", "DEEPGRAM_API_KEY": "key", "DEEPGRAM_URL": speech.url}
            with program(folder=Path(folder), **settings) as server:
                passes = Passes(Path(folder) / "data" / "access")
                token = passes.issue(Kind.TOKEN, Scope, for_s=3600)
                port = int(server.line(r"localhost:(\d+)")[1])
                calls = [SimulatedCall(f"ws://localhost:{port}/media/{passes.stream_key}") for _ in range(CALLS)]
                watched = calls[0].call_sid
                stalled = [Reader(port, watched, token, stalls=True) for _ in range(viewers // 100)]
                readers = [Reader(port, watched, token, stalls=False) for _ in range(viewers - len(stalled))]
                gevent.sleep(2)
                before = resident_mb(server)
                gevent.joinall([gevent.spawn(speak, call, SECONDS) for call in calls])
                gevent.sleep(2)
                after, lag = resident_mb(server), own_lag(port, token)
                got = sorted({reader.finals for reader in readers})
                print(f"{viewers} viewers: memory {before:.0f} MB before, {after:.0f} MB after {SECONDS} s")
                print(f"  audio waited in the server: {lag}")
                if viewers:
                    let_go = sum(reader.was_let_go() for reader in stalled)
                    print(
                        f"  finals got by each reader: {got}; {let_go} of {len(stalled)} that did not read were let go"
                    )


if __name__ == "__main__":
    main()

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
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

import gevent

from relay.passes import Kind, Passes, Scope
from standins.deepgram import ListenServer
from standins.twilio import SimulatedCall
from tests.numbered import number_ears, numbered
from tests.program import Program, program
from tests.storing import Talk, opened

SECONDS: Final = 75  # who takes nothing for 60 is let go
CALLS: Final = 20  # that run beside the watched one
HISTORY: Final = 3000  # finals in an earlier call: more than the kernel holds for one that does not read
QUIET_AFTER: Final = 2.0  # seconds without a word


class Reader:
    """Reads the live feed, or reads nothing until it is told to. `ids` are those of the events that came."""

    def __init__(self, port: int, token: str, query: str, last_id: int | None = None) -> None:
        self.finals = 0
        self.ids: list[int] = []
        self.is_over = False
        self._rest = b""
        self._socket = socket.socket()
        if last_id is None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", port))
        came_back = "" if last_id is None else f"Last-Event-ID: {last_id}\r\n"
        head = f"GET /api/live?{query} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{came_back}\r\n"
        self._socket.sendall(head.encode())

    def read(self, quiet_after: float | None = None) -> None:
        """What comes, until it is over, or nothing more comes."""
        self._socket.settimeout(quiet_after)
        try:
            while data := self._socket.recv(65536):
                self._count(data)
        except TimeoutError:
            return
        except OSError:
            pass
        self.is_over = True

    def _count(self, data: bytes) -> None:
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            self.finals += b"event: segment.final" in event
            self.ids += map(int, re.findall(rb"^id: (\d+)$", event, re.MULTILINE))


def said_before(folder: str) -> None:
    """Puts a long call into the database that the server will open."""
    with opened(f"sqlite:///{folder}/data/calls.db") as store:
        talk = Talk(store).begin()
        for number in range(HISTORY):
            talk.say("word " * 25, number * 1000)
        talk.end(HISTORY * 1000)


def rest_of(stalled: Reader, port: int, token: str) -> list[int]:
    """All that one gets who reads at last what the kernel still has, and comes back."""
    stalled.read(QUIET_AFTER)
    back = Reader(port, token, "", last_id=stalled.ids[-1] if stalled.ids else 0)
    back.read(QUIET_AFTER)
    return stalled.ids + back.ids


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
            Path(folder, "data").mkdir()
            said_before(folder)
            settings = {"PORT": "0", "DEEPGRAM_API_KEY": "key", "DEEPGRAM_URL": speech.url}
            with program(folder=Path(folder), **settings) as server:
                passes = Passes(Path(folder) / "data" / "access")
                token = passes.issue(Kind.TOKEN, Scope, for_s=3600)
                port = int(server.line(r"localhost:(\d+)")[1])
                calls = [SimulatedCall(f"ws://localhost:{port}/media/{passes.stream_key}") for _ in range(CALLS)]
                stalled = [Reader(port, token, "last_event_id=0") for _ in range(viewers // 100)]
                watch = f"call={calls[0].call_sid}"
                readers = [Reader(port, token, watch) for _ in range(viewers - len(stalled))]
                for reader in readers:
                    gevent.spawn(reader.read)
                gevent.sleep(2)
                before = resident_mb(server)
                gevent.joinall([gevent.spawn(speak, call, SECONDS) for call in calls])
                gevent.sleep(2)
                after, lag = resident_mb(server), own_lag(port, token)
                print(f"{viewers} viewers: memory {before:.0f} MB before, {after:.0f} MB after {SECONDS} s")
                print(f"  audio waited in the server: {lag}")
                if viewers:
                    print(f"  finals got by each reader: {sorted({reader.finals for reader in readers})}")
                    tell_of(stalled, port, token)


def tell_of(stalled: list[Reader], port: int, token: str) -> None:
    """What became of those that did not read."""
    everything = rest_of(Reader(port, token, "last_event_id=0"), port, token)
    whole = sum(rest_of(one, port, token) == everything for one in stalled)
    let_go = sum(one.is_over for one in stalled)
    print(f"  did not read: {len(stalled)}, let go: {let_go}, got all when they came back: {whole}")


if __name__ == "__main__":
    main()

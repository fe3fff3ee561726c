"""The relays that are measured, and one measurement of one of them."""

# ruff: noqa: S603, S607  # it builds and starts programs: its own, the compiler and openssl

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relay.passes import Passes

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent

STARTED_WITHIN: Final = 20.0  # seconds a relay has until it listens
OTHERS_AT_MOST: Final = 0.1  # of all cores' time, that other programs may take during a measurement ...
TRIES_AT_MOST: Final = 2  # ... before it is made again
LOAD_WITHIN: Final = 120.0  # seconds one measurement may take
DRAIN_S: Final = 5.0  # that a relay gets for what it still holds at the end
SATURATED_DRAIN_S: Final = 20.0
FRAMES_A_SECOND: Final = 100  # of both tracks of a call
NEARLY_ALL_HEARD: Final = 0.98  # of a window's frames within the window; the others are in the chunks at its edges
BEYOND_CHUNK_MS: Final = 20.0  # the p99 of the added delay may be so much more than a chunk for a relay that keeps up
LATE_AT_MOST_MS: Final = 5.0  # p99 of the load's own lateness; beyond it the load is what is measured


@dataclass(frozen=True, slots=True)
class Relay:
    """A program with the same outward behaviour as ours."""

    name: str  # on the command line
    title: str  # in the tables
    command: tuple[str, ...]
    saturated_command: tuple[str, ...] = ()  # where it differs

    def runs(self, *, saturated: bool, build: Path) -> list[str]:
        """What starts it."""
        command = self.saturated_command if saturated and self.saturated_command else self.command
        return [word.format(python=sys.executable, build=build) for word in command]


def _python(module: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"benchmarks.{module}")


OURS: Final = Relay("ours", "this program", ("{python}", "app.py"), _python("unpaced"))
C_FRAMES: Final = Relay("c-frames", "C, wakes for every frame", ("{build}/relay", "frames"))
C_EACH: Final = Relay("c-each", "C, wakes for every frame, sends each on", ("{build}/relay", "frames", "20"))
C_CHUNKS: Final = Relay("c-chunks", "C, reads once a chunk (the limit)", ("{build}/relay", "chunks"))
RELAYS: Final = (
    OURS,
    C_CHUNKS,
    C_FRAMES,
    C_EACH,
    Relay("picows", "picows + uvloop", _python("peers.picows_uvloop")),
    Relay("fastapi", "FastAPI/uvicorn (uvloop) + websockets", _python("peers.fastapi_websockets")),
    Relay("aiohttp", "aiohttp", _python("peers.aiohttp_alone")),
    Relay("websockets", "websockets alone, asyncio", _python("peers.websockets_alone")),
    Relay("flask-sock", "flask-sock + simple-websocket, threads", _python("peers.flask_sock_threads")),
    Relay("stock", "gevent-websocket + websocket-client as shipped", _python("peers.stock")),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What a relay is given to do."""

    calls: int
    saturated: bool = False
    tls: bool = False
    chunk_ms: int = 100
    warm_s: float = field(default=2.0, compare=False)
    window_s: float = field(default=4.0, compare=False)

    def __str__(self) -> str:
        pace = "as fast as possible" if self.saturated else "in real time"
        return f"{self.calls} calls {pace}, {'TLS' if self.tls else 'plain'}, {self.chunk_ms} ms"

    @property
    def ramp_s(self) -> float:
        """In which the calls begin, evenly: handshakes are not what is measured."""
        return min(10.0, max(0.5, self.calls / 150))


@dataclass(frozen=True, slots=True)
class Run:
    """One relay under one load, once."""

    relay: Relay
    load: Load
    round: int
    said: Mapping[str, Any]  # the load generator's report; empty when the relay broke down
    others: float  # the share of all cores' time that other programs took

    @property
    def us_per_frame(self) -> float:
        """CPU, user and system, for each relayed 20 ms frame of one track."""
        return float(self.said["relay_cpu_us"] / max(1, self.said["heard_in_window"]))

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return float(self.said["relay_cpu_us"] / 1e6 / self.load.window_s)

    @property
    def p99_ms(self) -> float:
        """Of the added delay."""
        return float(self.said["delay_p99_ms"])

    @property
    def load_was_late(self) -> bool:
        """Whether the load generator could not keep its own time."""
        return bool(self.said) and self.said["late_p99_ms"] > LATE_AT_MOST_MS

    @property
    def on_time(self) -> bool:
        """Whether the relay kept up; in the saturated regime, whether it went through it at all."""
        if not self.said or self.said["upgrades"] < self.load.calls or not self.said["heard_in_window"]:
            return False
        if self.load.saturated:
            return True
        heard = self.said["heard_in_window"] / self.load.window_s / self.load.calls / FRAMES_A_SECOND
        return heard > NEARLY_ALL_HEARD and self.p99_ms < self.load.chunk_ms + BEYOND_CHUNK_MS

    @property
    def flaws(self) -> str:
        """What happened to the audio of a relay that seemed to keep up; empty when nothing did."""
        kinds = ("lost", "doubled", "disordered", "damaged", "not_closed")
        return ", ".join(f"{self.said[kind]} {kind}" for kind in kinds if self.said[kind])


class Bench:
    """The built load generator, and how relays are put under it."""

    def __init__(self, build: Path, relay_core: int, load_core: int) -> None:
        self._build = build
        self._access = build / "access"
        self._relay_core = relay_core
        self.tls = False
        os.sched_setaffinity(0, {load_core})  # ourselves and all we start; a relay is moved away at once
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two sockets a call
        self._compile()

    def _compile(self) -> None:
        with_tls = ["-DWITH_TLS", "-lssl", "-lcrypto"]
        self.tls = self._cc(with_tls) and self._certificate()
        if not self.tls and not self._cc([]):
            sys.exit("The load generator is written in C: a C compiler is needed.")

    def _cc(self, options: list[str]) -> bool:
        for name in ("load", "relay"):
            command = ["cc", "-O2", str(HERE / f"{name}.c"), "-o", str(self._build / name), *options, "-lm"]
            try:
                if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode:
                    return False
            except FileNotFoundError:
                return False
        return True

    def _certificate(self) -> bool:
        """A certificate for 127.0.0.1 which the relays are told to trust."""
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
        more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "certificate.pem"]
        try:
            made = subprocess.run(["openssl", *words.split(), *more], cwd=self._build, capture_output=True, check=False)
        except FileNotFoundError:
            return False
        return not made.returncode

    def measure(self, relay: Relay, load: Load, round_: int) -> Run:
        """A fresh relay under a load; again when other programs took much of the cores meanwhile."""
        tries: list[Run] = []
        while len(tries) < TRIES_AT_MOST:
            tries.append(self._measure_once(relay, load, round_))
            if tries[-1].others < OTHERS_AT_MOST:
                break
        return min(tries, key=lambda run: run.others)

    def _measure_once(self, relay: Relay, load: Load, round_: int) -> Run:
        port, service = _free_ports()
        with self._started(relay, load, port, service) as process:
            options = self._load_options(relay, load, port, service)
            command = [str(self._build / "load"), *options, "--watch", str(process.pid)]
            began, before = time.monotonic(), _cpu_of_others(process.pid)
            told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOAD_WITHIN)
            passed = (time.monotonic() - began) * (os.cpu_count() or 1)
            after = _cpu_of_others(process.pid)
            others = sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items()) / passed
        return Run(relay, load, round_, {} if told.returncode else json.loads(told.stdout), others)

    def _load_options(self, relay: Relay, load: Load, port: int, service: int) -> list[str]:
        options: dict[str, object] = {
            "relay": port,
            "service": service,
            "calls": load.calls,
            "path": f"/media/{Passes(self._access).stream_key}" if relay == OURS else "/media",
            "pace": "max" if load.saturated else "real",
            "ramp": load.ramp_s,
            "warm": load.warm_s,
            "window": load.window_s,
            "drain": SATURATED_DRAIN_S if load.saturated else DRAIN_S,
        }
        if load.tls:
            options |= {"certificate": self._build / "certificate.pem", "key": self._build / "key.pem"}
        return [f"--{name}={value}" for name, value in options.items()]

    @contextmanager
    def _started(self, relay: Relay, load: Load, port: int, service: int) -> Iterator[subprocess.Popen[bytes]]:
        """The relay, while it runs. Its environment is bare: no proxy and no setting of this machine is in the way."""
        certificate = str(self._build / "certificate.pem")
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PORT": str(port),
            "DEEPGRAM_URL": f"{'wss' if load.tls else 'ws'}://127.0.0.1:{service}",
            "DEEPGRAM_API_KEY": "none",
            "AUDIO_CHUNK_MS": str(load.chunk_ms),
            "ACCESS_FOLDER": str(self._access),
            "SSL_CERT_FILE": certificate,
            "WEBSOCKET_CLIENT_CA_BUNDLE": certificate if self.tls else "",
        }
        complaints = (self._build / "complaints.txt").open("w+b")
        process = subprocess.Popen(
            relay.runs(saturated=load.saturated, build=self._build),
            cwd=ROOT,
            env={name: value for name, value in environment.items() if value},
            stdout=subprocess.DEVNULL,
            stderr=complaints,
        )
        try:
            os.sched_setaffinity(process.pid, {self._relay_core})
            _await_listener(process, port, complaints.name)
            yield process
        finally:
            process.kill()
            process.wait()
            complaints.close()


def _cpu_of_others(relay: int) -> dict[int, float]:
    """The CPU seconds each other process has used so far. (/proc/stat counts ticks, between which timers fall.)"""
    used = {}
    for process in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        clock = ~process << 3 | 2  # as clock_getcpuclockid(3) makes it on Linux
        if process not in (relay, os.getpid()):
            with suppress(OSError):  # it has ended meanwhile
                used[process] = time.clock_gettime(clock)
    return used


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _await_listener(process: subprocess.Popen[bytes], port: int, complaints: str) -> None:
    until = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"A relay does not start:\n{Path(complaints).read_text(errors='replace')[-2000:]}")

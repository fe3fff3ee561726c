"""What the length of an audio chunk costs in CPU and saves in delay: the figures behind the default of AUDIO_CHUNK_MS.

    python -m benchmarks.chunk_length [--calls N] [--seconds S]

Three processes: the callers, which are this one; the relay, as people start it; and a speech service that insists on
Deepgram's rules. Each frame carries its number and the moment it was sent, so the service sees what is missing and how
late the rest is. The lengths take turns, and a ratio compares two turns of one round: whatever else keeps the machine
busy then is in both. Delays should be compared by their means: frames wait for their chunk in steps of 20 ms, and with
an even number of them in a chunk the median may be on either side of a step.

All is on one machine and without TLS, which would make short chunks dearer still. Linux only.
"""
# ruff: noqa: E402  # gevent patches the standard library before anything else is imported

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import fmean, median, quantiles
from struct import Struct
from time import monotonic, monotonic_ns
from typing import IO, Final

import click
import gevent
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track as bar
from rich.table import Table

from relay.audio import SAMPLES_PER_MS
from relay.events import Track
from relay.passes import Passes
from standins.deepgram import ListenServer
from standins.ear import EarOptions, Heard, Phrase, Word
from standins.simulation import Pace
from standins.twilio import FRAME_BYTES, FRAME_MS, SimulatedCall

ROOT: Final = Path(__file__).parent.parent
LENGTHS_MS: Final = (20, 40, 60, 100, 200)  # whole frames, so that stamps lie where a chunk's frames begin
COMPARED_TO_MS: Final = 100  # what Deepgram advises
ROUNDS: Final = 3
SPREAD_S: Final = 0.2  # the calls begin within the longest chunk, so that their chunks are not all due at once
GOLDEN_RATIO: Final = 0.618034  # its multiples lie evenly in any period: in a frame's as in a chunk's
WARM_UP_S: Final = 2.0  # not measured: connecting, and catching up on what was said meanwhile
PATIENCE_S: Final = 30.0  # for anything a child process does, on a busy machine
ANSWER_EVERY_MS: Final = 1000  # Deepgram's interims come about once a second
FINAL_EVERY: Final = 3  # answers
WORD_MS: Final = 500

STAMP: Final = Struct("<IQ")  # a frame's number, and when it was sent: ns of the clock that all processes share
PADDING: Final = b"\x7f" * (FRAME_BYTES - STAMP.size)


# --- The speech service, in a process of its own ------------------------------------------------------------


class StampEar:
    """Reads the stamps on two channels, and answers as often as Deepgram does."""

    def __init__(self, emit: Callable[[Heard], None], arrivals: list[tuple[int, float]]) -> None:
        self._emit = emit
        self._arrivals = arrivals  # of all calls: each frame's number, and the ms it was on its way
        self._expected = [0, 0]  # each channel's next frame
        self._now_ms = self._final_ms = self._answers = 0

    def hear(self, channels: list[bytes]) -> None:
        """Takes a chunk."""
        now = monotonic_ns()
        for channel, audio in enumerate(channels):
            for at in range(0, len(audio), FRAME_BYTES):
                if not audio.endswith(PADDING, at, at + FRAME_BYTES):
                    continue  # silence, which the relay puts where a frame is missing
                number, sent = STAMP.unpack_from(audio, at)
                if number >= self._expected[channel]:  # a repeat would make up for one that is missing
                    self._expected[channel] = number + 1
                    self._arrivals.append((number, (now - sent) / 1e6))
        self._now_ms += len(channels[0]) // SAMPLES_PER_MS
        if self._now_ms >= (self._answers + 1) * ANSWER_EVERY_MS:
            self._answers += 1
            self._answer(is_final=self._answers % FINAL_EVERY == 0)

    def flush(self, channel: int | None = None) -> None:
        """Is never asked for here."""

    def finish(self) -> None:
        """Makes the rest final."""
        self._answer(is_final=True)

    def close(self) -> None:
        """Holds nothing that needs freeing."""

    def _answer(self, *, is_final: bool) -> None:
        starts = range(self._final_ms, self._now_ms, WORD_MS)
        words = tuple(Word("word", start, min(start + WORD_MS, self._now_ms)) for start in starts)
        for channel in range(len(self._expected)):
            self._emit(Phrase(channel, self._final_ms, self._now_ms, words, is_final))
        if is_final:
            self._final_ms = self._now_ms


def listen(calls: int, within: float) -> None:
    """Serves so many connections; says where on its first line, and what came on its second."""
    arrivals: list[tuple[int, float]] = []

    def ear(_: EarOptions, emit: Callable[[Heard], None]) -> StampEar:
        return StampEar(emit, arrivals)

    with ListenServer(ear=ear) as server:
        click.echo(server.url)
        met = server.connections
        server.wait_for(lambda: len(met) == calls and all(connection.is_over for connection in met), within=within)
    delays = [delay for number, delay in arrivals if number * FRAME_MS >= WARM_UP_S * 1000]
    figures = {"mean_ms": fmean(delays), "median_ms": median(delays), "p99_ms": quantiles(delays, n=100)[-1]}
    click.echo(json.dumps({"frames": len(arrivals), "delay": figures, "violations": server.violations}))


# --- One turn: a relay, its service and its calls -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one turn has shown. The delay is that from a frame's sending to its arrival at the service."""

    cpu_us: float  # the relay's, user and system, for each frame of one track
    mean_ms: float
    median_ms: float
    p99_ms: float
    lost: int  # frames
    load: float  # share of a core that the service takes; near 1, the delays would be its own


def take_turn(chunk_ms: int, calls: int, seconds: float) -> Turn:
    """Measures a relay with this length of chunk."""
    listening = f"from benchmarks.chunk_length import listen; listen({calls}, {seconds + PATIENCE_S})"
    with _child(["-c", listening], ROOT, os.environ) as (service, said), tempfile.TemporaryDirectory() as bare:
        # Where there is no .env, and nothing else in the environment, all other settings are the defaults.
        settings = {"PORT": "0", "DEEPGRAM_API_KEY": "any", "AUDIO_CHUNK_MS": str(chunk_ms)}
        environ = settings | {"DEEPGRAM_URL": _line(said)}
        with _child([str(ROOT / "app.py"), "serve"], Path(bare), environ) as (relay, shown):
            url = next(line.split()[-1] for line in iter(lambda: _line(shown), "") if "ws://" in line)
            gevent.spawn(shown.read)  # as a terminal does
            url += f"/{Passes(Path(bare) / 'data' / 'access').stream_key}"
            sent, cpu_us, load = _talk(url, calls, seconds, relay.pid, service.pid)
            report = json.loads(_line(said))
            relay.send_signal(signal.SIGTERM)
            relay.wait(PATIENCE_S)
    if report["violations"]:
        raise click.ClickException(f"chunks of {chunk_ms} ms broke the service's rules: {report['violations'][0]}")
    return Turn(cpu_us=cpu_us, lost=sent - report["frames"], load=load, **report["delay"])


def _talk(url: str, calls: int, seconds: float, relay: int, service: int) -> tuple[int, float, float]:
    """Makes the calls. Gives the frames sent, the CPU us the relay took for each, and the load of the service."""
    sent: Counter[int] = Counter()  # by call
    begin = monotonic() + SPREAD_S + WARM_UP_S
    talking = [
        gevent.spawn_later(number * GOLDEN_RATIO % 1 * SPREAD_S, _call, url, begin + seconds, sent, number)
        for number in range(calls)
    ]
    gevent.sleep(begin - monotonic())
    before, relay_before, service_before = sent.total(), _cpu_s(relay), _cpu_s(service)
    gevent.sleep(begin + seconds - monotonic())
    cpu_us = (_cpu_s(relay) - relay_before) * 1e6 / (sent.total() - before)
    load = (_cpu_s(service) - service_before) / seconds
    gevent.joinall(talking, timeout=PATIENCE_S, raise_error=True)
    return sent.total(), cpu_us, load


def _call(url: str, end: float, sent: Counter[int], number: int) -> None:
    call = SimulatedCall(url)
    call.open()
    call.start()
    pace = Pace()
    for frame in count():
        pace.wait_until(frame * FRAME_MS)
        if monotonic() >= end:
            break
        for track in Track:
            stamped = STAMP.pack(frame, monotonic_ns()) + PADDING
            call.media(track, b64encode(stamped).decode(), frame * FRAME_MS)
        sent[number] += len(Track)
    call.stop()
    call.close()


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far: the 14th and 15th field of its stat (man 5 proc)."""
    from_third = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(from_third[11]) + int(from_third[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _child(
    arguments: list[str], folder: Path, environ: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """`python ARGUMENTS` and what it prints; it is killed if it has not ended."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def _line(printed: IO[str]) -> str:
    """The next line a child prints."""
    with gevent.Timeout(PATIENCE_S, click.ClickException("a child process said nothing in time")):
        if line := printed.readline():
            return line
    raise click.ClickException("a child process ended before its time")


# --- All turns ----------------------------------------------------------------------------------------------


def table(turns: Mapping[int, Sequence[Turn]]) -> Table:
    """Medians over the rounds, and below them the least and the most; ratios first."""
    shown = Table("", *(f"{chunk_ms} ms" for chunk_ms in turns), box=SIMPLE)

    def row(name: str, figure: Callable[[Turn], float], form: str, *, is_ratio: bool = False) -> None:
        units = [figure(turn) if is_ratio else 1 for turn in turns[COMPARED_TO_MS]]
        by_length = ([figure(turn) / unit for turn, unit in zip(own, units, strict=True)] for own in turns.values())
        shown.add_row(name, *(f"{median(own):{form}}\n{min(own):{form}}-{max(own):{form}}" for own in by_length))

    row("CPU, ratio", lambda turn: turn.cpu_us, ".2f", is_ratio=True)
    row("delay, ratio", lambda turn: turn.mean_ms, ".2f", is_ratio=True)
    row("CPU, us", lambda turn: turn.cpu_us, ".1f")
    row("mean, ms", lambda turn: turn.mean_ms, ".1f")
    row("median, ms", lambda turn: turn.median_ms, ".1f")
    row("p99, ms", lambda turn: turn.p99_ms, ".1f")
    row("lost, frames", lambda turn: turn.lost, ".0f")
    row("load", lambda turn: turn.load, ".0%")
    return shown


def machine() -> str:
    """What this runs on, and how busy it is."""
    facts = dict(line.split("\t:")[0:2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "\t:" in line)
    load = " ".join(f"{minutes:.1f}" for minutes in os.getloadavg())
    model = facts.get("model name", platform.machine()).strip()
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}, load before: {load}"


@click.command()
@click.option(
    "--calls", default=20, type=click.IntRange(1), show_default=True, help="How many two-track calls at once."
)
@click.option(
    "--seconds",
    default=12.0,
    type=click.FloatRange(1),
    show_default=True,
    help="How long each of the 15 turns is measured.",
)
def main(calls: int, seconds: float) -> None:
    """Compares lengths of chunk: the relay's CPU, and the delay it adds."""
    runs_on = machine()
    order = [chunk_ms for first in range(ROUNDS) for chunk_ms in LENGTHS_MS[first:] + LENGTHS_MS[:first]]
    turns: dict[int, list[Turn]] = {chunk_ms: [] for chunk_ms in LENGTHS_MS}
    for chunk_ms in bar(order, "Measuring", console=Console(stderr=True)):
        turns[chunk_ms].append(take_turn(chunk_ms, calls, seconds))
    Console().print(table(turns))
    click.echo(
        "CPU: the relay's for each frame of one track. Delay: from a frame's sending to its arrival at the service;"
    )
    click.echo("its ratio is that of the means. Load: the share of a core that the service takes.")
    click.echo(f"Medians of {ROUNDS} rounds, least-most below; ratios are to {COMPARED_TO_MS} ms in the same round.")
    click.echo(f"{calls} calls of two tracks in real time, {seconds:g} s a turn. {runs_on}")
    if any(turn.lost for own in turns.values() for turn in own):
        raise click.ClickException("frames were lost: these figures mean little")


if __name__ == "__main__":
    main()

"""What the runs say, as tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import linear_regression, median
from typing import Final

from benchmarks.chart import Point
from benchmarks.relays import OURS, RELAYS, Load, Relay, Run

_CANNOT: Final = "-"

_INTRODUCTION: Final = """# What the media path costs

Our relay against everything a user would pick instead, and against the same thing in C. `make bench` wrote this
page, with all its numbers. Read the ratios first: both sides of one were measured minutes apart on the same machine.

![CPU per frame against the number of calls](performance.svg)
"""

_METHOD: Final = """## How it is measured

*The work.* A call is a WebSocket on which Twilio's media messages come: JSON of about 390 bytes, masked, for each 20
ms of each of its two tracks. The relay opens one WebSocket to the speech service for each call, interleaves both
tracks sample by sample, and sends binary messages of 100 ms (1,600 bytes). The service answers as Deepgram does: an
interim for each track each second of audio, and a final every fourth.

*The figure.* CPU time of the relay's process, user and system, all threads, in a window of steady work, divided by
the frames (20 ms of one track) that reached the service in that window.

*The load.* A C program, `benchmarks/load.c`, plays Twilio and the speech service on a core of its own; the relay has
another one. In real time, each frame leaves at its own absolute deadline, in steps of 0.1 ms. Calls are spread
evenly over the 20 ms, and the two tracks of a call are half a frame apart, since they are two RTP streams. As fast
as possible, all sockets are kept full. A frame carries its call, track, number and time of sending, and the
service's side checks every one, to the bit, for loss, doubling, order and damage. The added delay is the time from
Twilio's `send` to the service's `recv`. Up to one chunk of it is the chunk itself, whose first frame waits for its
last.

*Keeping up* means that nothing is lost and that 99 of 100 frames arrive within the chunk plus 20 ms. A relay that
does not keep up with so many calls is not tried with more. The largest number of calls is looked for in steps of a
fifth.

*Turns.* Each measurement is a fresh process. All relays take their turn under one load before the next load comes,
and who is first changes. Figures are medians of the rounds, with the lowest and the highest; a ratio is taken within
each round, and the median of those is shown. With TLS, and for the largest number of calls, there is one round. A
measurement during which other programs took more than a tenth of the cores' time is made again, once.

## What to keep in mind

- *It is not the same work.* Our program keeps the audio until the service has understood it, fills gaps, checks
  every message, watches deadlines, and reads, times and prints the answers. The peers do none of that.
- *Audio kept is memory.* Finals come every four seconds here: each of our calls holds up to 64 KB of audio for that.
  The peers hold one chunk.
- *As fast as possible* is measured without the pace that Deepgram asks for, and with the longest replay there is
  (`benchmarks/unpaced.py`).
- *The C relay* finds two keys in the JSON and trusts the rest, waits while it connects, and repairs nothing. Three
  of it are here: one wakes for every frame and sends 100 ms at a time, as all the others do; one also sends every 20
  ms on at once; and one looks at each call once a chunk and sends what is there. The last is the limit of the design
  on this machine.
- *The peers* (`benchmarks/peers/`) are written as their documentation has it, with orjson where people go for speed;
  the stock stack and flask-sock use `json`, as their samples do. aiohttp and `websockets` run on asyncio's own loop.
- *Loopback is no network.* Who sends there also does most of the receiver's TCP work, in all relays alike.
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured, and the processors' clocks before it was."""

    lines: tuple[str, ...]
    ticks: tuple[int, ...]

    def stolen(self) -> float:
        """The share of time since then that the processors were taken away from this machine."""
        passed = [now - then for now, then in zip(_ticks(), self.ticks, strict=True)]
        return passed[7] / sum(passed)  # proc(5): the eighth is "steal"


def machine() -> Machine:
    """This one, now."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(": ")[2] if models else platform.machine()
    return Machine(
        (
            f"{model}, {os.cpu_count()} cores, "
            f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}",
            f"{datetime.now(UTC):%Y-%m-%d}; load average before the start: {os.getloadavg()[0]:.2f}",
        ),
        _ticks(),
    )


def _ticks() -> tuple[int, ...]:
    return tuple(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))


class Report:
    """Tables of all runs; `largest` is the largest number of calls that each relay kept up with."""

    def __init__(
        self, runs: Sequence[Run], largest: Mapping[Relay, tuple[Run, bool]], at: Machine, *, tls: bool
    ) -> None:
        self._runs = runs
        self._largest = largest
        self._machine = at
        self._stolen = at.stolen()
        self._tls = tls
        self._relays = [relay for relay in RELAYS if any(run.relay is relay for run in runs)]
        loads = {run.load for run in runs}
        self._loads = sorted(loads, key=lambda load: (load.chunk_ms != 100, load.tls, load.saturated, load.calls))

    def page(self) -> str:
        """The whole document."""
        return f"{_INTRODUCTION}\n{self.tables()}\n{_METHOD}"

    def tables(self) -> str:
        """All tables, ratios first."""
        sections = {
            "CPU per frame: ours divided by theirs": self._ratios(),
            "CPU microseconds per frame": self._costs(),
            "Delay and number of calls on one core": self._delays(),
            "Memory": self._memory(),
            "The lowest delay: `AUDIO_CHUNK_MS=20`": self._short_chunks(),
            "Where and how": self._conditions(),
        }
        return "\n".join(f"## {title}\n\n{body}\n" for title, body in sections.items() if body)

    def curves(self) -> dict[str, list[Point]]:
        """For each relay the number of calls and its CPU per frame."""
        loads = [load for load in self._loads if not load.saturated and not load.tls and load.chunk_ms == 100]
        curves: dict[str, list[Point]] = {
            relay.title: [(load.calls, cost) for load in loads if (cost := self._median(relay, load))]
            for relay in self._relays
        }
        return {title: curve for title, curve in curves.items() if curve}

    def flawed(self) -> str:
        """The runs of relays that were on time but lost, doubled or damaged audio."""
        flawed = (f"{run.load}: {run.relay.title}: {run.flaws}" for run in self._runs if run.on_time and run.flaws)
        return "\n".join(flawed)

    # --- The sections ---------------------------------------------------------------------------------------

    def _ratios(self) -> str:
        loads = [load for load in self._loads if load.chunk_ms == 100]
        others = [relay for relay in self._relays if relay is not OURS]
        if OURS not in self._relays or not others:
            return ""
        return _table(
            ["", *map(_short, loads)],
            [[relay.title, *(self._ratio(relay, load) for load in loads)] for relay in others],
        )

    def _costs(self) -> str:
        loads = [load for load in self._loads if load.chunk_ms == 100]
        rows = [[relay.title, *(self._cost(relay, load) for load in loads)] for relay in self._relays]
        return _table(["", *map(_short, loads)], rows) + f"\n\n{_CANNOT}: does not keep up."

    def _delays(self) -> str:
        loads = [load for load in self._loads if not load.saturated and not load.tls and load.chunk_ms == 100]
        head = ["added delay, ms: p50 / p99 / longest", *map(_short, loads)]
        rows = [[relay.title, *(self._delay(relay, load) for load in loads)] for relay in self._relays]
        if self._largest:
            head.append("most calls with p99 below chunk + 20 ms")
            for relay, row in zip(self._relays, rows, strict=True):
                row.append(self._most(relay))
        return _table(head, rows)

    def _memory(self) -> str:
        rows = [[relay.title, *(self._slope(relay, tls=tls) for tls in (False, True))] for relay in self._relays]
        if all(row[1:] == [_CANNOT, _CANNOT] for row in rows):
            return ""
        return _table(["KB for each two-track call", "plain", "TLS to the service"], rows) + (
            "\n\nResident memory, slope over the numbers of calls above."
        )

    def _short_chunks(self) -> str:
        load = next((load for load in self._loads if load.chunk_ms == 20), None)
        if load is None:
            return ""
        rows = []
        for relay in self._relays:
            if runs := [run for run in self._runs if run.relay is relay and run.load == load and run.said]:
                rows.append([relay.title, _cost(runs), _delay(runs), "yes" if self._good(relay, load) else "no"])
        head = [f"{load.calls} calls", "us per frame", "added delay, ms: p50 / p99 / longest", "p99 below 40 ms"]
        return _table(head, rows)

    def _conditions(self) -> str:
        good = [run for run in self._runs if run.on_time]
        heard = sum(run.said["heard"] for run in good)
        lost = sum(
            run.said["lost"] + run.said["doubled"] + run.said["disordered"] + run.said["damaged"] for run in good
        )
        in_time = [run for run in good if not run.load.saturated]
        busy = max((run.said["load_cpu_us"] / 1e4 / run.load.window_s for run in in_time), default=0)
        late = max((run.said["late_p99_ms"] for run in in_time), default=0)
        lines = [
            *self._machine.lines,
            f"`make bench`; rounds: {1 + max(run.round for run in self._runs)}",
            f"spread of the CPU figures, highest minus lowest by the median: {self._spread():.0%} in the middle, "
            f"{self._widest():.0%} at the widest",
            f"other programs took {median(run.others for run in self._runs):.1%} of the cores' time in the middle, "
            f"{max(run.others for run in self._runs):.1%} at most",
            f"{self._stolen:.1%} of the processors' time was taken by other guests of the host",
            f"{heard:,} frames came through relays that kept up; {lost} of them lost, doubled, out of order or damaged",
            f"in real time, the load generator used at most {busy:.0f} % of its core; 99 of 100 frames left within "
            f"{late:.1f} ms of their time even when it was latest",
        ]
        if not self._tls:
            lines.append("without TLS: OpenSSL was not there")
        return "\n".join(f"- {line}" for line in lines)

    # --- The cells ------------------------------------------------------------------------------------------

    def _good(self, relay: Relay, load: Load) -> list[Run]:
        return [run for run in self._runs if run.relay is relay and run.load == load and run.on_time]

    def _median(self, relay: Relay, load: Load) -> float | None:
        return _median_of(self._good(relay, load), lambda run: run.us_per_frame)

    def _ratio(self, relay: Relay, load: Load) -> str:
        ours = {run.round: run.us_per_frame for run in self._good(OURS, load)}
        theirs = {run.round: run.us_per_frame for run in self._good(relay, load)}
        ratios = [ours[round_] / theirs[round_] for round_ in ours.keys() & theirs.keys()]
        return f"**{median(ratios):.2f}**" if ratios else _CANNOT

    def _cost(self, relay: Relay, load: Load) -> str:
        return _cost(self._good(relay, load))

    def _delay(self, relay: Relay, load: Load) -> str:
        return _delay(self._good(relay, load))

    def _most(self, relay: Relay) -> str:
        if relay not in self._largest:
            return _CANNOT
        run, load_gave_out = self._largest[relay]
        told = f"{run.load.calls} ({run.cpu_share:.0%} of the core)"
        return f"{told} or more: the load generator gave out" if load_gave_out else told

    def _slope(self, relay: Relay, *, tls: bool) -> str:
        loads = [load for load in self._loads if not load.saturated and load.tls == tls and load.chunk_ms == 100]
        points = [
            (load.calls, resident)
            for load in loads
            if (resident := _median_of(self._good(relay, load), lambda run: run.said["resident_kb"])) is not None
        ]
        if len(points) < 2:
            return _CANNOT
        return f"{linear_regression(*zip(*points, strict=True)).slope:.0f}"

    def _spreads(self) -> list[float]:
        cells = [
            [run.us_per_frame for run in self._good(relay, load)] for relay in self._relays for load in self._loads
        ]
        return [(max(cell) - min(cell)) / median(cell) for cell in cells if len(cell) > 1]

    def _spread(self) -> float:
        return median(self._spreads() or [0.0])

    def _widest(self) -> float:
        return max(self._spreads(), default=0.0)


def _cost(runs: Iterable[Run]) -> str:
    costs = [run.us_per_frame for run in runs]
    if not costs:
        return _CANNOT
    digits = 2 if median(costs) < 10 else 1
    span = f" ({min(costs):.{digits}f}-{max(costs):.{digits}f})" if len(costs) > 1 else ""
    return f"{median(costs):.{digits}f}{span}"


def _delay(runs: Sequence[Run]) -> str:
    if not runs:
        return _CANNOT
    kinds = ("delay_p50_ms", "delay_p99_ms", "delay_max_ms")
    return " / ".join(f"{median(run.said[kind] for run in runs):.0f}" for kind in kinds)


def _median_of(runs: Iterable[Run], of: Callable[[Run], float]) -> float | None:
    values = list(map(of, runs))
    return median(values) if values else None


def _short(load: Load) -> str:
    tls = ", TLS" if load.tls else ""
    return f"as fast as possible{tls}" if load.saturated else f"{load.calls} calls{tls}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""Measures our relay against all that a user would pick instead: `make bench`, or `python -m benchmarks.run --quick`.

Relays take turns under the same load, each a fresh process alone on one core; the load generator has another one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.chart import draw
from benchmarks.relays import C_CHUNKS, C_FRAMES, OURS, RELAYS, ROOT, Bench, Load, Relay, Run
from benchmarks.report import Report, machine

PAGE: Final = ROOT / "docs" / "performance.md"
PICTURE: Final = ROOT / "docs" / "performance.svg"

STEP: Final = 1.2  # from one number of calls to the next, when the largest that holds is looked for
NEARLY_ALL: Final = 0.8  # of its core: where the search begins, from what a call has cost so far
STEPS_AT_MOST: Final = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how long."""

    rounds: int
    sizes: tuple[int, ...]
    saturated_calls: int
    tls_sizes: tuple[int, ...]
    short_chunk_calls: int
    search: bool
    warm_s: float
    window_s: float


FULL: Final = Plan(
    rounds=3,
    sizes=(50, 200, 500, 1000),
    saturated_calls=50,
    tls_sizes=(50, 200),
    short_chunk_calls=200,
    search=True,
    warm_s=2.0,
    window_s=4.0,
)
QUICK: Final = Plan(
    rounds=1,
    sizes=(50, 200),
    saturated_calls=50,
    tls_sizes=(),
    short_chunk_calls=200,
    search=False,
    warm_s=1.0,
    window_s=2.5,
)


class Campaign:
    """All runs of a plan, in turns."""

    def __init__(self, bench: Bench, plan: Plan, relays: Sequence[Relay]) -> None:
        self.runs: list[Run] = []
        self.largest: dict[Relay, tuple[Run, bool]] = {}  # the largest load that held; whether the load gave out first
        self._bench = bench
        self._plan = plan
        self._relays = relays
        self._turn = 0

    def run(self) -> None:
        """Everything."""
        plan = self._plan
        for round_ in range(plan.rounds):
            for calls in plan.sizes:
                self._all(self._load(calls), round_)
            self._all(self._load(plan.saturated_calls, saturated=True), round_)
            self._all(self._load(plan.short_chunk_calls, chunk_ms=20), round_, (OURS, C_CHUNKS, C_FRAMES))
        if plan.tls_sizes and self._bench.tls:
            for calls in plan.tls_sizes:
                self._all(self._load(calls, tls=True), 0)
            self._all(self._load(plan.saturated_calls, saturated=True, tls=True), 0)
        if plan.search:
            for relay in self._relays:
                self._search(relay)

    def _load(self, calls: int, *, saturated: bool = False, tls: bool = False, chunk_ms: int = 100) -> Load:
        plan = self._plan
        return Load(calls, saturated, tls, chunk_ms, warm_s=plan.warm_s, window_s=plan.window_s)

    def _all(self, load: Load, round_: int, among: Iterable[Relay] | None = None) -> None:
        """One round of all relays under one load; who comes first changes each time."""
        relays = [relay for relay in among or self._relays if relay in self._relays]
        self._turn += 1
        first = self._turn % len(relays) if relays else 0
        for relay in relays[first:] + relays[:first]:
            if not self._hopeless(relay, load):
                self.runs.append(self._measure(relay, load, round_))

    def _hopeless(self, relay: Relay, load: Load) -> bool:
        """Whether it has not kept up with less, or twice not with this."""
        same = [run for run in self.runs if run.relay is relay and replace(run.load, calls=load.calls) == load]
        held = {run.load.calls for run in same if run.on_time}
        tried = [run.load.calls for run in same if run.load.calls not in held]
        return tried.count(load.calls) > 1 or any(calls < load.calls for calls in tried)

    def _measure(self, relay: Relay, load: Load, round_: int) -> Run:
        run = self._bench.measure(relay, load, round_)
        told = f"{run.us_per_frame:6.2f} us/frame, p99 {run.p99_ms:5.0f} ms" if run.said else "broke down"
        verdict = run.flaws if run.on_time else "does not keep up"
        sys.stderr.write(f"[{round_ + 1}] {load}: {relay.title}: {told} {verdict}  (others {run.others:.0%})\n")
        return run

    def _search(self, relay: Relay) -> None:
        """The largest number of calls that it keeps up with, in steps of a fifth."""
        mine = [run for run in self.runs if run.relay is relay and run.load == self._load(run.load.calls)]
        if not any(run.on_time for run in mine):
            return
        best = max((run for run in mine if run.on_time), key=lambda run: run.load.calls)
        calls = round(best.load.calls * max(1.0, NEARLY_ALL / best.cpu_share))
        went_up = None
        for _ in range(STEPS_AT_MOST):
            run = self._measure(relay, self._load(_rounded(calls)), 0)
            if run.load_was_late:
                self.largest[relay] = best, True
                return
            if run.on_time:
                best = max(best, run, key=lambda run: run.load.calls)
            if went_up not in (None, run.on_time):
                break
            went_up = run.on_time
            calls = round(calls * STEP if went_up else calls / STEP)
        self.largest[relay] = best, False


def _rounded(calls: int) -> int:
    """To two digits: more would promise more than there is."""
    return round(calls, 2 - len(str(calls)))


def main() -> None:
    """Measures, prints, and after a full run writes the page and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in two minutes; writes nothing")
    parser.add_argument("--only", nargs="+", choices=[relay.name for relay in RELAYS], help="measure only these")
    asked = parser.parse_args()
    relays = [relay for relay in RELAYS if not asked.only or relay.name in asked.only]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("Two cores are needed: one for the relay, one for the load.")
    at_rest = machine()
    with tempfile.TemporaryDirectory() as build:
        bench = Bench(Path(build), relay_core=cores[0], load_core=cores[1])
        campaign = Campaign(bench, QUICK if asked.quick else FULL, relays)
        campaign.run()
    report = Report(campaign.runs, campaign.largest, at_rest, tls=bench.tls)
    sys.stdout.write(report.tables() + "\n")
    if not asked.quick and not asked.only:
        PAGE.write_text(report.page())
        PICTURE.write_text(draw(report.curves()))
    if flawed := report.flawed():
        sys.exit(f"Not all audio came through:\n{flawed}")


if __name__ == "__main__":
    main()

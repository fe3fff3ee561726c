"""What the program says of itself: /metrics for Prometheus, /readyz for whoever sends it calls.

No label holds a number, a SID or a word that was said: labels are the names of services, and words of our own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from time import process_time
from typing import Final

import orjson
from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from relay.call import Switchboard
from relay.doorbook import Doorbook
from relay.events import (
    Gap,
    Listened,
    MediaReceived,
    ServiceConnected,
    ServiceConnecting,
    ServiceLost,
    ServiceReplaced,
    StreamBegun,
    StreamEnded,
    Transcript,
)
from relay.hub import Happened
from relay.passes import Scope
from relay.protocol import CallInfo
from relay.store.store import Store, StoreError
from relay.web.access import needs, open_to_all
from relay.web.live import Live
from relay.web.neighbours import Neighbours

# Seconds: a chunk waits 0.1, interims come after a few tenths, and a service that falls behind loses minutes.
BUCKETS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
NETWORK_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # seconds
REFUSALS: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)


class Metrics:
    """Counts what happens, and looks at the rest when it is asked. `hear` is a listener of the hub."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._worker = ""
        self._streams: dict[CallInfo, int] = {}  # live ones, and how many of their frames are counted
        self._frames_counted = 0
        self._make_counters()
        ProcessCollector(registry=self._registry)

    def look_at(self, switchboard: Switchboard, store: Store | None, live: Live | None) -> None:
        """Tells of these, too, from now on."""
        if switchboard.settings.workers > 1:
            self._worker = str(os.getpid())
        self._gauge("relay_streams_live", "Media streams that run", lambda: switchboard.live)
        self._gauge("relay_calls_live", "Calls that run", lambda: len({call.call_sid for call in self._streams}))
        self._gauge("relay_cpu_seconds_per_frame", "CPU time of this process, shared among all frames", self._cpu)
        self._look_at_services(switchboard)
        if store is not None:
            self._gauge("relay_store_waiting", "Things that wait to be written", lambda: store.waiting)
            self._gauge("relay_store_dropped", "Things dropped for want of room", lambda: store.dropped)
            self._gauge("relay_store_well", "Whether it can be written", lambda: not store.trouble)
            self._registry.register(_Outbox(store))
        if live is not None:
            self._gauge("relay_viewers", "Who watches the live feed", lambda: live.viewers)
            self._gauge("relay_viewers_waiting_bytes", "What viewers have not taken", lambda: live.waiting)

    def look_at_the_door(self, doorbook: Doorbook) -> None:
        """Tells of who was let in and who was not, too."""
        self._registry.register(
            _Counts(
                ("relay_streams_admitted", "Media streams let in", "by", doorbook.admitted),
                ("relay_refused", "Streams, requests and connections turned away", "why", doorbook.refused),
                ("relay_signatures", "What came of looking at Twilio's signatures", "result", doorbook.signatures),
            )
        )

    def look_at_the_neighbours(self, neighbours: Neighbours) -> None:
        """Tells of what the other workers were told, too."""
        self._registry.register(
            _Counts(
                ("relay_neighbours_told", "Messages to other workers", "kind", neighbours.sent),
                ("relay_neighbours_untold", "Messages they had no room for", "kind", neighbours.dropped),
            )
        )

    def _look_at_services(self, switchboard: Switchboard) -> None:
        well = Gauge("relay_service_well", "Not taken for down", ["service"], registry=self._registry)
        in_use = Gauge("relay_service_connections_open", "Connections to it", ["service"], registry=self._registry)
        for provider in switchboard.listening.providers:
            well.labels(provider.traits.name).set_function(partial(getattr, provider, "well"))
            in_use.labels(provider.traits.name).set_function(partial(getattr, provider, "open"))

    def _make_counters(self) -> None:
        self._calls = self._counter("relay_calls", "Calls that began here")
        self._begun = self._counter("relay_streams", "Media streams that began")
        self._frames = self._counter("relay_frames", "Media messages")
        self._missing = self._counter("relay_missing_messages", "Messages that Twilio numbered and that never came")
        self._holes = self._counter("relay_audio_gaps", "Holes in the audio that came")
        self._holes_s = self._counter("relay_audio_gaps_seconds", "How long they were")
        self._gaps = self._counter("relay_gaps", "Stretches that no transcript covers", "service")
        self._lost_s = self._counter("relay_lost_seconds", "How long they were", "service")
        self._connections = self._counter("relay_service_connections", "Connections that were made", "service")
        self._reconnects = self._counter("relay_service_reconnects", "Tries to connect anew", "service")
        self._losses = self._counter("relay_service_losses", "Connections lost, or not to be had", "service")
        self._failovers = self._counter("relay_failovers", "Takeovers in mid-call", "service", "by")
        self._refusals = self._counter("relay_refused_requests", "Requests that were answered by a refusal", "status")
        self._own_lag = self._histogram("relay_own_lag_seconds", "Audio that has come and waits to be sent on")
        self._service_lag = self._histogram(
            "relay_service_lag_seconds", "Audio sent beyond what a transcript covers", "service", "result"
        )
        self._network_lag = self._histogram(
            "relay_network_lag_seconds", "The way there and back, of that", "service", buckets=NETWORK_BUCKETS
        )

    def hear(self, happened: Happened) -> None:
        """Counts. Never waits."""
        call, service = happened.call, happened.service
        match happened.event:
            case Transcript(behind_ms=int(behind_ms), is_final=is_final, network_ms=network_ms):
                self._service_lag.labels(service, "final" if is_final else "interim").observe(behind_ms / 1000)
                if network_ms is not None:
                    self._network_lag.labels(service).observe(network_ms / 1000)
            case Listened(unsent_ms=int(unsent_ms)):
                self._own_lag.observe(unsent_ms / 1000)
            case MediaReceived(count=count) if call is not None:
                self._count_frames(call, count)
            case StreamBegun() if call is not None:
                self._begin(call)
            case StreamEnded() as ended if call is not None:
                self._end(call, ended)
            case Gap(start_ms=start_ms, end_ms=end_ms) if service:  # what Twilio did not send, the stream's end counts
                self._gaps.labels(service).inc()
                self._lost_s.labels(service).inc((end_ms - start_ms) / 1000)
            case ServiceConnecting(attempt=attempt) if attempt > 1:
                self._reconnects.labels(service).inc()
            case ServiceConnected():
                self._connections.labels(service).inc()
            case ServiceLost():
                self._losses.labels(service).inc()
            case ServiceReplaced(by=by):
                self._failovers.labels(service, by).inc()

    def refused(self, status: int) -> None:
        """Counts a request to which somebody was not let in."""
        self._refusals.labels(str(status)).inc()

    def written(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """All of it. Of several workers that share a port, one answers, whichever: each names itself."""
        for metric in self._registry.collect():
            if self._worker:
                metric.samples = [
                    sample._replace(labels=sample.labels | {"worker": self._worker}) for sample in metric.samples
                ]
            yield metric

    def _begin(self, call: CallInfo) -> None:
        if all(call.call_sid != other.call_sid for other in self._streams):
            self._calls.inc()
        self._begun.inc()
        self._streams[call] = 0

    def _end(self, call: CallInfo, ended: StreamEnded) -> None:
        self._count_frames(call, ended.frames)
        self._missing.inc(ended.missing_messages)
        self._holes.inc(ended.audio_gaps)
        self._holes_s.inc(ended.missing_ms / 1000)
        self._streams.pop(call, None)

    def _count_frames(self, call: CallInfo, frames: int) -> None:
        new = max(0, frames - self._streams.get(call, 0))  # two sockets may say that they are the same stream
        self._streams[call] = frames
        self._frames_counted += new
        self._frames.inc(new)

    def _cpu(self) -> float:
        return process_time() / self._frames_counted if self._frames_counted else 0.0

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self._registry)

    def _gauge(self, name: str, about: str, look: Callable[[], float]) -> None:
        Gauge(name, about, registry=self._registry).set_function(look)

    def _histogram(self, name: str, about: str, *labels: str, buckets: tuple[float, ...] = BUCKETS) -> Histogram:
        return Histogram(name, about, labels, registry=self._registry, buckets=buckets)


class _Counts(Collector):
    """Counts that others keep, as they stand when they are asked for: each with its name, what it is, and its label."""

    def __init__(self, *counts: tuple[str, str, str, Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        for name, about, label, counts in self._counts:
            family = CounterMetricFamily(name, about, labels=[label])
            for word, count in counts.items():
                family.add_metric([word], count)
            yield family


class _Outbox(Collector):
    """What webhooks have still to be told, by the endpoint's name. While the database is away, nothing is known."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        waiting = GaugeMetricFamily("relay_webhooks_waiting", "Deliveries that have not arrived", labels=["endpoint"])
        if not self._store.trouble:  # else all figures might wait with this one, for longer than a scraper does
            with suppress(StoreError):
                for endpoint, count in self._store.waiting_deliveries().items():
                    waiting.add_metric([endpoint], count)
        yield waiting


def health(
    metrics: Metrics, switchboard: Switchboard, store: Store | None = None, live: Live | None = None
) -> Blueprint:
    """What is asked by machines that look after this one."""
    part = Blueprint("health", __name__)
    metrics.look_at(switchboard, store, live)

    @part.after_app_request
    def count(answer: Response) -> Response:
        if answer.status_code in REFUSALS:
            metrics.refused(answer.status_code)
        return answer

    @part.get("/metrics")
    @needs(Scope.METRICS)
    def scraped() -> Response:
        return Response(metrics.written(), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    @part.get("/readyz")
    @open_to_all
    def ready() -> Response:
        """Whether calls should be sent here. A database that is away is no reason against it: they are transcribed."""
        why_not = _why_not(switchboard)
        said = {
            "ready": not why_not,
            "why_not": why_not,
            "streams": switchboard.live,
            "store": "none" if store is None else "in trouble" if store.trouble else "well",
        }
        status = HTTPStatus.SERVICE_UNAVAILABLE if why_not else HTTPStatus.OK
        return Response(orjson.dumps(said), status, mimetype="application/json")

    return part


def _why_not(switchboard: Switchboard) -> str:
    if not switchboard.answers:
        return "the server is about to end"
    return "" if switchboard.listening.services else switchboard.listening.why_not

"""What the program says of itself: numbers for Prometheus, and whether it is alive and ready."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import gevent
import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay import call as call_module
from relay.events import (
    Gap,
    Listened,
    MediaReceived,
    ServiceConnected,
    ServiceConnecting,
    ServiceLost,
    ServiceReplaced,
    Track,
    Transcript,
)
from relay.store import writer
from relay.store.batch import now_ms
from relay.store.records import Attempt
from relay.store.store import Store
from relay.store.threads import ANSWER_WITHIN
from standins.deepgram import Drop, Fault
from tests.calling import answered, hang_up, in_time, say
from tests.serving import Serving, begun, call_info, ended, final, interim, serving
from tests.storing import Reader, eventually, opened
from tests.talking import deepgram, listening

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases", "tests.stores")

Numbers = dict[tuple[str, ...], float]


def numbers(running: Serving) -> Numbers:
    """What is scraped, by name and the values of the labels in alphabetical order."""
    answer = running.ask("/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_calls_streams_and_frames_are_counted(store: Store) -> None:
    one, two, again = call_info(1), call_info(2), call_info(1, stream=2)
    with serving(store) as running:
        running.happens(one, begun(), MediaReceived(1, 160), MediaReceived(500, 160))
        running.happens(two, begun(), MediaReceived(1, 160))
        meanwhile = numbers(running)
        running.happens(one, ended(20_000))
        running.happens(two, ended(4_000))
        running.happens(again, begun(), MediaReceived(1, 160), ended(2_000))
        after = numbers(running)
    assert meanwhile["relay_calls_live",] == 2
    assert meanwhile["relay_frames_total",] == 501
    assert after["relay_calls_live",] == 0
    assert after["relay_streams_total",] == 3
    assert after["relay_frames_total",] == 1_000 + 200 + 100
    assert after["relay_cpu_seconds_per_frame",] == pytest.approx(after["process_cpu_seconds_total",] / 1_300, rel=0.5)


def test_what_happens_with_services_is_counted_for_each(store: Store) -> None:
    with serving(store) as running:
        running.happens(
            call_info(1),
            begun(),
            ServiceConnecting("Deepgram", 1),
            ServiceConnected("Deepgram", 0),
            ServiceLost("Deepgram", "it is gone", 0.1),
            ServiceConnecting("Deepgram", 2),
            ServiceLost("Deepgram", "it is still gone", 0.1),
            ServiceConnecting("Deepgram", 3),
            ServiceReplaced("Deepgram", "Gladia", "it is gone for good", 2_000),
            Gap(Track.INBOUND, 1_000, 2_500, "it was away"),
        )
        running.happens(
            call_info(1), ServiceConnecting("Gladia", 1), ServiceConnected("Gladia", 2_000), service="Gladia"
        )
        running.happens(call_info(1), Gap(Track.INBOUND, 4_000, 9_000, "Twilio did not send it"), service="")
        running.happens(call_info(1), ended())
        scraped = numbers(running)
    assert scraped["relay_service_connections_total", "Deepgram"] == 1
    assert scraped["relay_service_connections_total", "Gladia"] == 1
    assert scraped["relay_service_losses_total", "Deepgram"] == 2
    assert scraped["relay_service_reconnects_total", "Deepgram"] == 2
    assert scraped["relay_failovers_total", "Deepgram", "Gladia"] == 1
    assert scraped["relay_gaps_total", "Deepgram"] == 1
    assert scraped["relay_lost_seconds_total", "Deepgram"] == 1.5
    assert ("relay_lost_seconds_total", "") not in scraped


def test_lag_is_told_apart_into_ours_and_the_services(store: Store) -> None:
    with serving(store) as running:
        call = call_info(1)
        running.happens(call, begun(), Listened(2_000, unsent_ms=80))
        running.happens(call, behind(interim("um"), 350), behind(final("hello"), 900), final("no measure"))
        running.happens(call, ended())
        scraped = numbers(running)
    assert scraped["relay_own_lag_seconds_count",] == 1
    assert scraped["relay_own_lag_seconds_bucket", "0.05"] == 0
    assert scraped["relay_own_lag_seconds_bucket", "0.1"] == 1
    assert scraped["relay_service_lag_seconds_sum", "Deepgram", "interim"] == 0.35
    assert scraped["relay_service_lag_seconds_sum", "Deepgram", "final"] == 0.9
    assert scraped["relay_service_lag_seconds_count", "Deepgram", "final"] == 1
    assert ("relay_network_lag_seconds_count", "Deepgram") not in scraped


def behind(said: Transcript, ms: int) -> Transcript:
    """A transcript that came when so much more audio had been sent."""
    return replace(said, behind_ms=ms)


def test_a_real_call_measures_both_kinds_of_lag(store: Store) -> None:
    with listening(Fault(drop=Drop(1_000, "reset"))) as speech, serving(store, deepgram(speech)) as running:
        call = answered(running.relay.url, "inbound")
        in_time(call, 4_000)
        hang_up(call)
        running.relay.ended(call)
        scraped = numbers(running)
    assert scraped["relay_frames_total",] == 200
    assert scraped["relay_service_lag_seconds_count", "Deepgram", "interim"] > 0
    assert scraped["relay_service_lag_seconds_count", "Deepgram", "final"] > 0
    if sys.platform == "linux":  # whose kernel tells
        assert scraped["relay_network_lag_seconds_count", "Deepgram"] > 0
        assert scraped["relay_network_lag_seconds_sum", "Deepgram"] > 0
    assert scraped["relay_service_connections_total", "Deepgram"] == 2
    assert scraped["relay_service_reconnects_total", "Deepgram"] == 1
    assert scraped["relay_service_well", "Deepgram"] == 1
    assert scraped["relay_service_connections_open", "Deepgram"] == 0


def test_our_own_lag_is_looked_at_on_a_real_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "TELL_LISTENED_EVERY", 0.0)
    with listening() as speech, serving(store, deepgram(speech)) as running:
        call = answered(running.relay.url, "inbound")
        in_time(call, 4_000)
        hang_up(call)
        running.relay.ended(call)
        scraped = numbers(running)
    assert scraped["relay_own_lag_seconds_count",] > 0
    assert scraped["relay_own_lag_seconds_bucket", "60.0"] == scraped["relay_own_lag_seconds_count",]


def test_queues_are_looked_at_when_it_is_asked(store: Store) -> None:
    with serving(store) as running:
        watcher = running.watch()
        watcher.wait_for(lambda: watcher.retry_ms)
        scraped = numbers(running)
    assert scraped["relay_viewers",] == 1
    assert scraped["relay_viewers_waiting_bytes",] == 0
    assert scraped["relay_store_waiting",] == 0
    assert scraped["relay_store_dropped",] == 0
    assert scraped["relay_store_well",] == 1


def test_what_webhooks_have_still_to_be_told_is_looked_at_when_it_is_asked(database: str) -> None:
    endpoints = {"one.example": frozenset({"call.started", "call.ended"}), "other.example": frozenset({"call.ended"})}
    with opened(database, endpoints=endpoints) as store, serving(store) as running:
        reader = Reader(store)
        running.happens(call_info(1), begun(), ended())
        reader.until_ended()
        scraped = numbers(running)
        due = store.due_deliveries("one.example", now_ms())
        store.note_deliveries([Attempt(delivery.id, delivered_at=now_ms(), status=200) for delivery in due])
        later = numbers(running)
    assert scraped["relay_webhooks_waiting", "one.example"] == 2
    assert scraped["relay_webhooks_waiting", "other.example"] == 1
    assert ("relay_webhooks_waiting", "one.example") not in later
    assert later["relay_webhooks_waiting", "other.example"] == 1


def test_a_database_that_does_not_answer_holds_up_no_figure(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SLOW_AFTER", 0.1)
    with opened(postgresql.new_database()) as store, serving(store) as running:
        postgresql.pause()
        try:
            running.happens(call_info(1), begun())
            eventually(lambda: store.trouble)
            with gevent.Timeout(ANSWER_WITHIN - 2):
                assert numbers(running)["relay_store_well",] == 0
        finally:
            postgresql.go_on()
        running.happens(call_info(1), ended())


def test_two_sockets_that_say_they_are_the_same_stream_break_no_count(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    call = call_info(1)
    with serving(store) as running:
        running.happens(call, begun(), MediaReceived(500, 160), MediaReceived(1, 160), ended(20_000))
        assert numbers(running)["relay_frames_total",] >= 1_000
    assert "a listener failed" not in caplog.text


def test_each_server_counts_for_itself(store: Store) -> None:
    with serving(store) as one, serving(store) as other:
        one.happens(call_info(1), begun(), ended())
        assert numbers(one)["relay_streams_total",] == 1
        assert numbers(other)["relay_streams_total",] == 0


def test_one_of_several_workers_names_itself(store: Store) -> None:
    with serving(store, workers=2) as running:
        scraped = numbers(running)
    assert scraped["relay_streams_total", str(os.getpid())] == 0
    assert all(str(os.getpid()) in labels for _, *labels in scraped)


def test_requests_that_are_refused_are_counted(store: Store) -> None:
    with serving(store) as running:
        for status, headers in (
            (401, {}),
            (401, {"Authorization": "Bearer x"}),
            (403, {"Sec-Fetch-Site": "cross-site"}),
        ):
            assert running.ask_as(headers, "/api/calls").status == status
        scraped = numbers(running)
    assert scraped["relay_refused_requests_total", "401"] == 2
    assert scraped["relay_refused_requests_total", "403"] == 1


def test_no_number_no_sid_and_no_word_is_in_a_label(store: Store) -> None:
    call = call_info(123456)
    with serving(store) as running:
        running.happens(call, begun(caller="+15550177"), interim("my pin"), final("is one two three"))
        running.happens(call, Gap(Track.INBOUND, 0, 1_000, "it said secret things"))
        running.happens(call, ServiceLost("Deepgram", "it said secret things", 1.0), ended(reason="secret end"))
        running.happens(None, MediaReceived(1, 160))
        said = running.ask("/metrics").body.decode()
    for secret in ("123456", "5550177", "pin", "three", "secret", "CA0", "MZ0"):
        assert secret not in said


# --- Alive and ready -------------------------------------------------------------------------------------------


def test_it_is_alive_and_ready_for_calls(store: Store) -> None:
    with listening() as speech, serving(store, deepgram(speech)) as running:
        assert running.ask("/healthz").status == 200
        ready = running.ask("/readyz")
        assert ready.status == 200
        assert ready.document == {"ready": True, "why_not": "", "streams": 0, "store": "well"}
        call = answered(running.relay.url, "inbound")
        say(call, 100)
        running.relay.wait_for(lambda: running.switchboard.live)
        assert running.ask("/readyz").document["streams"] == 1
        running.switchboard.answers = False
        leaving = running.ask("/readyz")
        assert (leaving.status, leaving.document["ready"]) == (503, False)
        assert leaving.document["why_not"] == "the server is about to end"
        assert running.ask("/healthz").status == 200
        hang_up(call)
        running.relay.ended(call)


def test_without_a_service_it_is_not_ready(store: Store) -> None:
    with serving(store, why_not="SOME_API_KEY is not set") as running:
        answer = running.ask("/readyz")
    assert (answer.status, answer.document["why_not"]) == (503, "SOME_API_KEY is not set")


def test_a_database_that_is_away_is_told_and_no_reason_against_it(postgresql: Server) -> None:
    store = Store(postgresql.new_database())
    store.open()
    with listening() as speech, serving(store, deepgram(speech)) as running:
        watcher = running.watch()
        postgresql.stop()
        try:
            running.happens(call_info(1), begun(), final("hello"))
            watcher.wait_for_kind("final-unsaved")
            ready = running.ask("/readyz")
            scraped = numbers(running)
        finally:
            postgresql.start()
        watcher.wait_for_kind("segment.final")
        running.happens(call_info(1), ended())
    store.close(10)
    assert ready.status == 200
    assert ready.document["store"] == "in trouble"
    assert scraped["relay_store_well",] == 0
    assert scraped["relay_store_waiting",] > 0

"""When a service fails in mid-call, the next one goes on from the last final, and no word shows the seam."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from relay.events import (
    Gap,
    ServiceBack,
    ServiceConnected,
    ServiceDown,
    ServiceRefused,
    ServiceReplaced,
    Track,
)
from relay.protocol import Limits
from standins.deepgram import CloseFrame, Drop, Fault, ListenServer, Refusal, Rules
from standins.twilio import SimulatedCall
from tests.calling import Relay, answered, hang_up, in_time, relay
from tests.numbered import number_ears, numbered
from tests.talking import BOTH, HASTE, SPEED, Hasty, Heard, deepgram, listening, whole

TENSE = replace(HASTE, answer=0.5, send=2.0)  # a send that waits when this process is held up is not forgiven
BUSY = Fault(refuse=Refusal(503, "BUSY", "Later."))
FAILURES = {
    "refuses the key": [Fault(refuse=Refusal(401, "INVALID_AUTH", "No."))],
    "wants to be paid": [Fault(refuse=Refusal(402, "ASR_PAYMENT_REQUIRED", "No."))],
    "dislikes the request": [Fault(refuse=Refusal(400, "BAD", "No."))],
    "is always busy": [BUSY] * 20,
    "drops again and again": [Fault(drop=Drop(ms, "reset")) for ms in (4_000, 100, 100)] + [BUSY] * 20,
    "closes for good": [Fault(drop=Drop(4_000, CloseFrame(1008, "DATA-0000")))],
    "goes silent": [Fault(drop=Drop(4_000, "mute"))],
    "stands still": [Fault(drop=Drop(4_000, "abandon"))],
}


def second(server: ListenServer, **traits: Any) -> Hasty:
    """Another service, for all the relay knows."""
    return Hasty(deepgram(server)._service, name="Second", word="second", **traits)


def replacements(heard: Heard) -> list[ServiceReplaced]:
    return [event for event in heard.of(ServiceReplaced) if isinstance(event, ServiceReplaced)]


@pytest.mark.parametrize("faults", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("tracks_of_second", [2, 1])
@pytest.mark.parametrize("together", ["together", "apart"])
def test_the_next_service_goes_on_from_the_last_final(
    faults: list[Fault], tracks_of_second: int, together: str
) -> None:
    faults = faults * 2 if together == "apart" else faults  # one for each track
    with listening(*faults) as first, listening() as other:
        fallback = second(other, tracks=tracks_of_second)
        with relay(deepgram(first), fallbacks=[fallback], patience=TENSE, tracks=together) as running:
            call = answered(running.url)
            in_time(call, 10_000)
            hang_up(call)
            end = running.ended(call)
    heard = running.of(call)
    for track in BOTH:
        assert heard.frames(track) == whole(10_000)
    assert end.lost_ms == 0
    assert not heard.of(Gap, ServiceRefused)
    assert {(event.service, event.by) for event in replacements(heard)} == {("Deepgram", "Second")}
    assert len(replacements(heard)) == (2 if together == "apart" else 1)


def test_a_failure_of_one_track_leaves_the_other_where_it_is() -> None:
    """Each track has its own connection; only the first one that comes is refused."""
    with listening(Fault(refuse=Refusal(400, "BAD", "No."))) as first, listening() as other:
        with relay(deepgram(first), fallbacks=[second(other)], patience=TENSE, tracks="apart") as running:
            call = answered(running.url)
            in_time(call, 4_000)
            hang_up(call)
            running.ended(call)
            assert len(other.connections) == 1
    heard = running.of(call)
    for track in BOTH:
        assert heard.frames(track) == whole(4_000)
    assert len(replacements(heard)) == 1


def test_the_service_may_fail_after_the_last_word() -> None:
    with listening(Fault(on_end="ignore"), Fault(on_end="ignore")) as first, listening() as other:
        with relay(deepgram(first), fallbacks=[second(other)], patience=TENSE) as running:
            call = answered(running.url)
            in_time(call, 4_000)
            hang_up(call)
            running.ended(call)
    for track in BOTH:
        assert running.of(call).frames(track) == whole(4_000)


def test_when_nobody_will_have_the_call_it_goes_on_and_the_gap_is_named() -> None:
    no = Fault(refuse=Refusal(401, "INVALID_AUTH", "No."))
    with listening(no) as first, listening(no) as other:
        with relay(deepgram(first), fallbacks=[second(other)]) as running:
            call = answered(running.url)
            in_time(call, 2_000)
            hang_up(call)
            end = running.ended(call)
    heard = running.of(call)
    assert end.reason == "stop"
    assert end.lost_ms == 4_000
    assert [heard.missing(track) for track in BOTH] == [set(whole(2_000))] * 2


# --- What the next call finds ----------------------------------------------------------------------------------


def names_heard(running: Relay, call: SimulatedCall) -> set[str]:
    """The services that heard a call."""
    return {event.service for event in running.of(call).of(ServiceConnected) if isinstance(event, ServiceConnected)}


def quick_call(running: Relay) -> SimulatedCall:
    call = answered(running.url)
    in_time(call, 1_000)
    hang_up(call)
    running.ended(call)
    return call


def changes(running: Relay, kind: type) -> Callable[[], bool]:
    return lambda: any(isinstance(happened.event, kind) for happened in running.told)


def test_a_service_that_is_down_is_left_alone_until_a_probe_finds_it_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.provider.PROBE_FIRST", 0.3)
    monkeypatch.setattr("relay.provider.PROBE_MOST", 0.3)
    is_well = Event()
    rules, faults = Rules(pace=1.25 * SPEED), lambda number: None if is_well.is_set() else BUSY
    with ListenServer(ear=number_ears(), rules=rules, faults=faults) as first, listening() as other:
        with relay(deepgram(first), fallbacks=[second(other)]) as running:
            quick_call(running)
            assert changes(running, ServiceDown)()
            call = quick_call(running)
            assert names_heard(running, call) == {"Second"}
            assert not any(call.call_sid in connection.path for connection in first.connections), "but by probes"
            is_well.set()
            running.wait_for(changes(running, ServiceBack))
            assert names_heard(running, quick_call(running)) == {"Deepgram"}
        assert first.violations == []
    downs = [happened for happened in running.told if isinstance(happened.event, ServiceDown)]
    assert len(downs) == 1


@pytest.mark.parametrize("status", [400, 404])
def test_our_own_mistake_does_not_count_against_a_service(status: int) -> None:
    with listening(Fault(refuse=Refusal(status, "BAD", "No."))) as first, listening() as other:
        with relay(deepgram(first), fallbacks=[second(other)]) as running:
            assert names_heard(running, quick_call(running)) == {"Second"}
            assert names_heard(running, quick_call(running)) == {"Deepgram"}
    assert not changes(running, ServiceDown)()


def test_normal_ends_do_not_count_against_a_service() -> None:
    with listening() as first, listening() as other:
        with relay(deepgram(first), fallbacks=[second(other)]) as running:
            for _ in range(3):
                assert names_heard(running, quick_call(running)) == {"Deepgram"}
            call = answered(running.url)
            call.say("inbound", numbered(Track.INBOUND, 0, 20), at_ms=0)
            call.close()
            running.ended(call)
    assert not changes(running, ServiceDown)()


def test_a_full_service_is_not_asked_for_more() -> None:
    with listening() as first, listening() as other:
        limited = Hasty(deepgram(first)._service, Limits(connections=1))
        with relay(limited, fallbacks=[second(other)]) as running:
            one = answered(running.url)
            running.wait_for(lambda: names_heard(running, one))
            two = answered(running.url)
            running.wait_for(lambda: names_heard(running, two))
            for call in (one, two):
                in_time(call, 1_000)
                hang_up(call)
                running.ended(call)
            assert len(first.connections) == len(other.connections) == 1
    assert (names_heard(running, one), names_heard(running, two)) == ({"Deepgram"}, {"Second"})


def test_new_sessions_in_a_minute_are_counted() -> None:
    with listening() as first, listening() as other:
        limited = Hasty(deepgram(first)._service, Limits(connections=10, sessions_per_minute=2))
        with relay(limited, fallbacks=[second(other)]) as running:
            heard_by = [names_heard(running, quick_call(running)) for _ in range(3)]
    assert heard_by == [{"Deepgram"}, {"Deepgram"}, {"Second"}]


# --- Under load ------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_hundred_calls_survive_the_death_of_their_service() -> None:
    """The first service dies at a random moment of each call, and comes back later."""
    calls_at_once, length_ms = 100, 6_000
    patient = replace(HASTE, answer=60, drain=60)  # so much work takes a while on a slow machine
    first = ListenServer(ear=number_ears(), rules=Rules(pace=1.25 * SPEED))
    first.start()
    port = int(first.url.rpartition(":")[2])
    with listening() as other, relay(deepgram(first), fallbacks=[second(other)], patience=patient) as running:

        def one_call(after_s: float) -> SimulatedCall:
            gevent.sleep(after_s)
            call = answered(running.url)
            in_time(call, length_ms)
            hang_up(call)
            return call

        spread = random.Random(4)
        calls = [gevent.spawn(one_call, spread.uniform(0, 1.0)) for _ in range(calls_at_once)]
        running.wait_for(lambda: len(running.heard) > calls_at_once / 2, within=60)
        first.stop()
        running.wait_for(changes(running, ServiceReplaced), within=60)
        with ListenServer(ear=number_ears(), rules=Rules(pace=1.25 * SPEED), port=port):
            gevent.joinall(calls, timeout=200, raise_error=True)
            made = [call.value for call in calls if call.value is not None]
            ends = [running.ended(call, within=60) for call in made]
    replaced = 0
    for call, end in zip(made, ends, strict=True):
        heard = running.of(call)
        replaced += bool(replacements(heard))
        assert end.lost_ms == 0
        for track in BOTH:
            assert heard.frames(track) == whole(length_ms)
    assert replaced > 0


# --- What a stream may ask for ---------------------------------------------------------------------------------


def asking(running: Relay, **parameters: str) -> SimulatedCall:
    call = SimulatedCall(running.url, parameters=parameters)
    call.open()
    call.start()
    in_time(call, 1_000)
    hang_up(call)
    running.ended(call)
    return call


def test_a_stream_may_ask_for_a_service_a_language_and_terms() -> None:
    with listening() as first, listening() as other, relay(deepgram(first), on_request=[second(other)]) as running:
        call = asking(running, service="second", language="de", keyterms="Harbor Books, Elm Street")
        assert names_heard(running, call) == {"Second"}
        (connection,) = other.connections
        assert "language=de" in connection.path
        assert "keyterm=Harbor+Books&keyterm=Elm+Street" in connection.path


@pytest.mark.parametrize(
    "parameters",
    [{"service": "nobody"}, {"language": "<script>"}, {"keyterms": "a\nb"}, {"service": ""}, {"language": ""}],
)
def test_what_cannot_be_had_is_not_and_the_call_is_heard_all_the_same(
    parameters: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as first, relay(deepgram(first)) as running:
        call = asking(running, **parameters)
        assert names_heard(running, call) == {"Deepgram"}
        assert "language=en" in first.connections[0].path
    assert "<script>" not in caplog.text
    assert "nobody" not in caplog.text


def test_several_services_hear_a_call_side_by_side() -> None:
    with listening() as first, listening() as other, relay(deepgram(first), second(other)) as running:
        call = quick_call(running)
    told = [happened for happened in running.told if happened.call and happened.call.stream_sid == call.stream_sid]
    for name in ("Deepgram", "Second"):
        alone = Heard([happened.event for happened in told if happened.service == name])
        for track in BOTH:
            assert alone.frames(track) == whole(1_000)

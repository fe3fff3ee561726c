"""What every speech service must do for a call, whichever it is: each against a stand-in that insists on its rules."""

from __future__ import annotations

import os
from dataclasses import replace

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import Denied, Lost, Unavailable
from relay.events import Gap, ServiceLost, ServiceRefused, Transcript
from relay.provider import Provider
from standins.faults import CloseFrame, Drop, Fault, Refusal
from standins.twilio import SimulatedCall
from tests.calling import Relay, answered, hang_up, in_time, relay
from tests.numbered import number_ears
from tests.talking import BOTH, HASTE, Heard, whole
from tests.vendors import VENDORS, Vendor

TENSE = replace(HASTE, answer=0.5, send=0.5)
EXAMPLES = int(os.environ.get("DROP_EXAMPLES", "6"))


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return VENDORS[request.param]


def call_of(running: Relay, length_ms: int) -> SimulatedCall:
    """A call of both tracks, from its start to its end."""
    call = answered(running.url)
    in_time(call, length_ms)
    hang_up(call)
    running.ended(call, within=60)
    return call


def transcripts(heard: Heard) -> list[Transcript]:
    return [event for event in heard.events if isinstance(event, Transcript)]


def assert_whole(heard: Heard, length_ms: int) -> None:
    """Every frame of both tracks was heard once, in order and in time."""
    for track in BOTH:
        assert heard.frames(track) == whole(length_ms)
    assert not heard.of(Gap)


def test_a_call_is_heard_from_its_first_frame_to_its_last(vendor: Vendor) -> None:
    with vendor.listening() as server, relay(vendor.at(server)) as running:
        call = call_of(running, 10_000)
        server.wait_for(lambda: all(connection.is_over for connection in server.connections), within=10)
        assert {connection.close_code for connection in server.connections} == {1000}
    assert_whole(running.of(call), 10_000)


def test_interims_come_while_people_still_speak(vendor: Vendor) -> None:
    ear = number_ears(final_ms=5000, interim_ms=500)
    with vendor.listening(ear=ear) as server, relay(vendor.at(server)) as running:
        call = call_of(running, 10_000)
    for track in BOTH:
        said = [event for event in transcripts(running.of(call)) if event.track is track and event.text]
        assert said[0].is_final is False
        assert [event.is_final for event in said].count(False) >= 2
    assert_whole(running.of(call), 10_000)


def test_the_last_words_come_although_they_come_late(vendor: Vendor) -> None:
    late = Fault(answer_late_s=0.3)
    with vendor.listening(late, late) as server, relay(vendor.at(server)) as running:
        call = call_of(running, 2_340)
    assert_whole(running.of(call), 2_340)


def test_each_call_has_a_conversation_of_its_own(vendor: Vendor) -> None:
    with vendor.listening() as server, relay(vendor.at(server)) as running:
        calls = [gevent.spawn(call_of, running, 3_000) for _ in range(3)]
        gevent.joinall(calls, raise_error=True)
    for call in calls:
        assert call.value is not None
        assert_whole(running.of(call.value), 3_000)


@pytest.mark.parametrize("ms", [0, 400, 1_700, 4_980])
@pytest.mark.parametrize("how", ["reset", CloseFrame(1011, "trouble"), CloseFrame(1001, "")], ids=str)
def test_a_lost_connection_loses_and_doubles_nothing(vendor: Vendor, ms: int, how: str) -> None:
    drop = Fault(drop=Drop(ms, how))  # type: ignore[arg-type]
    with vendor.listening(drop, drop) as server, relay(vendor.at(server)) as running:
        call = call_of(running, 8_000)
        assert len(server.connections) > 1
    assert_whole(running.of(call), 8_000)


@pytest.mark.parametrize("how", ["mute", "abandon"])
def test_a_service_that_goes_silent_is_connected_to_anew(vendor: Vendor, how: str) -> None:
    drop = Fault(drop=Drop(2_000, how))  # type: ignore[arg-type]
    with vendor.listening(drop, drop) as server, relay(vendor.at(server), patience=TENSE, replay_s=300) as running:
        call = call_of(running, 80_000)
        assert running.of(call).of(ServiceLost)
    assert_whole(running.of(call), 80_000)


@pytest.mark.parametrize("how", ["reset", "ignore"])
def test_a_connection_lost_at_the_end_loses_nothing(vendor: Vendor, how: str) -> None:
    fault = Fault(on_end=how)  # type: ignore[arg-type]
    with vendor.listening(fault, fault) as server, relay(vendor.at(server), patience=TENSE) as running:
        call = call_of(running, 3_000)
    assert_whole(running.of(call), 3_000)


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_is_busy_is_tried_again(vendor: Vendor, status: int) -> None:
    busy = Fault(refuse=Refusal(status, "BUSY", "Later."))
    with vendor.listening(busy, busy, busy) as server, relay(vendor.at(server)) as running:
        call = call_of(running, 3_000)
        assert running.of(call).of(ServiceLost)
    assert_whole(running.of(call), 3_000)


def test_a_wrong_key_is_told_by_the_name_of_its_variable(vendor: Vendor) -> None:
    with vendor.listening(key="another") as server, relay(vendor.at(server, "a-wrong-key")) as running:
        call = call_of(running, 1_000)
    refusals = running.of(call).of(ServiceRefused)
    assert refusals
    for refused in refusals:
        assert isinstance(refused, ServiceRefused)
        assert vendor.key_variable in refused.reason
        assert "a-wrong-key" not in refused.reason
    for track in BOTH:
        assert running.of(call).missing(track) == set(whole(1_000))


def test_nonsense_is_survived(vendor: Vendor) -> None:
    nonsense = Fault(garbage=True)
    with vendor.listening(nonsense, nonsense) as server, relay(vendor.at(server)) as running:
        call = call_of(running, 5_000)
    assert_whole(running.of(call), 5_000)


def test_a_pause_in_the_stream_keeps_times_right(vendor: Vendor) -> None:
    with vendor.listening() as server, relay(vendor.at(server, idle_after_s=0.05)) as running:
        call = answered(running.url)
        in_time(call, 2_000)
        gevent.sleep(0.3)  # Twilio sends nothing; the service is kept busy
        in_time(call, 2_000, at_ms=60_000)
        hang_up(call)
        running.ended(call)
    for track in BOTH:
        assert running.of(call).frames(track) == [*whole(2_000), *(3_000 + n for n in whole(2_000))]


def test_a_probe_tells_a_service_that_is_well_from_one_that_is_not(vendor: Vendor) -> None:
    with vendor.listening(key="right") as server:
        Provider(vendor.at(server, "right"), patience=HASTE).probe()
        with pytest.raises(Denied):
            Provider(vendor.at(server, "wrong"), patience=HASTE).probe()
    with vendor.listening(Fault(refuse=Refusal(503, "BUSY", "Later."))) as server:
        with pytest.raises((Unavailable, Lost)):
            Provider(vendor.at(server), patience=HASTE).probe()


hows = st.sampled_from(["reset", "reset", "mute", "abandon", CloseFrame(1011, "trouble")])
faults = st.one_of(
    st.builds(Fault, drop=st.builds(Drop, after_ms=st.integers(0, 9_000), how=hows)),
    st.builds(Fault, refuse=st.builds(Refusal, st.sampled_from([429, 503]), st.just("BUSY"), st.just("Later."))),
    st.builds(Fault, on_end=st.sampled_from(["reset", "ignore"])),
)


@pytest.mark.parametrize("name", VENDORS)
@settings(max_examples=EXAMPLES, derandomize=EXAMPLES <= 6)
@given(
    schedule=st.lists(faults, max_size=5),
    frames=st.integers(1, 500),
    finals=st.sampled_from([300, 3000, range(100, 5000, 20)]),
    seed=st.integers(0, 1000),
)
def test_any_schedule_of_drops_loses_and_doubles_nothing(
    name: str, schedule: list[Fault], frames: int, finals: int | range, seed: int
) -> None:
    vendor = VENDORS[name]
    patience = replace(HASTE, answer=0.4, send=0.4)
    with vendor.listening(*schedule, ear=number_ears(final_ms=finals, seed=seed)) as server:
        with relay(vendor.at(server), patience=patience) as running:
            call = call_of(running, frames * 20)
    assert_whole(running.of(call), frames * 20)

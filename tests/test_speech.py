"""The carrier against a strict stand-in for Deepgram: nothing is lost, whatever happens to the connection."""

from __future__ import annotations

from dataclasses import replace

import gevent
import pytest

from relay.events import (
    Complained,
    Gap,
    Malformed,
    ServiceConnected,
    ServiceLost,
    ServiceRefused,
    Track,
    Transcript,
)
from relay.speech import State, backoff
from standins.deepgram import CloseFrame, Drop, Fault, ListenServer, Refusal, Rules
from tests.numbered import number_ears
from tests.talking import BOTH, HASTE, SPEED, Heard, client_for, listening, pieces, speak, whole

ONE = (Track.INBOUND,)


@pytest.mark.parametrize("tracks", [ONE, BOTH])
def test_every_frame_is_heard_once_and_in_order(tracks: tuple[Track, ...]) -> None:
    with listening() as server:
        heard = Heard()
        client = client_for(server, heard, tracks)
        speak(client, tracks, 20_000)
        client.close()
    for track in tracks:
        assert heard.frames(track) == whole(20_000)
    assert client.state is State.OVER
    assert client.tally.lost_ms == 0
    assert client.tally.connections == 1
    assert client.tally.words == len(tracks) * 1000


def test_interims_come_before_their_finals_and_delays_are_measured() -> None:
    with listening(ear=number_ears(final_ms=5000, interim_ms=1000)) as server:
        heard = Heard()
        client = client_for(server, heard, ONE)
        speak(client, ONE, 10_000)
        client.close()
    kinds = [event.is_final for event in heard.of(Transcript) if isinstance(event, Transcript) and event.text]
    assert kinds[0] is False
    assert kinds.count(False) >= 6
    assert len(client.tally.interim_delays) >= 6
    assert all(delay >= 0 for delay in client.tally.interim_delays)


def test_audio_goes_out_in_whole_chunks_and_the_end_behind_it() -> None:
    with listening() as server:
        client = client_for(server, Heard(), BOTH)
        for piece in pieces(BOTH, 0, 1050 // 20 * 20):
            client.send(piece)
        client.close()
        (connection,) = server.connections
        server.wait_for(lambda: connection.is_over, within=30)
    assert connection.audio_bytes == 1040 * 16
    assert connection.audio_messages == 11  # ten of 100 ms and the rest
    assert connection.texts == ['{"type":"CloseStream"}']
    assert connection.close_code == 1000


def test_last_words_at_hang_up_come_although_they_come_late() -> None:
    with listening(Fault(answer_late_s=0.3)) as server:
        heard = Heard()
        client = client_for(server, heard, BOTH)
        speak(client, BOTH, 2_000)
        client.close()
    assert heard.frames(Track.OUTBOUND) == whole(2_000)


PHASES = {
    "as soon as it is open": Drop(0, "reset"),
    "after the first words": Drop(700, "reset"),
    "amid speech": Drop(7_400, "reset"),
    "in good order": Drop(7_400, CloseFrame(1000, "")),
    "for a reason of its own": Drop(7_400, CloseFrame(1011, "NET-0000")),
    "going away": Drop(7_400, CloseFrame(1001, "")),
}


@pytest.mark.parametrize("tracks", [ONE, BOTH])
@pytest.mark.parametrize("drop", PHASES.values(), ids=PHASES.keys())
def test_no_word_is_lost_or_doubled_when_the_connection_is_lost(drop: Drop, tracks: tuple[Track, ...]) -> None:
    with listening(Fault(drop=drop)) as server:
        heard = Heard()
        client = client_for(server, heard, tracks)
        speak(client, tracks, 15_000)
        client.close()
        assert len(server.connections) == 2
    for track in tracks:
        assert heard.frames(track) == whole(15_000)
    assert client.tally.lost_ms == 0
    assert len(heard.of(ServiceLost)) == 1


def test_tracks_whose_finals_end_apart_are_replayed_apart() -> None:
    """One track's finals reach further than the other's at every drop: the further one is silence in the replay."""
    ears = number_ears(final_ms=range(400, 4000, 20), seed=7)
    drops = [Fault(drop=Drop(3_000 + 500 * n, "reset")) for n in range(5)]
    with listening(*drops, ear=ears) as server:
        heard = Heard()
        client = client_for(server, heard, BOTH)
        speak(client, BOTH, 30_000)
        client.close()
        assert len(server.connections) == 6
    for track in BOTH:
        assert heard.frames(track) == whole(30_000)


@pytest.mark.parametrize("how", ["reset", "cut", "ignore"])
def test_last_words_come_although_the_connection_is_lost_while_waiting_for_them(how: str) -> None:
    patience = replace(HASTE, answer=1.0)
    fault = Fault(on_end=how)  # type: ignore[arg-type]
    with listening(fault) as server:
        heard = Heard()
        client = client_for(server, heard, ONE, patience=patience)
        speak(client, ONE, 5_500)
        client.close()
        connections = len(server.connections)
    if how == "cut":  # Metadata came: the service said it was done, and nothing can be known to be missing
        assert connections == 1
        assert heard.frames(Track.INBOUND) == list(range(150))
    else:
        assert connections == 2
        assert heard.frames(Track.INBOUND) == whole(5_500)


@pytest.mark.parametrize("how", ["mute", "abandon"])
def test_a_service_that_takes_audio_and_answers_nothing_is_left(how: str) -> None:
    patience = replace(HASTE, answer=0.5, send=0.5)
    with listening(Fault(drop=Drop(4_000, how))) as server:  # type: ignore[arg-type]
        heard = Heard()
        client = client_for(server, heard, BOTH, patience=patience)
        speak(client, BOTH, 20_000)
        lost = heard.wait_for(ServiceLost)
        speak(client, BOTH, 20_000, start_ms=20_000)
        client.close()
    assert isinstance(lost, ServiceLost)
    assert "answered nothing" in lost.reason or "takes no more" in lost.reason
    for track in BOTH:
        assert heard.frames(track) == whole(40_000)


def test_a_line_that_is_dead_but_not_closed_is_found_out_by_ping() -> None:
    patience = replace(HASTE, ping_after=0.1, pong=0.3)
    with listening(Fault(no_pong=True)) as server:
        heard = Heard()
        client = client_for(server, heard, ONE, patience=patience)
        for piece in pieces(ONE, 0, 80):  # less than a chunk: nothing is sent, and nobody answers
            client.send(piece)
        lost = heard.wait_for(ServiceLost)
        client.close()
    assert isinstance(lost, ServiceLost)
    assert "ping" in lost.reason
    assert heard.frames(Track.INBOUND) == whole(80)


def test_a_pause_is_kept_alive_and_times_go_on_from_the_audio() -> None:
    """The service counts the audio it is sent; what it is sent to stay open must not move the call's clock."""
    with listening() as server:
        heard = Heard()
        client = client_for(server, heard, ONE)
        client._traits = replace(client._traits, idle_after_s=0.2)
        connected = heard.wait_for(ServiceConnected)
        server.wait_for(lambda: server.connections[0].texts.count('{"type":"KeepAlive"}') >= 3, within=30)
        first_silence_ms = server.connections[0].audio_ms
        speak(client, ONE, 4_000)
        client.close()
    assert isinstance(connected, ServiceConnected)
    assert first_silence_ms == 100
    assert heard.frames(Track.INBOUND) == whole(4_000)


def test_a_long_gap_is_left_out_and_times_after_it_are_the_calls() -> None:
    with listening() as server:
        heard = Heard()
        client = client_for(server, heard, BOTH)
        speak(client, BOTH, 2_000)
        speak(client, BOTH, 2_000, start_ms=600_000)
        client.close()
        assert server.connections[0].audio_ms == 4_000
    for track in BOTH:
        assert heard.frames(track) == [*whole(2_000), *(30_000 + n for n in whole(2_000))]
    assert client.tally.lost_ms == 0


def test_a_pause_after_a_few_words_is_not_taken_for_a_dead_service() -> None:
    """Too little audio for an answer, and then none: whoever is sent no audio owes no answer."""
    with listening() as server:
        heard = Heard()
        client = client_for(server, heard, ONE, patience=replace(HASTE, answer=1.5))
        client._traits = replace(client._traits, idle_after_s=0.1)
        speak(client, ONE, 300)
        server.wait_for(lambda: server.connections[0].texts.count('{"type":"KeepAlive"}') >= 25, within=30)
        client.close()
        assert len(server.connections) == 1
    assert heard.frames(Track.INBOUND) == whole(300)


def test_attempts_do_not_quicken_because_audio_is_dropped() -> None:
    """Only what was heard starts the back-off anew: an outage longer than the replay must not end in a storm."""
    busy = Fault(refuse=Refusal(503, "BUSY", "Later."))
    with listening(*[busy] * 30) as server:
        heard = Heard()
        patience = replace(HASTE, retry_first=0.01, retry_most=100, drain=0.1)
        client = client_for(server, heard, ONE, patience=patience, replay_s=1)
        while len(heard.of(ServiceLost)) < 6:
            speak(client, ONE, 5_000)
        delays = [event.retry_in_s for event in heard.of(ServiceLost) if isinstance(event, ServiceLost)]
        client.close()
    assert all(
        later > earlier for earlier, later in zip(delays, delays[2:], strict=False)
    )  # doubled twice, less chance


# --- What cannot be had ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404])
def test_a_refusal_is_final_and_told_with_its_reason(status: int) -> None:
    refusal = Refusal(status, "NO", "Not for you.")
    with listening(Fault(refuse=refusal)) as server:
        heard = Heard()
        client = client_for(server, heard, BOTH)
        speak(client, BOTH, 2_000)
        client.close()
        assert len(server.connections) == 1
    refused = heard.wait_for(ServiceRefused)
    assert isinstance(refused, ServiceRefused)
    assert str(status) in refused.reason
    assert "Not for you." in refused.reason
    assert [(gap.start_ms, gap.end_ms) for gap in heard.of(Gap) if isinstance(gap, Gap)] == [(0, 2_000)] * 2
    assert client.tally.lost_ms == 4_000


def test_a_wrong_key_is_refused() -> None:
    with listening(key="another") as server:
        heard = Heard()
        client = client_for(server, heard, ONE)
        refused = heard.wait_for(ServiceRefused)
        client.close()
    assert isinstance(refused, ServiceRefused)
    assert "DEEPGRAM_API_KEY" in refused.reason


def test_audio_that_cannot_be_read_is_final() -> None:
    with listening(Fault(drop=Drop(500, CloseFrame(1008, "DATA-0000")))) as server:
        heard = Heard()
        client = client_for(server, heard, ONE)
        speak(client, ONE, 3_000)
        client.close()
        assert len(server.connections) == 1
    assert client.tally.lost_ms > 0
    refused = heard.wait_for(ServiceRefused)
    assert isinstance(refused, ServiceRefused)
    assert "DATA-0000" in refused.reason


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_and_nothing_is_lost(status: int) -> None:
    busy = Fault(refuse=Refusal(status, "BUSY", "Come back later."))
    with listening(busy, busy, busy) as server:
        heard = Heard()
        client = client_for(server, heard, BOTH)
        speak(client, BOTH, 5_000)
        client.close()
        assert len(server.connections) == 4
    for track in BOTH:
        assert heard.frames(track) == whole(5_000)
    lost = [event for event in heard.of(ServiceLost) if isinstance(event, ServiceLost)]
    assert len(lost) == 3
    assert all(str(status) in event.reason and "Come back later." in event.reason for event in lost)


def test_what_exceeds_the_bound_is_counted_and_named() -> None:
    with listening() as server:
        url = server.url
    heard = Heard()
    client = client_for(server, heard, BOTH, replay_s=2)  # nobody listens there any more
    for piece in pieces(BOTH, 0, 10_000):
        client.send(piece)
    heard.wait_for(ServiceLost)
    port = int(url.rpartition(":")[2])
    with ListenServer(ear=number_ears(), rules=Rules(pace=1.25 * SPEED), port=port):
        heard.wait_for(ServiceConnected)
        client.close()
    for track in BOTH:
        assert heard.missing(track) == set(range(400))
        assert heard.frames(track) == list(range(400, 500))
    assert client.tally.lost_ms == 2 * 8_000
    reasons = {gap.reason for gap in heard.of(Gap) if isinstance(gap, Gap)}
    assert reasons == {"Deepgram was away for longer than the 2 s of audio kept"}


def test_a_call_may_end_while_nobody_listens_and_what_is_lost_is_named() -> None:
    with listening() as server:
        pass
    heard = Heard()
    client = client_for(server, heard, ONE, patience=replace(HASTE, drain=0.2))
    speak(client, ONE, 1_000)
    client.close()
    assert client.state is State.OVER
    assert client.tally.lost_ms == 1_000
    (gap,) = heard.of(Gap)
    assert gap == Gap(Track.INBOUND, 0, 1_000, "Deepgram did not finish in time")


def test_nonsense_from_the_service_is_survived() -> None:
    with listening(Fault(garbage=True)) as server:
        heard = Heard()
        client = client_for(server, heard, BOTH)
        speak(client, BOTH, 5_000)
        client.close()
    assert heard.of(Malformed)
    for track in BOTH:
        assert heard.frames(track) == whole(5_000)


def test_no_audio_at_all_ends_well() -> None:
    with listening() as server:
        heard = Heard()
        client = client_for(server, heard, ONE)
        heard.wait_for(ServiceConnected)
        client.close()
        server.wait_for(lambda: server.connections[0].close_code == 1000, within=30)
    assert client.tally.lost_ms == 0
    assert not heard.of(Gap, Complained)


def test_a_client_that_never_connects_lets_go_at_once_when_there_is_nothing_to_hear() -> None:
    with listening() as server:
        pass
    client = client_for(server, Heard(), ONE, patience=replace(HASTE, drain=30, retry_most=0.05))
    with gevent.Timeout(25):
        client.close()


# --- The pace, and the other rules -----------------------------------------------------------------------------


def test_a_backlog_is_sent_no_faster_than_the_service_allows() -> None:
    """The stand-in closes when more than 1.25 times real time comes, and `listening` checks that it never had to."""
    rules = Rules(pace=1.25 * SPEED, pace_window_s=0.1, pace_slack_s=0.25)
    with listening(rules=rules) as server:
        heard = Heard()
        client = client_for(server, heard, BOTH)
        for piece in pieces(BOTH, 0, 50_000):
            client.send(piece)
        client.close()
    for track in BOTH:
        assert heard.frames(track) == whole(50_000)


def test_the_call_and_the_options_go_along() -> None:
    with listening() as server:
        client = client_for(server, Heard(), BOTH, keyterm=("Harbor Books",), utterance_end_ms=1000)
        client.close()
        path = server.connections[0].path
    for asked in ("tag=CA0000", "extra=call_sid%3ACA0000", "keyterm=Harbor+Books", "utterance_end_ms=1000"):
        assert asked in path


def test_backoff_doubles_is_bounded_and_never_the_same_for_all() -> None:
    delays = backoff(0.25, 10.0)
    firsts = [next(delays) for _ in range(20)]
    for bound, delay in zip([0.25, 0.5, 1, 2, 4, 8, *[10.0] * 14], firsts, strict=True):
        assert bound / 2 <= delay <= bound
    assert len(set(firsts)) == 20

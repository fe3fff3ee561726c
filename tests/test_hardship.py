"""Hard times that are nobody's fault, or one service's alone: who is blamed for them, and that no word is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gevent
import pytest
from gevent import monkey
from hypothesis import given
from hypothesis import strategies as st

from assemblyai_client import AssemblyAI, AssemblyAISettings
from deepgram_client import Deepgram, DeepgramSettings
from relay.audio import SAMPLES_PER_MS, Piece, silence
from relay.events import (
    CallResult,
    Complained,
    Gap,
    ServiceDown,
    ServiceLost,
    ServiceReplaced,
    Track,
)
from relay.protocol import Limits
from relay.replay import Loss, ReplayBuffer
from relay.speech import SpeechClient
from standins.deepgram import CloseFrame, Drop, Fault, Refusal
from standins.ear import Ear, EarOptions, Phrase
from standins.ear import Heard as HeardByEar
from standins.twilio import SimulatedCall
from tests.calling import Relay, answered, hang_up, in_time, relay
from tests.numbered import NOISE, number_ears, numbered
from tests.program import running as started
from tests.talking import BOTH, FRAME_MS, HASTE, SPEED, Hasty, Heard, client_of, deepgram, listening, speak, whole
from tests.test_failover import BUSY, TENSE, asking, changes, names_heard, replacements, second
from tests.vendors import VENDORS

AT_ONCE_MS: Final = 100  # of audio, between two moments of sleep
A_FRAME: Final = FRAME_MS * SAMPLES_PER_MS
SILENCE: Final = silence(A_FRAME)
MUSIC: Final = bytes((0x20,)) * A_FRAME  # loud, and no word
NO: Final = Fault(refuse=Refusal(400, "BAD", "No."))
NO_GOODBYE: Final = Fault(on_end="ignore")
TERMINATE: Final = '{"type":"Terminate"}'

ASSEMBLYAI: Final = VENDORS["assemblyai"]
GLADIA: Final = VENDORS["gladia"]


def play(call: SimulatedCall, frame: bytes, length_ms: int, *, at_ms: int = 0) -> None:
    """The same frame on every track, again and again, at the hurried clock's real time."""
    for ms in range(at_ms, at_ms + length_ms, AT_ONCE_MS):
        for track in call.tracks:
            call.say(track, frame * (AT_ONCE_MS // FRAME_MS), at_ms=ms)
        gevent.sleep(AT_ONCE_MS / 1000 / SPEED)


def only_the_caller_speaks(call: SimulatedCall, length_ms: int, *, at_ms: int = 0) -> None:
    """Numbered audio on one track and silence on the other, at the hurried clock's real time."""
    for ms in range(at_ms, at_ms + length_ms, AT_ONCE_MS):
        call.say("inbound", numbered(Track.INBOUND, ms, AT_ONCE_MS), at_ms=ms)
        call.say("outbound", silence(AT_ONCE_MS * SAMPLES_PER_MS), at_ms=ms)
        gevent.sleep(AT_ONCE_MS / 1000 / SPEED)


def blamed(running: Relay) -> list[object]:
    """What was told of services that were left, or taken for down."""
    return [happened.event for happened in running.told if isinstance(happened.event, ServiceDown | ServiceReplaced)]


def assert_whole(running: Relay, call: SimulatedCall, length_ms: int) -> None:
    """Every frame of every track was heard once and in order, and none was told to be lost."""
    for track in call.tracks:
        assert running.of(call).frames(track) == whole(length_ms)
    assert not running.of(call).of(Gap)


# --- Music -------------------------------------------------------------------------------------------------------


def no_ear_for_music(options: EarOptions, emit: Callable[[HeardByEar], None]) -> Ear:
    """Hears numbers, and in all else no word."""

    def emit_words(heard: HeardByEar) -> None:
        if isinstance(heard, Phrase):
            heard = replace(heard, words=tuple(word for word in heard.words if word.text != NOISE))
        emit(heard)

    return number_ears(final_ms=1_000)(options, emit_words)


def test_music_on_hold_is_not_deafness(monkeypatch: pytest.MonkeyPatch) -> None:
    """AssemblyAI answers words alone: whether it is deaf or there are none shows when it is asked, now and then."""
    monkeypatch.setattr("relay.speech.DEAF_AFTER", 0.02)  # of `HASTE.answer`: 5 s of the hurried clock
    with ASSEMBLYAI.listening(ear=no_ear_for_music) as server, listening() as other:
        with relay(ASSEMBLYAI.at(server), fallbacks=[second(other)]) as running:
            call = answered(running.url, "inbound")
            play(call, MUSIC, 25_000)
            in_time(call, 5_000, at_ms=25_000)
            hang_up(call)
            end = running.ended(call)
        assert all(connection.texts == [TERMINATE] for connection in server.connections)
    heard = running.of(call)
    assert heard.frames(Track.INBOUND) == [25_000 // FRAME_MS + n for n in whole(5_000)]
    assert end.lost_ms == 0
    assert not heard.of(ServiceLost)
    assert not blamed(running)


def test_music_on_hold_does_not_flood_a_service_with_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session is given twice the time of the one before: 5 s, 10 s, and what is left."""
    monkeypatch.setattr("relay.speech.DEAF_AFTER", 0.02)  # of `HASTE.answer`: 5 s of the hurried clock
    with ASSEMBLYAI.listening(ear=no_ear_for_music) as server, relay(ASSEMBLYAI.at(server)) as running:
        call = answered(running.url, "inbound")
        play(call, MUSIC, 30_000)
        hang_up(call)
        running.ended(call)
        assert len(server.connections) == 3


def test_deafness_is_told_from_music_by_the_goodbye_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.speech.DEAF_AFTER", 0.2)  # of `TENSE.answer`: 5 s of the hurried clock
    with ASSEMBLYAI.listening(Fault(drop=Drop(1_000, "mute"))) as server, listening() as other:
        with relay(ASSEMBLYAI.at(server), fallbacks=[second(other)], patience=TENSE) as running:
            call = answered(running.url, "inbound")
            in_time(call, 8_000)
            running.wait_for(changes(running, ServiceReplaced))
            hang_up(call)
            running.ended(call)
        assert server.connections[0].texts == [TERMINATE]
    assert_whole(running, call, 8_000)
    assert [event.by for event in replacements(running.of(call))] == ["Second"]


def test_a_session_that_is_given_up_is_told_so() -> None:
    """AssemblyAI bills a session that is just left for three hours, if it was not told of the end."""
    patience = replace(HASTE, ping_after=0.2, pong=0.3)
    with ASSEMBLYAI.listening(Fault(no_pong=True)) as server, listening() as other:
        with relay(ASSEMBLYAI.at(server), fallbacks=[second(other)], patience=patience) as running:
            call = answered(running.url, "inbound")
            running.wait_for(changes(running, ServiceReplaced))
            server.wait_for(lambda: server.connections[0].is_over, within=10)
            assert server.connections[0].texts == [TERMINATE]
            hang_up(call)
            running.ended(call)


# --- Silence -----------------------------------------------------------------------------------------------------


def test_silence_is_not_replayed_to_the_service_that_takes_over() -> None:
    """Gladia says nothing of the side that is silent, so no final ever covers that one."""
    with GLADIA.listening() as server, listening() as other:
        with relay(GLADIA.at(server), fallbacks=[second(other)], patience=TENSE) as running:
            call = answered(running.url)
            heard = running.of(call)
            only_the_caller_speaks(call, 21_000)
            running.wait_for(lambda: len(heard.frames(Track.INBOUND)) == len(whole(21_000)))
            server.stop()
            only_the_caller_speaks(call, 5_000, at_ms=21_000)
            hang_up(call)
            running.ended(call)
        assert other.connections[0].audio_ms < 10_000
    (replaced,) = replacements(heard)
    assert 20_000 <= replaced.from_ms <= 21_000
    assert heard.frames(Track.INBOUND) == whole(26_000)
    assert not heard.of(Gap)


def test_one_silent_side_is_no_lack_of_progress() -> None:
    """Three connections in a row without a final would be reason to go to another service."""
    drops = [Fault(drop=Drop(2_000, "reset"))] * 10
    with GLADIA.listening(*drops, ear=number_ears(final_ms=500)) as server, listening() as other:
        with relay(GLADIA.at(server), fallbacks=[second(other)]) as running:
            call = answered(running.url)
            only_the_caller_speaks(call, 14_000)
            hang_up(call)
            running.ended(call)
        assert len(server.connections) > 5
    assert running.of(call).frames(Track.INBOUND) == whole(14_000)
    assert not blamed(running)


@pytest.mark.parametrize("name", VENDORS)
def test_a_goodbye_that_is_missing_after_the_last_word_and_a_silence_is_missed_by_nobody(name: str) -> None:
    vendor = VENDORS[name]
    with vendor.listening(NO_GOODBYE, NO_GOODBYE) as server, listening() as other:
        with relay(vendor.at(server), fallbacks=[second(other)], patience=replace(TENSE, ask=0.1)) as running:
            call = answered(running.url)
            in_time(call, 3_000)
            play(call, SILENCE, 3_000, at_ms=3_000)
            running.wait_for(lambda: all(running.of(call).frames(track) == whole(3_000) for track in BOTH))
            hang_up(call)
            end = running.ended(call)
        assert not other.connections
    assert_whole(running, call, 3_000)
    assert end.lost_ms == 0
    assert not blamed(running)


# --- Whose fault it was ------------------------------------------------------------------------------------------

ROOM_FOR_ONE: Final = Limits(connections=1)


def test_our_own_limit_marks_nobody_as_down() -> None:
    """A service that takes one track at a time, and room for one: the other track goes elsewhere."""
    with listening() as first, listening() as other:
        narrow = Hasty(deepgram(first)._service, ROOM_FOR_ONE, tracks=1)
        with relay(narrow, fallbacks=[second(other)]) as running:
            call = answered(running.url)
            in_time(call, 5_000)
            hang_up(call)
            running.ended(call)
        assert (len(first.connections), len(other.connections)) == (1, 1)
    assert_whole(running, call, 5_000)
    assert len(replacements(running.of(call))) == 1
    assert not changes(running, ServiceDown)()


def test_a_call_that_nobody_has_room_for_waits_where_it_is() -> None:
    with listening() as first, listening() as other:
        narrow = Hasty(deepgram(first)._service, ROOM_FOR_ONE)
        fallback = Hasty(deepgram(other)._service, ROOM_FOR_ONE, name="Second", word="second")
        with relay(narrow, fallbacks=[fallback]) as running:
            one, two = answered(running.url), answered(running.url)
            running.wait_for(lambda: names_heard(running, one) and names_heard(running, two))
            three = answered(running.url)
            in_time(three, 1_000)
            running.wait_for(lambda: len(running.of(three).of(ServiceLost)) > 5)
            for call in (one, two, three):
                hang_up(call)
                running.ended(call)
    assert_whole(running, three, 1_000)
    assert names_heard(running, three) == {"Deepgram"}
    assert not blamed(running)


AWAKE: Final = """
import signal, sys
from standins.deepgram import ListenServer, Rules
from tests.numbered import number_ears

pace, answers_after_ms = float(sys.argv[1]), int(sys.argv[2])
ear = number_ears(final_ms=answers_after_ms, interim_ms=answers_after_ms)
with ListenServer(ear=ear, rules=Rules(pace=1.25 * pace)) as server:
    print(server.url, flush=True)
    server.wait_for(lambda: any(connection.audio_bytes for connection in server.connections), within=60)
    print("it hears", flush=True)
    signal.pause()
"""


def fall_asleep(seconds: float) -> None:
    """Nothing in this process happens for so long, as when it is stopped, or its machine is suspended."""
    monkey.get_original("time", "sleep")(seconds)


def test_a_process_that_was_asleep_blames_nobody(tmp_path: Path) -> None:
    """The service is awake, in a process of its own, and still lacks some of the audio that it will answer to."""
    patience = replace(HASTE, answer=3.0)
    with started(["-c", AWAKE, str(SPEED), "5_000"], tmp_path) as awake, listening() as other:
        service = Hasty(Deepgram(DeepgramSettings(api_key="key", url=awake.line("ws://.+")[0])))
        with relay(service, fallbacks=[second(other)], patience=patience) as running:
            call = answered(running.url)
            in_time(call, 1_000)
            awake.line("it hears")
            fall_asleep(1.5 * patience.answer)
            in_time(call, 9_000, at_ms=1_000)
            hang_up(call)
            running.ended(call)
    assert_whole(running, call, 10_000)
    assert not running.of(call).of(ServiceLost)
    assert not blamed(running)


# --- Last words --------------------------------------------------------------------------------------------------


def test_after_the_hang_up_both_tracks_may_go_to_a_third_service() -> None:
    """The second takes each track by itself, and neither gets its last words there."""
    with listening(NO) as first, listening(*[NO_GOODBYE] * 4) as other, listening() as last:
        apart = second(other, tracks=1)
        third = Hasty(deepgram(last)._service, name="Third", word="third")
        with relay(deepgram(first), fallbacks=[apart, third], patience=TENSE) as running:
            call = answered(running.url)
            in_time(call, 4_000)
            hang_up(call)
            running.ended(call)
    assert_whole(running, call, 4_000)
    assert [event.by for event in replacements(running.of(call))] == ["Second", "Third", "Third"]


@pytest.mark.parametrize("first", ["apart from the beginning", "apart after a hand-over"])
def test_the_deadlines_of_closing_do_not_add_up(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two tracks waits for a service that never has time, and neither waits for the other first."""
    patience = replace(HASTE, answer=0.2, drain=0.3)
    noted: list[str] = []
    close = SpeechClient.close

    def noted_close(client: SpeechClient) -> None:
        noted.append("begins")
        close(client)
        noted.append("ends")

    monkeypatch.setattr(SpeechClient, "close", noted_close)
    with listening(NO) as refusing, listening(*[BUSY] * 1000) as busy:
        apart = second(busy, tracks=1)
        services, fallbacks = ([deepgram(refusing)], [apart]) if "hand-over" in first else ([apart], [])
        with relay(*services, fallbacks=fallbacks, patience=patience) as running:
            call = answered(running.url)
            in_time(call, 1_000)
            running.wait_for(lambda: len(running.of(call).of(ServiceLost)) > 1)
            hang_up(call)
            end = running.ended(call)
    assert noted[-4:] == ["begins", "begins", "ends", "ends"]
    assert end.lost_ms == 2 * 1_000


def test_a_result_that_came_is_not_said_to_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gladia is asked twice; a third time would be too late, and there is nothing left to ask for."""
    heard = Heard()
    with GLADIA.listening() as server:
        client = client_of(GLADIA.at(server), heard)
        speak(client, BOTH, 1_000)
        client.close()
        monkeypatch.setattr("relay.speech.backoff", lambda first, most: iter((0.01, 2 * HASTE.ask)))
        client.ask_afterwards()
    assert len(heard.of(CallResult)) == 1
    assert not heard.of(Complained)


# --- What a stream asks for --------------------------------------------------------------------------------------


def test_a_term_that_cannot_be_had_does_not_cost_the_language(caplog: pytest.LogCaptureFixture) -> None:
    with ASSEMBLYAI.listening() as server:
        settings = AssemblyAISettings(api_key="key", url=server.url, speech_model="u3-rt-pro")
        with relay(Hasty(AssemblyAI(settings))) as running:
            call = asking(running, language="de", keyterms="Harbor Books, " + "x" * 51)
        for connection in server.connections:
            assert "%22de%22" in connection.path
            assert "Harbor" not in connection.path
    assert_whole(running, call, 1_000)
    assert "asks for what AssemblyAI cannot do: ASSEMBLYAI_KEYTERMS" in caplog.text


def test_a_language_that_cannot_be_had_does_not_cost_the_terms() -> None:
    with listening() as server, relay(deepgram(server)) as running:
        call = asking(running, language="no such language", keyterms="Harbor Books")
        assert "language=en&" in server.connections[0].path
        assert "keyterm=Harbor+Books" in server.connections[0].path
    assert_whole(running, call, 1_000)


@pytest.mark.parametrize("keyterms", ["x" * 60_000, ",".join(f"x{n}" for n in range(101))], ids=["one", "many"])
@pytest.mark.parametrize("name", VENDORS)
def test_the_terms_that_a_stream_may_ask_for_are_bounded(
    name: str, keyterms: str, caplog: pytest.LogCaptureFixture
) -> None:
    vendor = VENDORS[name]
    with vendor.listening() as server, relay(vendor.at(server)) as running:
        call = asking(running, keyterms=keyterms)
        assert not any("x1" in connection.path or "xx" in connection.path for connection in server.connections)
    assert_whole(running, call, 1_000)
    assert "a call's own terms may be 100, each of up to 100 characters" in caplog.text


# --- All at once -------------------------------------------------------------------------------------------------


def a_fault(chance: random.Random) -> Fault | None:
    """How a connection fares: three in five badly."""
    match chance.randrange(10):
        case 0 | 1 | 2 | 3:
            how: Any = chance.choice(["reset", "mute", "abandon", CloseFrame(1011, "trouble"), CloseFrame(1008, "no")])
            return Fault(drop=Drop(chance.randint(0, 6_000), how))
        case 4:
            return Fault(refuse=Refusal(chance.choice([400, 401, 429, 503]), "BAD", "No."))
        case 5:
            return Fault(on_end=chance.choice(["ignore", "reset"]))
    return None


def some_services(stack: ExitStack, chance: random.Random) -> list[Hasty]:
    """Three services of which one can rely on none, and which have room for few or for many."""
    services = []
    for name in chance.sample(sorted(VENDORS), 3):
        faults = [a_fault(chance) for _ in range(100)]
        server = stack.enter_context(VENDORS[name].serve(ear=number_ears(), faults=faults, key=None))
        service = VENDORS[name].make("key", server.url)
        services.append(Hasty(service, Limits(connections=chance.choice([3, 50]))))
    return services


def a_call(running: Relay, chance: random.Random) -> SimulatedCall:
    """A call of up to 6 s that begins when it likes, and ends as it likes."""
    gevent.sleep(chance.uniform(0, 0.5))
    call = answered(running.url)
    in_time(call, FRAME_MS * chance.randint(1, 300))
    chance.choice([hang_up, hang_up, SimulatedCall.close, SimulatedCall.reset])(call)
    return call


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_no_word_is_doubled_or_lost_in_silence(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(seed)
    patience = replace(HASTE, connect=1, send=0.3, answer=0.3, pong=0.3, drain=0.2, ask=0.2)
    with ExitStack() as stack:
        first, *others = some_services(stack, chance)
        tracks, replay_s = chance.choice(["together", "apart"]), chance.choice([3, 60])
        with relay(first, fallbacks=others, patience=patience, tracks=tracks, replay_s=replay_s) as running:
            calls = [gevent.spawn(a_call, running, chance) for _ in range(30)]
            gevent.joinall(calls, raise_error=True)
            ends = [(call.value, running.ended(call.value)) for call in calls if call.value is not None]
            for provider in running.switchboard.listening.providers:
                with gevent.Timeout(10):
                    while provider.open:  # a probe may be
                        gevent.sleep(0.01)
    for call, end in ends:
        for track in BOTH:
            frames, missing = running.of(call).frames(track), running.of(call).missing(track)
            assert len(frames) == len(set(frames))
            assert set(whole(end.duration_ms - FRAME_MS)) <= {*frames, *missing}  # the last one may have been cut off
    assert changes(running, ServiceLost)()  # and mostly, but not for sure, some service was replaced
    assert not [record for record in caplog.records if record.levelname == "CRITICAL"]


# --- What is kept for the next connection ------------------------------------------------------------------------

SPEECH: Final = bytes((0x10,))
QUIET: Final = silence(1)
A_SECOND: Final = 1000 * SAMPLES_PER_MS
A_MINUTE: Final = 60 * A_SECOND
LEAD: Final = 300 * SAMPLES_PER_MS  # of quiet before speech, which is not forgotten


def sent(audio: bytes, *, finished: bool = False, forgets_pauses: bool = True) -> ReplayBuffer:
    """A minute of one track is kept; all of its audio went out on a connection that is gone."""
    buffer = ReplayBuffer(1, A_MINUTE)
    buffer.forgets_pauses = forgets_pauses
    for position in range(0, len(audio), A_FRAME):
        buffer.add(Piece(position, audio[position : position + A_FRAME]))
        buffer.take(A_FRAME, partial=True)
    buffer.finished = finished
    buffer.rewind()
    return buffer


def test_of_the_quiet_before_speech_a_moment_is_replayed() -> None:
    buffer = sent(QUIET * 2 * A_SECOND + SPEECH * A_SECOND)
    assert buffer.unheard_from == buffer.next == 2 * A_SECOND - LEAD
    assert buffer.unheard == buffer.waiting == LEAD + A_SECOND
    assert buffer.losses() == []


def test_quiet_after_speech_is_replayed_with_it() -> None:
    buffer = sent(SPEECH * A_FRAME + QUIET * 5 * A_SECOND)
    assert buffer.unheard_from == 0
    assert buffer.unheard == A_FRAME + 5 * A_SECOND


def test_all_of_a_last_silence_is_forgotten() -> None:
    assert sent(QUIET * (2 * A_SECOND + 1), finished=True).unheard == 0


@pytest.mark.parametrize("beyond", [1, 20, 60, 99, 100])
def test_while_more_may_come_the_end_of_a_silence_is_kept(beyond: int) -> None:
    """For speech may follow, and what comes before it is to be replayed with it."""
    buffer = sent(QUIET * (2 * A_SECOND + beyond * SAMPLES_PER_MS))
    assert LEAD <= buffer.unheard <= LEAD + 100 * SAMPLES_PER_MS


def test_quiet_is_replayed_to_a_service_that_says_something_of_it() -> None:
    buffer = sent(QUIET * 2 * A_SECOND + SPEECH * A_SECOND, finished=True, forgets_pauses=False)
    assert buffer.unheard_from == 0


def test_quiet_is_forgotten_across_a_hole() -> None:
    buffer = ReplayBuffer(1, A_MINUTE)
    buffer.forgets_pauses = True
    buffer.add(Piece(0, QUIET * 950 * SAMPLES_PER_MS))
    buffer.add(Piece(30 * A_SECOND, QUIET * A_SECOND + SPEECH * A_SECOND))
    buffer.rewind()
    assert buffer.unheard_from == 31 * A_SECOND - LEAD


def test_quiet_in_which_another_track_speaks_is_not_forgotten() -> None:
    buffer = ReplayBuffer(2, A_MINUTE)
    buffer.forgets_pauses = True
    buffer.add(Piece(0, (QUIET + SPEECH) * A_SECOND))
    buffer.rewind()
    assert buffer.unheard_from == 0


def test_a_track_that_was_heard_is_quiet_from_then_on() -> None:
    """What another track was heard to say is replayed as silence, and so not at all if nobody else speaks in it."""
    buffer = ReplayBuffer(2, A_MINUTE)
    buffer.forgets_pauses = True
    buffer.add(Piece(0, (SPEECH + QUIET) * 10 * A_SECOND))
    while buffer.take(A_SECOND):
        pass
    buffer.heard(0, 8 * A_SECOND)
    buffer.rewind()
    assert buffer.unheard_from == 8 * A_SECOND - LEAD


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 100)), max_size=10), st.booleans())
def test_no_speech_is_ever_forgotten_and_little_quiet_before_it_kept(
    stretches: list[tuple[bool, int]], finished: bool
) -> None:
    """Stretches of speech and of quiet, in frames, and a word at the end."""
    audio = b"".join((SPEECH if speaks else QUIET) * frames * A_FRAME for speaks, frames in [*stretches, (True, 1)])
    buffer = sent(audio, finished=finished)
    kept = audio.find(SPEECH) - buffer.unheard_from
    assert min(audio.find(SPEECH), LEAD) <= kept < LEAD + 100 * SAMPLES_PER_MS
    assert buffer.unheard == len(audio) - buffer.unheard_from


def test_a_session_that_is_resumed_after_all_goes_on_from_where_it_stands() -> None:
    buffer = ReplayBuffer(1, 1000)
    buffer.add(Piece(0, b"abcdef"))
    buffer.take(5)
    buffer.heard(0, 1)
    buffer.rewind()
    buffer.resume(3)
    assert (buffer.next, buffer.waiting) == (3, 3)
    assert buffer.take(3, partial=True) == Piece(3, b"def")


def test_noise_in_which_nobody_speaks_is_not_told_as_thousands_of_losses() -> None:
    """Ten minutes of music, loud and quiet by turns, of which the last minute is kept."""
    beat = SPEECH * 100 * SAMPLES_PER_MS + QUIET * 100 * SAMPLES_PER_MS
    (loss,) = sent(beat * 5 * 600).losses()
    assert loss.start == 0
    assert 539 * A_SECOND < loss.end <= 540 * A_SECOND


@pytest.mark.parametrize(("pause_s", "losses"), [(0.5, [(0, 2.5)]), (1, [(0, 3)]), (3, [(0, 1), (4, 5)])])
def test_losses_are_told_as_one_where_no_more_than_a_second_lies_between(
    pause_s: float, losses: list[tuple[float, float]]
) -> None:
    audio = SPEECH * A_SECOND + QUIET * round(pause_s * A_SECOND) + SPEECH * (A_SECOND + A_MINUTE)
    assert sent(audio).losses() == [Loss(0, round(start * A_SECOND), round(end * A_SECOND)) for start, end in losses]


def test_losses_are_told_apart_where_the_service_says_something_of_pauses() -> None:
    buffer = ReplayBuffer(1, A_SECOND)
    for start in (0, 500, 1_000):
        buffer.add(Piece(start * SAMPLES_PER_MS, SPEECH * 400 * SAMPLES_PER_MS))
        buffer.take(A_SECOND, partial=True)
    buffer.add(Piece(1_500 * SAMPLES_PER_MS, SPEECH * A_SECOND))
    buffer.rewind()
    ends = [(0, 400), (500, 900), (1_000, 1_400)]
    assert buffer.losses() == [Loss(0, start * SAMPLES_PER_MS, end * SAMPLES_PER_MS) for start, end in ends]

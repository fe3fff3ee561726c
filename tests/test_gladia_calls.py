"""What Gladia alone does for a whole call: its add-ons, and a session that outlives its connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from gladia_client import Gladia, GladiaSettings
from relay.events import Gap, Remark, ServiceLost, SpeechStarted, Summary, Track, Translation
from standins.faults import Drop, Fault
from standins.gladia import GladiaServer, Rules
from standins.twilio import SimulatedCall
from tests.calling import Relay, answered, hang_up, in_time, relay
from tests.numbered import number_ears
from tests.talking import BOTH, FRAME_MS, Hasty, Heard, whole

EVERYTHING: dict[str, Any] = {
    "translate_to": ("de", "fr"),
    "named_entities": True,
    "sentiment": True,
    "summary": "concise",
}


@contextmanager
def gladia(*faults: Fault | None, **rules: Any) -> Iterator[GladiaServer]:
    with GladiaServer(ear=number_ears(final_ms=1_000), rules=Rules(**rules), faults=faults) as server:
        yield server
    assert server.violations == []


def at(server: GladiaServer, **settings: Any) -> Hasty:
    return Hasty(Gladia(GladiaSettings(api_key="key", url=server.url, **settings)))


def call_of(running: Relay, *stretches: tuple[int, int], tracks: tuple[Track, ...] = BOTH) -> SimulatedCall:
    """A call with audio of so many ms at each of these moments, from its start to its end."""
    call = answered(running.url, *tracks)
    for at_ms, length_ms in stretches:
        in_time(call, length_ms, at_ms=at_ms)
    hang_up(call)
    running.ended(call)
    return call


# --- Add-ons -----------------------------------------------------------------------------------------------------


def spans(heard: Heard, kind: type[Translation] | type[Remark], track: Track) -> list[tuple[int, int]]:
    events = [event for event in heard.events if isinstance(event, kind) and event.track is track]
    return [(event.start_ms, event.end_ms) for event in events]


@pytest.mark.parametrize("tracks", [BOTH, BOTH[:1]], ids=["two tracks", "one track"])
def test_what_add_ons_say_comes_with_the_calls_times_and_tracks(tracks: tuple[Track, ...]) -> None:
    """Between the two stretches Twilio sends nothing, and the session's clock falls behind the call's."""
    with gladia() as server, relay(at(server, **EVERYTHING)) as running:
        call = call_of(running, (0, 2_000), (60_000, 2_000), tracks=tracks)
    heard = running.of(call)
    for track in tracks:
        finals = heard.finals(track)
        assert heard.frames(track) == [*whole(2_000), *(60_000 // FRAME_MS + n for n in whole(2_000))]
        said = [(final.start_ms, final.end_ms) for final in finals]
        assert (said[0][0], said[-1][-1]) == (0, 62_000)
        for language in ("de", "fr"):
            translations = [
                event
                for event in heard.events
                if isinstance(event, Translation) and (event.track, event.language) == (track, language)
            ]
            assert [event.text for event in translations] == [f"[{language}] {final.text}" for final in finals]
            assert [(event.start_ms, event.end_ms) for event in translations] == said
        assert spans(heard, Remark, track) == said, "one sentiment each; no word has a capital letter"
    assert {event.text for event in heard.events if isinstance(event, Remark)} == {"neutral (neutral)"}
    assert [type(event).__name__ for event in heard.of(Summary)] == ["Summary"]
    assert running.ended(call).words == len(tracks) * 200


def test_without_add_ons_nothing_is_said_of_them() -> None:
    with gladia() as server, relay(at(server)) as running:
        call = call_of(running, (0, 2_000))
    assert not running.of(call).of(Translation, Remark, Summary)
    assert running.of(call).of(SpeechStarted)


def test_add_ons_are_right_after_a_drop_too() -> None:
    with gladia(Fault(drop=Drop(1_500, "reset"))) as server, relay(at(server, **EVERYTHING)) as running:
        call = call_of(running, (0, 6_000))
        assert (len(server.connections), len(server.sessions)) == (2, 1)
    heard = running.of(call)
    for track in BOTH:
        assert heard.frames(track) == whole(6_000)
        said = [(final.start_ms, final.end_ms) for final in heard.finals(track)]
        assert spans(heard, Remark, track) == said
        assert spans(heard, Translation, track) == [span for span in said for _ in ("de", "fr")]


# --- A session that outlives its connections ---------------------------------------------------------------------


@pytest.mark.parametrize("tracks", [BOTH, BOTH[:1]], ids=["two tracks", "one track"])
@pytest.mark.parametrize("inclusive", [True, False], ids=["ranges include their end", "ranges do not"])
@pytest.mark.parametrize("acks_lost_ms", [20, 250, 1_000, 2_500])
def test_audio_that_was_taken_and_never_acknowledged_is_neither_lost_nor_doubled(
    acks_lost_ms: int, inclusive: bool, tracks: tuple[Track, ...]
) -> None:
    lossy = Fault(drop=Drop(2_500, "reset"), acks_lost_ms=acks_lost_ms)
    less_so = replace(lossy, acks_lost_ms=acks_lost_ms // 2)  # where the session stands must be told once
    with gladia(lossy, less_so, acks_inclusive=inclusive) as server, relay(at(server)) as running:
        call = call_of(running, (0, 6_000), tracks=tracks)
        assert (len(server.connections), len(server.sessions)) == (3, 1)
    heard = running.of(call)
    assert len(heard.of(ServiceLost)) == 2
    assert not heard.of(Gap)
    for track in tracks:
        assert heard.frames(track) == whole(6_000)
    assert running.ended(call).words == len(tracks) * len(whole(6_000))

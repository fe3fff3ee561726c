"""Back-fill: every frame of a gap is found in the recording, none is doubled, and nothing is made up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from deepgram_client import TRAITS
from relay.backfill import CONTEXT_MS, BackfillError, fill, open_gaps, within
from relay.events import CallEvent, Gap, ServiceReplaced, StreamBegun, StreamEnded, Track, Transcript, Word
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.recording import SIDES, Recorder, RecordingError, Stretch, path_of, put
from relay.store import records
from relay.store.records import Call, Kind
from relay.store.store import Store
from standins.deepgram import Drop, Fault, ListenServer, Refusal, Rules
from tests.calling import answered, hang_up, in_time, relay
from tests.numbered import frame_of, frame_word, number_ears, numbered
from tests.storing import eventually
from tests.talking import BOTH, CALL, FRAME_MS, HASTE, SPEED, deepgram, listening
from tests.vendors import VENDORS, Vendor

pytest_plugins = ("tests.databases",)

INBOUND, OUTBOUND = BOTH
LENGTH_MS = 30_000
WHY = "the service was away"


@contextmanager
def stored(database: str) -> Iterator[Store]:
    store = Store(database)
    store.open()
    try:
        yield store
    finally:
        store.close(10)


def final(track: Track, start_ms: int, end_ms: int) -> Transcript:
    """What a service says of numbered audio."""
    numbers = range(start_ms // FRAME_MS, end_ms // FRAME_MS)
    words = tuple(Word(frame_word(track, n), n * FRAME_MS, (n + 1) * FRAME_MS, 0.9) for n in numbers)
    return Transcript(track, " ".join(word.text for word in words), start_ms, end_ms, is_final=True, words=words)


def keep(store: Store, *gaps: Gap, call: CallInfo = CALL, ended: bool = True) -> Call:
    """A call of numbered audio on both sides, all of it stored as it was transcribed, but for the gaps."""
    store.hear(Happened(call, StreamBegun(("Deepgram",))))
    for track in call.tracks:
        at_ms = 0
        for gap in sorted((gap for gap in gaps if gap.track is track), key=lambda gap: gap.start_ms):
            store.hear(Happened(call, final(track, at_ms, gap.start_ms), "Deepgram"))
            store.hear(Happened(call, gap))
            at_ms = gap.end_ms
        store.hear(Happened(call, final(track, at_ms, LENGTH_MS), "Deepgram"))
    if ended:
        store.hear(Happened(call, StreamEnded("stop", LENGTH_MS, 1, 0, 0, 0, 0, 0, 0, None, None)))
    return known(store, call.call_sid)


def known(store: Store, sid: str) -> Call:
    """A call, when all that was heard of it is written."""
    store.note_recording("nobody", "")  # waits for its turn
    call = store.call(sid)
    assert call is not None
    return call


def record(store: Store, folder: Path, sid: str = CALL.call_sid, *, length_ms: int = LENGTH_MS) -> Call:
    """Its recording."""
    path = path_of(folder, sid)
    put(path, [Stretch(SIDES.index(track), 0, bytearray(numbered(track, 0, length_ms))) for track in BOTH])
    store.note_recording(sid, str(path))
    return known(store, sid)


def frames(store: Store, track: Track, sid: str = CALL.call_sid) -> list[int]:
    """The frames of a track in the order of the transcript; each is at its time."""
    numbers = []
    for segment in store.segments(sid):
        if segment.track == track:
            for word in segment.words:
                _, number = frame_of(word.text)
                assert abs(word.start_ms - number * FRAME_MS) <= FRAME_MS, f"{word.text} at {word.start_ms} ms"
                numbers.append(number)
    return numbers


EVERY_FRAME = list(range(LENGTH_MS // FRAME_MS))


# --- What is filled --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("borders", ["of a frame", "within a frame"])
def test_every_frame_of_a_gap_is_found_and_none_is_doubled(database: str, tmp_path: Path, borders: str) -> None:
    start_ms, end_ms = (10_000, 19_000) if borders == "of a frame" else (10_007, 18_991)
    gaps = [Gap(track, start_ms, end_ms, WHY) for track in BOTH]
    with listening() as server, stored(database) as store:
        keep(store, *gaps)
        call = record(store, tmp_path)
        for gap in open_gaps(store, call):
            heard: list[int] = []
            said = fill(store, call, gap, deepgram(server), patience=HASTE, on_progress=heard.append)
            assert said
            assert heard[-1] == end_ms - start_ms
            assert heard == sorted(heard)
        for track in BOTH:
            assert frames(store, track) == EVERY_FRAME
        later = [segment for segment in store.segments(CALL.call_sid) if segment.backfilled]
        assert {segment.service for segment in later} == {"Deepgram"}
        assert [(gap.start_ms, gap.end_ms, gap.filled) for gap in store.gaps(CALL.call_sid)] == [
            (start_ms, end_ms, True)
        ] * 2
        assert [connection.audio_ms for connection in server.connections] == [end_ms - start_ms + 2 * CONTEXT_MS] * 2
        with pytest.raises(BackfillError, match="Nothing is missing"):
            open_gaps(store, call)


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
@pytest.mark.parametrize("seed", range(3))
def test_gaps_anywhere_are_filled_whole_by_any_service(tmp_path: Path, vendor: Vendor, seed: int) -> None:
    """At the beginning, at the end, side by side, whatever the lengths of the finals."""
    chance = random.Random(seed)
    gaps = []
    for track in BOTH:
        borders = sorted(chance.sample(range(0, LENGTH_MS + 1, FRAME_MS), 6))
        borders[0], borders[-1] = chance.choice([0, borders[0]]), chance.choice([LENGTH_MS, borders[-1]])
        borders[2] = chance.choice([borders[1], borders[2]])
        gaps += [Gap(track, start, end, WHY) for start, end in zip(borders[::2], borders[1::2], strict=True)]
    ear = number_ears(final_ms=range(100, 4000, 20), seed=seed)
    with vendor.listening(ear=ear) as server, stored(f"sqlite:///{tmp_path}/calls.db") as store:
        keep(store, *gaps)
        call = record(store, tmp_path)
        for gap in open_gaps(store, call):
            fill(store, call, gap, vendor.at(server), patience=HASTE)
        for track in BOTH:
            assert frames(store, track) == EVERY_FRAME
        assert all(gap.filled for gap in store.gaps(CALL.call_sid))


@pytest.mark.parametrize("listened", ["side by side", "one after the other"])
def test_a_word_at_the_border_is_doubled_by_no_service_and_taken_from_none(tmp_path: Path, listened: str) -> None:
    """The first service has the word across the gap's beginning. For one that listened beside it that is another's."""
    start_ms, end_ms = 10_007, 18_991
    vendor, one_by_one = VENDORS["gladia"], listened == "one after the other"
    with vendor.listening() as server, stored(f"sqlite:///{tmp_path}/calls.db") as store:

        def tell(event: CallEvent, service: str = "") -> None:
            store.hear(Happened(CALL, event, service))

        tell(StreamBegun(("Deepgram",) if one_by_one else ("Deepgram", "Gladia")))
        tell(final(INBOUND, 0, 10_020 if one_by_one else LENGTH_MS), "Deepgram")
        if one_by_one:
            tell(ServiceReplaced("Deepgram", "Gladia", "it is down", start_ms))
        else:
            tell(final(INBOUND, 0, start_ms), "Gladia")
        tell(Gap(INBOUND, start_ms, end_ms, WHY), "Gladia")
        tell(final(INBOUND, end_ms, LENGTH_MS), "Gladia")
        tell(StreamEnded("stop", LENGTH_MS, 1, 0, 0, 0, 0, 0, 0, None, None))
        call = record(store, tmp_path)
        (gap,) = open_gaps(store, call)
        fill(store, call, gap, vendor.at(server), patience=HASTE)
        assert sorted(frames(store, INBOUND)) == sorted(EVERY_FRAME * (1 if one_by_one else 2))


def test_what_was_filled_is_announced(tmp_path: Path) -> None:
    with listening() as server, stored(f"sqlite:///{tmp_path}/calls.db") as store:
        keep(store, Gap(INBOUND, 5_000, 7_000, WHY))
        call = record(store, tmp_path)
        before = store.newest_event_id()
        fill(store, call, open_gaps(store, call)[0], deepgram(server), patience=HASTE)
        events = store.events_after(before)
    assert events
    assert {event.kind for event in events} == {Kind.SEGMENT_FINAL}
    assert all(event.data["segment"]["backfilled"] for event in events)


def test_a_lost_connection_is_made_again(tmp_path: Path) -> None:
    ear = number_ears(final_ms=1000)
    with listening(Fault(drop=Drop(5_000, "reset")), ear=ear) as server:
        with stored(f"sqlite:///{tmp_path}/calls.db") as store:
            keep(store, Gap(OUTBOUND, 5_000, 15_000, WHY))
            call = record(store, tmp_path)
            fill(store, call, open_gaps(store, call)[0], deepgram(server), patience=HASTE)
            assert len(server.connections) == 2
            assert frames(store, OUTBOUND) == EVERY_FRAME


def test_what_a_service_missed_while_it_was_away_is_found_after_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: a call comes in, the service is away for longer than is kept, and the recording has it all."""
    monkeypatch.setattr("relay.recording.WRITE_EVERY", 0.05)
    is_back, busy = Event(), Fault(refuse=Refusal(503, "BUSY", "Later."))

    def outage(number: int) -> Fault | None:
        return Fault(drop=Drop(5_000, "reset")) if number == 0 else None if is_back.is_set() else busy

    rules = Rules(pace=TRAITS.pace * SPEED)
    with (
        stored(f"sqlite:///{tmp_path}/calls.db") as store,
        ListenServer(ear=number_ears(), rules=rules, faults=outage) as server,
    ):
        with relay(deepgram(server), replay_s=5) as running:
            running.switchboard.recorder = Recorder(tmp_path, None)
            call = answered(running.url)
            in_time(call, 20_000)
            (stream,) = running.switchboard._streams
            eventually(lambda: stream._frames == 2 * 20_000 // FRAME_MS and len(server.connections) > 1)
            is_back.set()
            in_time(call, LENGTH_MS - 20_000, at_ms=20_000)
            hang_up(call)
            running.ended(call)
        for happened in running.told:
            store.hear(happened)
        known(store, call.call_sid)
        store.note_recording(call.call_sid, str(path_of(tmp_path, call.call_sid)))
        kept = known(store, call.call_sid)
        gaps = open_gaps(store, kept)
        assert {gap.track for gap in gaps} == set(BOTH)
        for gap in gaps:
            fill(store, kept, gap, deepgram(server), patience=HASTE)
        for track in BOTH:  # a final may speak of what came before a gap and after it
            assert sorted(frames(store, track, call.call_sid)) == EVERY_FRAME
        assert server.violations == []


# --- What is not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(refuse=Refusal(401, "INVALID_AUTH", "No."))],
        [Fault(refuse=Refusal(503, "BUSY", "Later."))] * 20,
        [Fault(drop=Drop(1_000, "mute"))] * 20,
        [Fault(on_end="reset")] * 20,
    ],
    ids=["refuses", "is busy", "goes silent", "ends too early"],
)
def test_a_service_that_cannot_do_it_changes_nothing(tmp_path: Path, faults: list[Fault]) -> None:
    patience = replace(HASTE, answer=0.5)
    with listening(*faults, ear=number_ears(final_ms=60_000)) as server:
        with stored(f"sqlite:///{tmp_path}/calls.db") as store:
            keep(store, Gap(INBOUND, 5_000, 15_000, WHY))
            call = record(store, tmp_path)
            with pytest.raises(BackfillError, match=r"^Deepgram did not hear all that is missing: .*[^.]\.$"):
                fill(store, call, open_gaps(store, call)[0], deepgram(server), patience=patience)
            assert not any(gap.filled for gap in store.gaps(CALL.call_sid))
            assert not any(segment.backfilled for segment in store.segments(CALL.call_sid))


def test_two_at_once_fill_a_gap_once(tmp_path: Path) -> None:
    with listening() as server, stored(f"sqlite:///{tmp_path}/calls.db") as store:
        keep(store, Gap(INBOUND, 5_000, 7_000, WHY))
        call = record(store, tmp_path)
        (gap,) = open_gaps(store, call)
        fill(store, call, gap, deepgram(server), patience=HASTE)
        with pytest.raises(BackfillError, match="nothing was stored twice"):
            fill(store, call, gap, deepgram(server), patience=HASTE)
        assert frames(store, INBOUND) == EVERY_FRAME


def test_where_the_recording_is_silent_a_gap_stays(tmp_path: Path) -> None:
    with listening() as server, stored(f"sqlite:///{tmp_path}/calls.db") as store:
        keep(store, Gap(INBOUND, 20_000, 22_000, WHY))
        call = record(store, tmp_path, length_ms=15_000)
        (gap,) = open_gaps(store, call)
        assert fill(store, call, gap, deepgram(server), patience=HASTE).rest == ((20_000, 22_000),)
        assert open_gaps(store, call) == [gap]
        assert not server.connections


def test_of_what_no_stream_brought_what_is_on_the_recording_is_filled_and_the_rest_stays_a_gap(tmp_path: Path) -> None:
    """Killed, and started again: the recording has a moment more than the store knew of."""
    again = replace(CALL, stream_sid="MZ-again")
    with listening() as server, stored(f"sqlite:///{tmp_path}/calls.db") as store:
        store.hear(Happened(CALL, StreamBegun(("Deepgram",))))
        store.hear(Happened(CALL, StreamEnded("stop", 0, 1, 0, 0, 0, 0, 0, 0, None, None)))
        known(store, CALL.call_sid)
        gevent.sleep(0.3)
        store.hear(Happened(again, StreamBegun(("Deepgram",))))
        store.hear(Happened(again, StreamEnded("stop", 1000, 1, 0, 0, 0, 0, 0, 0, None, None)))
        call = record(store, tmp_path, length_ms=100)
        gaps = open_gaps(store, call)
        assert len(gaps) == 2
        for gap in gaps:
            assert gap.start_ms == 0
            assert fill(store, call, gap, deepgram(server), patience=HASTE).rest == ((100, gap.end_ms),)
        assert frames(store, INBOUND) == frames(store, OUTBOUND) == [0, 1, 2, 3, 4]
        rests = open_gaps(store, call)
        assert [(gap.track, gap.start_ms, gap.end_ms) for gap in rests] == [
            (gap.track, 100, gap.end_ms) for gap in gaps
        ]
        assert {gap.reason for gap in rests} == {gap.reason for gap in gaps}
        for gap in rests:
            assert fill(store, call, gap, deepgram(server), patience=HASTE).rest == ((100, gap.end_ms),)
        assert open_gaps(store, call) == rests


def test_what_a_service_heard_before_it_was_lost_is_kept_and_the_rest_can_be_filled_later(
    database: str, tmp_path: Path
) -> None:
    faults = [Fault(drop=Drop(6_000, "reset")), *[Fault(refuse=Refusal(503, "BUSY", "Later."))] * 20]
    with listening(*faults, ear=number_ears(final_ms=1000)) as server, stored(database) as store:
        keep(store, Gap(INBOUND, 5_000, 15_000, WHY))
        call = record(store, tmp_path)
        (gap,) = open_gaps(store, call)
        filled = fill(store, call, gap, deepgram(server), patience=HASTE)
        ((rest_ms, end_ms),) = filled.rest
        assert 5_000 < rest_ms < end_ms == 15_000
        assert filled.why.startswith("Deepgram did not hear all that is missing: ")
        assert frames(store, INBOUND) == [n for n in EVERY_FRAME if not rest_ms <= n * FRAME_MS < end_ms]
        (rest,) = open_gaps(store, call)
        assert (rest.start_ms, rest.end_ms, rest.reason) == (rest_ms, 15_000, WHY)
    with listening() as server, stored(database) as store:
        with pytest.raises(BackfillError, match="nothing was stored twice"):
            fill(store, call, gap, deepgram(server), patience=HASTE)
        assert frames(store, INBOUND) == [n for n in EVERY_FRAME if not rest_ms <= n * FRAME_MS < end_ms], "twice"
        fill(store, call, rest, deepgram(server), patience=HASTE)
        assert frames(store, INBOUND) == EVERY_FRAME
        with pytest.raises(BackfillError, match="Nothing is missing"):
            open_gaps(store, call)


def test_why_nothing_is_filled_is_said_in_a_sentence(tmp_path: Path) -> None:
    live, whole, unrecorded = (replace(CALL, call_sid=f"CA{name}") for name in ("live", "whole", "unrecorded"))
    gap = Gap(INBOUND, 5_000, 7_000, WHY)
    with stored(f"sqlite:///{tmp_path}/calls.db") as store:
        for call, says in (
            (keep(store, gap, call=live, ended=False), "still runs"),
            (keep(store, call=whole), "Nothing is missing"),
            (keep(store, gap, call=unrecorded), "was not recorded"),
        ):
            with pytest.raises(BackfillError, match=says):
                open_gaps(store, call)


def test_a_recording_that_is_gone_is_said(tmp_path: Path) -> None:
    with listening() as server, stored(f"sqlite:///{tmp_path}/calls.db") as store:
        keep(store, Gap(INBOUND, 5_000, 7_000, WHY))
        call = record(store, tmp_path)
        path_of(tmp_path, CALL.call_sid).unlink()
        with pytest.raises(RecordingError, match="cannot be read"):
            fill(store, call, open_gaps(store, call)[0], deepgram(server), patience=HASTE)


# --- Words at the border ---------------------------------------------------------------------------------------

GAP = records.Gap(1, "inbound", 10_000, 12_000, WHY, None, filled=False)


def heard(text: str, *words: tuple[str, int, int]) -> Transcript:
    said = tuple(Word(*word, 0.9) for word in words)
    start_ms, end_ms = (said[0].start_ms, said[-1].end_ms) if said else (10_500, 11_500)
    return Transcript(INBOUND, text, start_ms, end_ms, is_final=True, words=said)


def segment(track: str, *words: tuple[str, int, int]) -> records.Segment:
    said = tuple(Word(*word, 0.9) for word in words)
    return records.Segment(
        1,
        track,
        said[0].start_ms,
        said[-1].end_ms,
        "",
        said,
        0.9,
        None,
        None,
        "Deepgram",
        backfilled=False,
        created_at=0,
    )


def texts(*finals: Transcript, there: tuple[records.Segment, ...] = ()) -> list[str]:
    return [final.text for final in within(GAP, finals, there)]


def test_a_word_belongs_to_where_its_middle_is() -> None:
    said = heard(
        "Well, it did not stop then.",
        ("Well,", 9_500, 9_900),
        ("it", 9_890, 10_100),
        ("did", 9_910, 10_100),
        ("not", 10_500, 10_900),
        ("stop", 11_800, 12_190),
        ("then.", 11_850, 12_200),
    )
    assert texts(said) == ["did not stop"]
    (taken,) = within(GAP, [said], [])
    assert (taken.start_ms, taken.end_ms) == (9_910, 12_190)


def test_a_word_that_is_there_already_is_not_said_twice() -> None:
    said = heard("good morning", ("good", 9_900, 10_200), ("morning", 10_200, 10_600))
    assert texts(said, there=(segment("inbound", ("Good", 9_850, 10_060)),)) == ["morning"]
    assert texts(said, there=(segment("inbound", ("Oh", 9_700, 9_950)),)) == ["good morning"]
    assert texts(said, there=(segment("outbound", ("Good", 9_850, 10_060)),)) == ["good morning"]


def test_another_service_that_listened_beside_does_not_count() -> None:
    said = heard("good morning", ("good", 10_100, 10_200), ("morning", 10_200, 10_600))
    assert texts(said, there=(segment("inbound", ("good", 10_100, 10_200), ("morning", 10_200, 10_600)),)) == [
        "good morning"
    ]


def test_a_final_keeps_its_spelling_where_all_of_it_is_taken() -> None:
    said = heard("Good -- morning!", ("Good", 10_100, 10_200), ("morning!", 10_200, 10_600))
    assert list(within(GAP, [said], [])) == [said]


def test_a_language_without_blanks_gets_none() -> None:
    said = heard("もしもし", ("もし", 9_500, 9_800), ("も", 10_100, 10_200), ("し", 10_200, 10_600))
    assert texts(said) == ["もし"]


def test_a_final_without_words_is_taken_whole_or_not() -> None:
    said = heard("Good morning.")
    assert texts(said, replace(said, start_ms=9_000, end_ms=10_800), replace(said, text="")) == ["Good morning."]

"""Phone audio and its clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audio import (
    SAMPLES_PER_MS,
    SILENCE,
    Interleaver,
    Piece,
    Timeline,
    decode_mulaw,
    encode_mulaw,
    silence,
)

FRAME = 20 * SAMPLES_PER_MS


def frame(value: int, samples: int = FRAME) -> bytes:
    return bytes((value,)) * samples


# --- The codec: values of ITU-T G.711, table 2a ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("byte", "sample"), [(0xFF, 0), (0x7F, 0), (0x80, 32124), (0x00, -32124), (0xFE, 8), (0x7E, -8), (0xF0, 120)]
)
def test_a_mulaw_byte_has_its_sample(byte: int, sample: int) -> None:
    assert decode_mulaw(bytes((byte,)))[0] == sample


def test_every_byte_survives_decoding_and_encoding_but_negative_zero() -> None:
    every = bytes(range(256))
    assert encode_mulaw(decode_mulaw(every)) == every.replace(b"\x7f", b"\xff")


def test_encoding_errs_by_less_than_its_step() -> None:
    for sample in range(-32768, 32768, 7):
        heard = decode_mulaw(encode_mulaw([sample]))[0]
        assert abs(heard - max(-32635, min(32635, sample))) <= max(4, abs(sample) // 16)


def test_silence_is_the_byte_of_zero() -> None:
    assert silence(3) == b"\xff\xff\xff"
    assert encode_mulaw([0]) == silence(1)


# --- The timeline -----------------------------------------------------------------------------------------------


def test_frames_in_order_follow_each_other() -> None:
    timeline = Timeline()
    assert timeline.place(0, frame(1)) == Piece(0, frame(1))
    assert timeline.place(20, frame(2)) == Piece(FRAME, frame(2))
    assert (timeline.gaps, timeline.missing) == (0, 0)


def test_a_jump_is_filled_with_silence() -> None:
    timeline = Timeline()
    timeline.place(0, frame(1))
    piece = timeline.place(120, frame(2))
    assert piece == Piece(FRAME, silence(100 * SAMPLES_PER_MS) + frame(2))
    assert timeline.end == 140 * SAMPLES_PER_MS
    assert (timeline.gaps, timeline.missing) == (1, 100 * SAMPLES_PER_MS)


def test_a_track_that_begins_late_begins_with_silence() -> None:
    timeline = Timeline()
    assert timeline.place(500, frame(1)).audio.startswith(silence(500 * SAMPLES_PER_MS))
    assert (timeline.gaps, timeline.missing) == (0, 0)  # nobody had answered yet


def test_a_long_jump_is_skipped_not_filled() -> None:
    timeline = Timeline()
    timeline.place(0, frame(1))
    assert timeline.place(60_000, frame(2)) == Piece(60_000 * SAMPLES_PER_MS, frame(2))
    assert timeline.missing == (60_000 - 20) * SAMPLES_PER_MS


def test_a_repeat_is_cut() -> None:
    timeline = Timeline()
    timeline.place(0, frame(1))
    assert timeline.place(0, frame(1)).audio == b""
    assert timeline.place(0, frame(1, 2 * FRAME)) == Piece(FRAME, frame(1))
    assert timeline.repeated == 2 * FRAME


@pytest.mark.parametrize("timestamp", [0, 10**17])
def test_a_clock_set_anew_costs_no_words(timestamp: int) -> None:
    timeline = Timeline()
    for ms in range(0, 5000, 20):
        timeline.place(ms, frame(1))
    before = timeline.end
    assert timeline.place(timestamp, frame(2)) == Piece(before, frame(2))
    assert timeline.place(timestamp + 20, frame(3)) == Piece(before + FRAME, frame(3))
    assert timeline.place(timestamp + 140, frame(4)).audio == silence(100 * SAMPLES_PER_MS) + frame(4)


@given(st.lists(st.integers(1, 999), min_size=1, max_size=60))
def test_payloads_of_any_length_stay_in_step_with_whole_milliseconds(lengths: list[int]) -> None:
    timeline, position = Timeline(), 0
    for length in lengths:
        piece = timeline.place(position // SAMPLES_PER_MS, frame(1, length))
        assert (piece.start, len(piece.audio)) == (position, length)
        position += length
    assert timeline.gaps == timeline.repeated == 0


# --- The interleaver --------------------------------------------------------------------------------------------


def step(interleaver: Interleaver, side: int, piece: Piece) -> list[Piece]:
    interleaver.add(side, piece)
    return interleaver.ready()


def together(pieces: list[Piece]) -> tuple[bytes, bytes]:
    audio = b"".join(piece.audio for piece in pieces)
    return audio[0::2], audio[1::2]


def test_two_tracks_take_turns_sample_by_sample() -> None:
    interleaver = Interleaver()
    assert step(interleaver, 0, Piece(0, b"\x01\x02")) == []
    assert step(interleaver, 1, Piece(0, b"\x11\x12")) == [Piece(0, b"\x01\x11\x02\x12")]


def test_a_track_nobody_answers_on_is_hardly_waited_for() -> None:
    interleaver = Interleaver()
    ready = [piece for n in range(10) for piece in step(interleaver, 0, Piece(n * FRAME, frame(1)))]
    caller, callee = together(ready)
    assert len(caller) == 10 * FRAME - Interleaver.WAIT_ABSENT
    assert set(callee) == {SILENCE}


def test_a_track_that_begins_late_loses_nothing() -> None:
    interleaver = Interleaver()
    ready = [piece for n in range(10) for piece in step(interleaver, 0, Piece(n * FRAME, frame(1)))]
    late = Timeline()
    for n in range(10, 20):
        ready += step(interleaver, 0, Piece(n * FRAME, frame(1)))
        ready += step(interleaver, 1, late.place(n * 20, frame(2)))
    ready += interleaver.flush()
    caller, callee = together(ready)
    assert caller == frame(1, 20 * FRAME)
    assert callee == silence(10 * FRAME) + frame(2, 10 * FRAME)


def test_a_stall_as_they_happen_on_real_calls_is_waited_for() -> None:
    interleaver, ready = Interleaver(), []
    for n in range(5):
        ready += step(interleaver, 0, Piece(n * FRAME, frame(1)))
        ready += step(interleaver, 1, Piece(n * FRAME, frame(2)))
    for n in range(5, 17):  # 240 ms of one track alone
        ready += step(interleaver, 0, Piece(n * FRAME, frame(1)))
    for n in range(5, 17):
        ready += step(interleaver, 1, Piece(n * FRAME, frame(2)))
    assert together(ready) == (frame(1, 17 * FRAME), frame(2, 17 * FRAME))
    assert interleaver.cut == 0


def test_a_track_that_falls_away_holds_the_other_up_only_once() -> None:
    interleaver = Interleaver()
    step(interleaver, 0, Piece(0, frame(1)))
    step(interleaver, 1, Piece(0, frame(2)))
    ready = [piece for n in range(1, 100) for piece in step(interleaver, 0, Piece(n * FRAME, frame(1)))]
    assert sum(len(piece.audio) for piece in ready) // 2 == 99 * FRAME - Interleaver.WAIT_ABSENT


def test_a_track_that_is_always_later_is_heard_again_after_its_first_frames() -> None:
    """Were it cut for ever, every word of one side would be lost to a constant skew."""
    interleaver, ready = Interleaver(), []
    for n in range(100):
        ready += step(interleaver, 0, Piece(n * FRAME, frame(1)))
        if n >= 10:
            ready += step(interleaver, 1, Piece((n - 10) * FRAME, frame(2)))
    caller, callee = together([*ready, *interleaver.flush()])
    assert caller == frame(1, 100 * FRAME)
    assert callee.count(2) == 90 * FRAME - interleaver.cut
    assert interleaver.cut <= 10 * FRAME


def test_after_a_long_gap_both_go_on_where_the_audio_does() -> None:
    interleaver = Interleaver()
    step(interleaver, 0, Piece(0, frame(1)))
    step(interleaver, 1, Piece(0, frame(2)))
    start = 60_000 * SAMPLES_PER_MS
    step(interleaver, 0, Piece(start, frame(3)))
    assert step(interleaver, 1, Piece(start, frame(4))) == [Piece(start, b"\x03\x04" * FRAME)]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 400)), max_size=80))
def test_whatever_the_order_both_tracks_come_out_whole_and_in_step(steps: list[tuple[int, int]]) -> None:
    """As long as neither is ahead by more than the wait, which the steps are held to."""
    interleaver, ends, ready = Interleaver(), [0, 0], []
    interleaver.WAIT_ABSENT = Interleaver.WAIT  # type: ignore[misc]
    for side, samples in steps:
        samples = min(samples, ends[1 - side] + Interleaver.WAIT - ends[side])
        ready += step(interleaver, side, Piece(ends[side], frame(side + 1, samples)))
        ends[side] += samples
    ready += interleaver.flush()
    assert [piece.start for piece in ready] == [
        sum(len(piece.audio) // 2 for piece in ready[:n]) for n in range(len(ready))
    ]
    for side, track in enumerate(together(ready)):
        assert track == frame(side + 1, ends[side]) + silence(max(ends) - ends[side])

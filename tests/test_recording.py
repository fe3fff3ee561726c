"""Recordings: what is in the file, whoever wrote it, in whatever order, and whenever it was killed."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import resource
import stat
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import gevent
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as some

from relay import recording
from relay.audio import SAMPLES_PER_MS, SILENCE, Piece, decode_mulaw, silence
from relay.errors import SettingsError
from relay.events import Listened, MediaReceived, StreamBegun, StreamEnded, Track
from relay.hub import Happened
from relay.protocol import CallInfo, SpeechService
from relay.recording import (
    FRAME_BYTES,
    HEADER,
    SAMPLES_MOST,
    SIDES,
    Recorder,
    Recording,
    RecordingError,
    Stretch,
    path_of,
    put,
    read,
)
from relay.store.store import Store
from standins.twilio import SimulatedCall
from tests.calling import Relay, answered, hang_up, in_time, relay
from tests.calling import say as say_to
from tests.numbered import numbered
from tests.program import ROOT, clean_environment
from tests.talking import BOTH, CALL, deepgram, listening

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases",)

INBOUND, OUTBOUND = BOTH


def stretch(track: Track, start_ms: int, length_ms: int, *, at_ms: int | None = None) -> Stretch:
    """Numbered audio, at its own place or at another."""
    position = (start_ms if at_ms is None else at_ms) * SAMPLES_PER_MS
    return Stretch(SIDES.index(track), position, bytearray(numbered(track, start_ms, length_ms)))


def say(one: Recording, length_ms: int, *, at_ms: int = 0, tracks: tuple[Track, ...] = BOTH) -> None:
    """Numbered audio in frames, as a stream brings it."""
    ears = {track: one.ear(track) for track in tracks}
    for ms in range(at_ms, at_ms + length_ms, 20):
        for track, hear in ears.items():
            hear(Piece(ms * SAMPLES_PER_MS, numbered(track, ms, 20)))
    one.pass_on()


def length_ms(path: Path) -> int:
    """How long the file says it is; two players agree on it, and on all that is in it."""
    with wave.open(str(path)) as sound:
        assert sound.getparams()[:3] == (2, 2, 8000)
        samples: int = sound.getnframes()
        played = sound.readframes(samples)
    assert len(played) == samples * FRAME_BYTES, "the header promises more than there is"
    assert soundfile.info(path).subtype == "PCM_16"
    assert soundfile.read(path, dtype="int16", always_2d=True)[0].tobytes() == played
    return samples // SAMPLES_PER_MS


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "WRITE_EVERY", 0.02)
    monkeypatch.setattr(recording, "PLACE_FIRST", 0.01)


# --- The file --------------------------------------------------------------------------------------------------


def test_left_is_inbound_and_right_is_outbound(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    put(path, [stretch(INBOUND, 0, 1000), stretch(OUTBOUND, 0, 1000)])
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 8000
    assert samples[:, 0].tolist() == decode_mulaw(numbered(INBOUND, 0, 1000)).tolist()
    assert samples[:, 1].tolist() == decode_mulaw(numbered(OUTBOUND, 0, 1000)).tolist()
    assert length_ms(path) == 1000


def test_every_mulaw_byte_keeps_its_loudness(tmp_path: Path) -> None:
    path, every = tmp_path / "call.wav", bytes(range(256)) * 8
    put(path, [Stretch(1, 0, bytearray(every))])
    assert soundfile.read(path, dtype="int16")[0][:, 1].tolist() == decode_mulaw(every).tolist()
    assert read(path, OUTBOUND, 0, 256) == every.replace(b"\x7f", b"\xff"), "a negative zero may become a positive one"


stretches = some.lists(
    some.builds(
        Stretch,
        some.integers(0, 1),
        some.integers(0, 400),
        some.binary(max_size=80).map(lambda audio: bytearray(audio.replace(b"\x7f", b"\xff"))),
    ),
    max_size=8,
)


@given(writes=some.lists(stretches, min_size=1, max_size=4))
def test_audio_finds_its_place_in_any_order(
    writes: list[list[Stretch]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any-order") / "call.wav"
    sides = [bytearray(silence(480)), bytearray(silence(480))]
    for pieces in writes:
        put(path, pieces)
        for side, start, audio in pieces:
            sides[side][start : start + len(audio)] = audio
        length_ms(path)
    assert [read(path, track, 0, 60) for track in SIDES] == sides


def test_hours_without_audio_take_no_room(tmp_path: Path) -> None:
    path, ten_hours = tmp_path / "call.wav", 36_000_000
    put(path, [stretch(INBOUND, 0, 1000), stretch(INBOUND, 1000, 1000, at_ms=ten_hours)])
    assert path.stat().st_size > 1_000_000_000
    assert path.stat().st_blocks * 512 < 1_000_000
    assert soundfile.info(path).frames == (ten_hours + 1000) * SAMPLES_PER_MS
    assert read(path, INBOUND, ten_hours - 500, ten_hours + 1000) == silence(4000) + numbered(INBOUND, 1000, 1000)


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        put(tmp_path / "call.wav", [stretch(INBOUND, 0, 20)])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "call.wav").stat().st_mode) == 0o600


def test_what_the_header_cannot_tell_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    put(path, [stretch(INBOUND, 0, 1000)])
    with pytest.raises(OSError, match="too large"):
        put(path, [Stretch(0, SAMPLES_MOST - 10, bytearray(100))])
    assert length_ms(path) == 1000


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can become larger: what the disk has no room for fails, as on a full one, after a part was written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("spare", [0, 1, 3, 4001, 8002])
def test_a_full_disk_leaves_a_file_that_plays(tmp_path: Path, spare: int) -> None:
    path = tmp_path / "call.wav"
    put(path, [stretch(track, 0, 1000) for track in BOTH])
    with room_for(path.stat().st_size + spare), pytest.raises(OSError, match="too large"):
        put(path, [stretch(track, 1000, 1000) for track in BOTH])
    assert length_ms(path) == 1000
    put(path, [stretch(track, 2000, 1000) for track in BOTH])
    assert length_ms(path) == 3000
    for track in BOTH:
        assert read(path, track, 0, 1000) == numbered(track, 0, 1000)
        assert read(path, track, 2000, 3000) == numbered(track, 2000, 1000)


def test_one_side_of_an_hour_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    put(path, [stretch(track, 0, 60_000) for track in BOTH])
    assert read(path, OUTBOUND, 5_000, 47_123) == numbered(OUTBOUND, 5_000, 42_123)
    assert read(path, INBOUND, 59_000, 62_000) == numbered(INBOUND, 59_000, 1_000) + silence(16_000)
    assert read(path, INBOUND, 90_000, 91_000) == silence(8_000)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is no recording"),
        (b"RIFF", "is no recording"),
        (b"\0" * 100, "is no recording"),
        (b"mono", "is not as this program writes recordings"),
    ],
)
def test_what_is_no_recording_is_said_in_a_sentence(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "call.wav"
    if content == b"mono":
        soundfile.write(path, [0.0] * 100, 8000)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError, match=says):
        read(path, INBOUND, 0, 1000)


@pytest.mark.parametrize("spare", range(1, FRAME_BYTES))
def test_of_a_file_that_was_cut_off_in_a_sample_all_before_is_read(tmp_path: Path, spare: int) -> None:
    path = tmp_path / "call.wav"
    put(path, [Stretch(0, 0, bytearray(numbered(INBOUND, 0, 60)))])
    os.truncate(path, HEADER.size + 40 * SAMPLES_PER_MS * FRAME_BYTES + spare)
    assert read(path, INBOUND, 0, 60) == numbered(INBOUND, 0, 40) + silence(20 * SAMPLES_PER_MS)


@pytest.mark.parametrize("sid", ["../../etc/passwd", "..", ".", "", "a/b\\c", "nul\0", "\ud800", "C" * 5000, "CA:1|?*"])
def test_no_sid_leads_out_of_the_folder(tmp_path: Path, sid: str) -> None:
    path = path_of(tmp_path, sid)
    put(path, [stretch(INBOUND, 0, 20)])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_no_two_sids_have_one_recording(tmp_path: Path) -> None:
    """Whoever deletes one call would delete the other's."""
    sids = ["é" * 100 + "1", "é" * 100 + "2", "a.", "a%2E", "", ".", "CA1", "CA1.wav", "C" * 5000, "C" * 5001]
    assert len({path_of(tmp_path, sid) for sid in sids}) == len(sids)


# --- A call ----------------------------------------------------------------------------------------------------


def test_a_call_is_recorded_from_its_first_frame_to_its_last(tmp_path: Path, hurry: None) -> None:
    one = Recorder(tmp_path / "data" / "recordings", None).record(CALL, BOTH)
    for ms in range(0, 3000, 100):
        say(one, 100, at_ms=ms)
        gevent.sleep(0.002)
    one.finish()
    one.close()
    assert one.lost_ms == 0
    assert length_ms(one.path) == 3000
    for track in BOTH:
        assert read(one.path, track, 0, 3000) == numbered(track, 0, 3000)


def test_a_track_that_is_late_or_jumps_finds_its_place(tmp_path: Path, hurry: None) -> None:
    one = Recorder(tmp_path, None).record(CALL, BOTH)
    say(one, 5000, tracks=(INBOUND,))
    gevent.sleep(0.1)
    say(one, 1000, at_ms=2000, tracks=(OUTBOUND,))
    say(one, 1000, at_ms=7000, tracks=(OUTBOUND,))
    one.close()
    assert read(one.path, INBOUND, 0, 8000) == numbered(INBOUND, 0, 5000) + silence(24_000)
    assert read(one.path, OUTBOUND, 1000, 8000) == (
        silence(8_000) + numbered(OUTBOUND, 2000, 1000) + silence(32_000) + numbered(OUTBOUND, 7000, 1000)
    )


def test_it_says_to_the_stream_what_a_feed_says(tmp_path: Path) -> None:
    one = Recorder(tmp_path, None).record(CALL, (OUTBOUND,))
    assert (one.tracks, one.tallies, one.cut_ms, one.unsent_ms) == ((OUTBOUND,), [], 0, 0)
    assert one.missing_ms >= 250, "a stream never wakes for its sake: no service takes longer chunks"
    one.close()
    assert not one.path.exists(), "a stream that brought nothing leaves no file"


def test_two_streams_of_one_call_each_bring_a_side(tmp_path: Path, hurry: None) -> None:
    recorder = Recorder(tmp_path, None)
    both = [recorder.record(CALL, (track,)) for track in BOTH]
    for ms in range(0, 2000, 100):
        for one, track in zip(both, BOTH, strict=True):
            say(one, 100, at_ms=ms, tracks=(track,))
        gevent.sleep(0.003)
    for one in both:
        one.close()
    for track in BOTH:
        assert read(both[0].path, track, 0, 2000) == numbered(track, 0, 2000)


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"^RECORDINGS_FOLDER "):
        Recorder(tmp_path / "file" / "recordings", None)


# --- Through the relay -----------------------------------------------------------------------------------------


@contextmanager
def recording_relay(folder: Path, *services: SpeechService, **settings: object) -> Iterator[tuple[Relay, Recorder]]:
    """A relay that records."""
    recorder = Recorder(folder, None)
    with relay(*services, **settings) as running:  # type: ignore[arg-type]
        running.switchboard.recorder = recorder
        yield running, recorder


@pytest.mark.parametrize("together", ["together", "apart"])
def test_a_call_is_recorded_while_it_is_transcribed(tmp_path: Path, hurry: None, together: str) -> None:
    with listening() as server, recording_relay(tmp_path, deepgram(server), tracks=together) as (running, recorder):
        call = answered(running.url)
        in_time(call, 5_000)
        say_to(call, 1_000, at_ms=8_000)
        hang_up(call)
        end = running.ended(call)
    assert (end.words, end.missing_ms) == (2 * 300, 2 * 3_000)
    path = path_of(recorder.folder, call.call_sid)
    for track in BOTH:
        assert running.of(call).frames(track) == [*range(250), *range(400, 450)]
        before, after = numbered(track, 0, 5_000), numbered(track, 8_000, 1_000)
        assert read(path, track, 0, 9_000) == before + silence(24_000) + after
    assert length_ms(path) == 9_000


def test_a_call_that_nobody_transcribes_is_recorded_all_the_same(tmp_path: Path, hurry: None) -> None:
    with recording_relay(tmp_path) as (running, recorder):
        call = answered(running.url, "outbound")
        say_to(call, 3_000)
        hang_up(call)
        running.ended(call)
    path = path_of(recorder.folder, call.call_sid)
    assert length_ms(path) == 3_000
    assert read(path, OUTBOUND, 0, 3_000) == numbered(OUTBOUND, 0, 3_000)
    assert read(path, INBOUND, 0, 3_000) == silence(24_000)


def test_a_stream_that_stands_by_is_not_recorded(tmp_path: Path, hurry: None) -> None:
    with recording_relay(tmp_path) as (running, recorder):
        first = answered(running.url)
        say_to(first, 1_000)
        running.wait_for(lambda: running.of(first).of(MediaReceived))
        second = SimulatedCall(running.url)
        second.call_sid = first.call_sid
        second.open()
        second.start()
        for ms in range(0, 500, 20):
            second.say("inbound", b"\x10" * 160, at_ms=ms)
        hang_up(second)
        running.ended(second)
        hang_up(first)
        running.ended(first)
    assert read(path_of(recorder.folder, first.call_sid), INBOUND, 0, 1_000) == numbered(INBOUND, 0, 1_000)


# --- Beside the store ------------------------------------------------------------------------------------------


@contextmanager
def stored(database: str) -> Iterator[Store]:
    store = Store(database)
    store.open()
    try:
        yield store
    finally:
        store.close(10)


def begin(store: Store, call: CallInfo) -> None:
    store.hear(Happened(call, StreamBegun(("Deepgram",))))


def end(store: Store, call: CallInfo, length_ms: int) -> None:
    ended = StreamEnded("stop", length_ms, 1, 0, 0, 0, 0, 0, 0, None, None)
    store.hear(Happened(call, Listened(length_ms)))
    store.hear(Happened(call, ended))


def written(store: Store) -> None:
    with gevent.Timeout(10):
        while store.waiting:
            gevent.sleep(0.01)


def another(call: CallInfo) -> CallInfo:
    """A further stream of the same call."""
    return CallInfo(call.call_sid, call.stream_sid[:-1] + "2", call.tracks)


def test_a_further_stream_goes_on_in_the_same_file_where_the_store_says(
    database: str, tmp_path: Path, hurry: None
) -> None:
    with stored(database) as store:
        recorder = Recorder(tmp_path / "recordings", store)
        begin(store, CALL)
        first = recorder.record(CALL, BOTH)
        say(first, 2000)
        first.close()
        end(store, CALL, 2000)
        gevent.sleep(0.3)
        begin(store, another(CALL))
        second = recorder.record(another(CALL), BOTH)
        say(second, 2000)
        second.close()
        end(store, another(CALL), 2000)
        written(store)
        call = store.call(CALL.call_sid)
    assert call is not None
    assert call.recording == str(first.path) == str(second.path)
    offset_ms = call.streams[1].offset_ms
    assert offset_ms >= 2000
    for track in BOTH:
        assert read(first.path, track, 0, 2000) == numbered(track, 0, 2000)
        assert read(first.path, track, 2000, offset_ms) == silence((offset_ms - 2000) * SAMPLES_PER_MS)
        assert read(first.path, track, offset_ms, offset_ms + 2000) == numbered(track, 0, 2000)


def test_deleting_a_call_deletes_its_recording(database: str, tmp_path: Path, hurry: None) -> None:
    with stored(database) as store:
        begin(store, CALL)
        one = Recorder(tmp_path / "recordings", store).record(CALL, BOTH)
        say(one, 1000)
        one.close()
        end(store, CALL, 1000)
        assert one.path.exists()
        assert store.delete(CALL.call_sid)
    assert not one.path.exists()


def test_the_store_may_come_late(tmp_path: Path, hurry: None) -> None:
    """The stream begins, audio comes; only then is it stored."""
    with stored(f"sqlite:///{tmp_path}/calls.db") as store:
        one = Recorder(tmp_path / "recordings", store).record(CALL, BOTH)
        say(one, 1000)
        gevent.sleep(0.2)
        assert not one.path.exists()
        begin(store, CALL)
        one.close()
        end(store, CALL, 1000)
        written(store)
        call = store.call(CALL.call_sid)
    assert call is not None
    assert call.recording == str(one.path)
    assert read(one.path, INBOUND, 0, 1000) == numbered(INBOUND, 0, 1000)


def test_without_a_store_the_file_itself_tells_where_a_stream_goes_on(
    tmp_path: Path, hurry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path, None)
    first = recorder.record(CALL, BOTH)
    say(first, 2000)
    first.close()
    os.utime(first.path, (first._began, first._began - 3))  # it was written three seconds before
    monkeypatch.setattr("time.time", lambda: first._began)
    second = recorder.record(another(CALL), BOTH)
    say(second, 1000)
    second.close()
    assert length_ms(first.path) == 6000
    assert read(first.path, INBOUND, 0, 6000) == (
        numbered(INBOUND, 0, 2000) + silence(24_000) + numbered(INBOUND, 0, 1000)
    )


def test_a_lost_database_costs_no_audio(tmp_path: Path, hurry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it does: here it says that there is no such call, for as long as it is asked."""
    monkeypatch.setattr(recording, "PLACE_WITHIN", 0.1)
    with stored(f"sqlite:///{tmp_path}/calls.db") as store:
        one = Recorder(tmp_path / "recordings", store).record(CALL, BOTH)
        say(one, 1000)
        one.close()
    assert one.lost_ms == 0
    assert read(one.path, OUTBOUND, 0, 1000) == numbered(OUTBOUND, 0, 1000)


def test_a_recording_is_noted_when_the_database_comes_back_after_the_call(
    postgresql: Server, tmp_path: Path, hurry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would neither be found otherwise, nor be deleted with its call."""
    monkeypatch.setattr(recording, "PLACE_WITHIN", 0.1)
    monkeypatch.setattr(recording, "NOTE_MOST", 0.1)
    with stored(postgresql.new_database()) as store, gevent.Timeout(60):
        postgresql.stop()
        try:
            begin(store, CALL)
            one = Recorder(tmp_path / "recordings", store).record(CALL, BOTH)
            say(one, 1000)
            one.close()
            end(store, CALL, 1000)
        finally:
            postgresql.start()
        while store.trouble or store.waiting or not (call := store.call(CALL.call_sid)) or not call.recording:
            gevent.sleep(0.05)
        assert call.recording == str(one.path)
        assert store.delete(CALL.call_sid)
    assert not one.path.exists()


# --- Disks -----------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_no_call_and_is_said_once(
    tmp_path: Path, hurry: None, caplog: pytest.LogCaptureFixture
) -> None:
    one = Recorder(tmp_path, None).record(CALL, BOTH)
    say(one, 1000)
    with gevent.Timeout(10):
        while one._held:
            gevent.sleep(0.01)
        assert length_ms(one.path) == 1000
        with room_for(one.path.stat().st_size):
            for ms in range(1000, 2000, 100):
                say(one, 100, at_ms=ms)
                gevent.sleep(0.05)
            while one._held:
                gevent.sleep(0.01)
    say(one, 1000, at_ms=2000)
    one.close()
    assert one.lost_ms == 2000, "a second of each side"
    for track in BOTH:
        assert read(one.path, track, 0, 1000) == numbered(track, 0, 1000)
        assert read(one.path, track, 2000, 3000) == numbered(track, 2000, 1000)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "too large" in said[0]
    assert "2.0 s are missing" in said[1]


@contextmanager
def held_up(path: Path) -> Iterator[IO[bytes]]:
    """A disk that does not answer: whoever writes to this file waits."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def test_a_slow_disk_holds_up_nobody(
    tmp_path: Path, hurry: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "CLOSE_WITHIN", 0.2)
    one = Recorder(tmp_path, None).record(CALL, BOTH)
    with held_up(one.path), gevent.Timeout(30):
        for ms in range(0, 20_000, 100):
            say(one, 100, at_ms=ms)
            gevent.sleep(0.001)
        assert one._held <= recording.HELD_MOST + 20 * SAMPLES_PER_MS
        assert sum(len(each.audio) for each in one._stretches) <= one._held
        one.close()
    assert one.lost_ms == 40_000, "all of it, since nothing was written in time"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "the disk is too slow" in said[0]


def test_what_was_given_up_comes_to_no_file_later(tmp_path: Path, hurry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "CLOSE_WITHIN", 0.1)
    recorder = Recorder(tmp_path, None)
    slow, behind = recorder.record(CALL, BOTH), recorder.record(CallInfo("CA2", "MZ2", BOTH), BOTH)
    gevent.sleep(0.05)
    with held_up(slow.path):
        say(slow, 100)
        gevent.sleep(0.05)
        say(behind, 100)
        behind.close()
        assert behind.lost_ms == 200
    slow.close()
    recorder.end_of(slow.path, 0)  # the thread has come to all before
    assert not behind.path.exists()


def test_a_disk_that_was_slow_for_a_while_gets_all_that_was_kept(tmp_path: Path, hurry: None) -> None:
    one = Recorder(tmp_path, None).record(CALL, BOTH)
    with held_up(one.path):
        say(one, 10_000)
        gevent.sleep(0.2)
    say(one, 1_000, at_ms=10_000)
    one.close()
    assert one.lost_ms == 0
    assert read(one.path, INBOUND, 0, 11_000) == numbered(INBOUND, 0, 11_000)


# --- kill -9 ---------------------------------------------------------------------------------------------------

CALLS_AT_ONCE = 20
WRITER = f"""
import sys
import gevent
from pathlib import Path
from relay import recording
from relay.protocol import CallInfo
from tests.talking import BOTH
from tests.test_recording import say

recording.WRITE_EVERY = float(sys.argv[2])
recorder = recording.Recorder(Path(sys.argv[1]), None)
calls = []
for tick in range(3000):  # of 20 ms
    if len(calls) < {CALLS_AT_ONCE}:
        calls.append((tick, recorder.record(CallInfo(f"CA{{tick}}", f"MZ{{tick}}", BOTH), BOTH)))
    for begun, one in calls:
        say(one, 20, at_ms=(tick - begun) * 20)
    print(tick, max(one._held for _, one in calls) // len(BOTH) // {SAMPLES_PER_MS}, flush=True)
    gevent.sleep(0.02)
"""


def killed(folder: Path, write_every: float, after: int) -> tuple[int, int]:
    """Has a process record calls, one more in each 20 ms, and kills it after so many of those, when the disk keeps up;
    tells when it died, and how many milliseconds of a call then waited for the disk at most."""
    environ = clean_environment() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITER, str(folder), str(write_every)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tick, held_ms = map(int, line.split())
            if tick >= after and held_ms < 1500:
                break
        process.kill()
        for line in process.stdout:
            tick, held_ms = map(int, line.split())
        return tick, held_ms


def check(folder: Path, died_at: int, lost_at_most_ms: int) -> None:
    """Every call's file plays, and lacks but its last moments."""
    for begun in range(CALLS_AT_ONCE):
        path = path_of(folder, f"CA{begun}")
        said_ms = (died_at - begun) * 20
        there_ms = length_ms(path) if path.exists() and path.stat().st_size else 0
        assert there_ms >= said_ms - lost_at_most_ms
        if there_ms:
            for track in BOTH:
                audio = read(path, track, 0, there_ms)
                heard = len(audio.rstrip(bytes((SILENCE,))))
                assert audio[:heard] == numbered(track, 0, there_ms)[:heard]


def test_after_kill_9_a_recording_lacks_a_second_or_so(tmp_path: Path) -> None:
    """Calls that began one after the other are each in another moment of their second."""
    died_at, held_ms = killed(tmp_path, recording.WRITE_EVERY, after=random.randint(100, 150))
    check(tmp_path, died_at, lost_at_most_ms=max(2000, held_ms))


@pytest.mark.parametrize("number", range(8))
def test_after_kill_9_in_the_middle_of_a_write_every_recording_plays(tmp_path: Path, number: int) -> None:
    died_at, held_ms = killed(tmp_path, 0.0, after=random.randint(5, 60))
    check(tmp_path, died_at, lost_at_most_ms=max(2000, held_ms))

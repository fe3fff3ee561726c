"""A call's recording over HTTP: what is played of it, whole or in parts, while it grows too; and how it looks."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import gevent
import pytest
from gevent.monkey import get_original

from relay.audio import SAMPLE_RATE, SAMPLES_PER_MS, decode_mulaw
from relay.events import Track
from relay.playback import Snapshot
from relay.protocol import CallInfo
from relay.recording import FRAME_BYTES, HEADER, SIDES, Stretch, put
from relay.store.store import Store
from relay.waveform import Waveform, waveform
from tests.serving import Serving, begun, call_info, ended, serving
from tests.talking import BOTH

pytest_plugins = ("tests.databases", "tests.stores")

IN, OUT = BOTH
LOUD: Final = 0x80  # mu-law, as loud as can be
SOFT: Final = 0xB0
AN_HOUR_MS: Final = 3_600_000

_lock_of_threads = get_original("_thread", "allocate_lock")  # for which gevent's loop, too, would stand still


def level(byte: int) -> float:
    """How high a sample stands in a waveform."""
    return round(abs(decode_mulaw(bytes([byte]))[0]) / 32768, 3)


def record(path: Path, track: Track, start_ms: int, length_ms: int, byte: int = LOUD) -> Path:
    """Puts one tone into a recording."""
    audio = bytearray([byte]) * (length_ms * SAMPLES_PER_MS)
    put(path, [Stretch(SIDES.index(track), start_ms * SAMPLES_PER_MS, audio)])
    return path


def look(path: Path, points: int) -> Waveform:
    """The waveform of a file as it is now."""
    there = path.stat()
    return waveform(path, there.st_size, there.st_mtime_ns, points)


@contextmanager
def recorded(store: Store, path: Path | None, sid: str = call_info(1).call_sid) -> Iterator[tuple[Serving, str]]:
    """A server with a call that has ended, and its recording; and where that is asked for."""
    with serving(store) as running:
        running.happens(CallInfo(sid, "MZ1", BOTH), begun(), ended())
        with gevent.Timeout(20):
            while (call := store.call(sid)) is None or call.ended_at is None:
                gevent.sleep(0.005)
        if path is not None:
            store.note_recording(sid, str(path))
        yield running, f"/api/calls/{quote(sid, safe='')}"


# --- How it looks ----------------------------------------------------------------------------------------------


def test_each_side_is_drawn_as_loud_as_it_is_where_it_is(tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 500, 500)
    record(path, OUT, 0, 200, SOFT)
    seen = look(path, 10)
    assert seen.duration_ms == 1_000
    assert seen.inbound == (0.0,) * 5 + (level(LOUD),) * 5
    assert seen.outbound == (level(SOFT),) * 2 + (0.0,) * 8
    assert 0 < level(SOFT) < level(LOUD) <= 1


def test_one_loud_sample_of_a_short_call_is_seen(tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 1_000, 0xFF)
    put(path, [Stretch(0, 4_321, bytearray([LOUD]))])
    seen = look(path, 100)
    assert [number for number, peak in enumerate(seen.inbound) if peak] == [4_321 * 100 // 8_000]


def test_of_hours_a_word_is_seen_where_it_was_said(tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", OUT, 3 * AN_HOUR_MS - 1_000, 1_000)
    record(path, IN, AN_HOUR_MS, 300)
    seen = look(path, 300)
    assert seen.duration_ms == 3 * AN_HOUR_MS
    assert [number for number, peak in enumerate(seen.inbound) if peak] == [100]
    assert [number for number, peak in enumerate(seen.outbound) if peak] == [299]
    assert set(look(path, 10).inbound) == {0.0, level(LOUD)}


def test_a_recording_that_has_hardly_begun_has_few_points_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    put(path, [])
    assert look(path, 1_000) == (0, (), ())
    put(path, [Stretch(0, 0, bytearray([LOUD] * 3))])
    assert look(path, 1_000) == (0, (level(LOUD),) * 3, (0.0,) * 3)


def test_the_waveform_is_asked_for_with_as_many_points_as_wanted(store: Store, tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 5_000)
    with recorded(store, path) as (running, call):
        for query, points in (("", 1_000), ("?points=10", 10), ("?points=4000", 4_000)):
            seen = running.ask(f"{call}/waveform.json{query}").document
            assert seen == {"duration_ms": 5_000, "inbound": [level(LOUD)] * points, "outbound": [0.0] * points}
        for wrong in ("9", "4001", "x"):
            answer = running.ask(f"{call}/waveform.json?points={wrong}")
            assert answer.document["detail"].startswith("points should be a whole number from 10 to 4000")
        record(path, OUT, 5_000, 5_000)
        assert running.ask(f"{call}/waveform.json?points=10").document["outbound"] == [0.0] * 5 + [level(LOUD)] * 5


# --- How it is played ------------------------------------------------------------------------------------------


def test_a_recording_is_sent_whole_and_in_parts(store: Store, tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 20_000)
    record(path, OUT, 10_000, 15_000, SOFT)
    content = path.read_bytes()
    with recorded(store, path) as (running, call):
        whole = running.ask(f"{call}/recording.wav")
        head = running.ask(f"{call}/recording.wav", "HEAD")
        parts = {asked: running.ask(f"{call}/recording.wav", Range=f"bytes={asked}") for asked in PARTS}
    assert (whole.status, whole.body) == (200, content)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(content)))
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["cache-control"] == "no-store"
    assert whole.headers["content-disposition"] == f"attachment; filename={call_info(1).call_sid}.wav"
    for asked, part in parts.items():
        first, end = PARTS[asked]
        assert (part.status, part.body) == (206, content[first:end]), asked
        last = first + len(part.body) - 1
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"


PARTS: Final = {
    "0-": (0, None),
    "0-9": (0, 10),
    "40-60": (40, 61),  # over the end of the header
    "44-300043": (44, 300_044),
    "500000-": (500_000, None),
    "799999-9999999": (799_999, None),
    "-100": (-100 + 25 * SAMPLE_RATE * FRAME_BYTES + HEADER.size, None),
}


def test_a_part_that_there_is_not_is_a_problem_that_says_how_much_there_is(store: Store, tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 1_000)
    with recorded(store, path) as (running, call):
        answer = running.ask(f"{call}/recording.wav", Range="bytes=99999999-")
    assert (answer.status, answer.headers["content-type"]) == (416, "application/problem+json")
    assert answer.headers["content-range"] == f"bytes */{path.stat().st_size}"


def test_parts_that_cannot_be_read_or_are_several_are_not_heeded(store: Store, tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 1_000)
    with recorded(store, path) as (running, call):
        for asked in ("bytes=abc", "bytes=5-2", "bytes=0-1,5-6", "bytes=-9999999", "bytes=", "seconds=0-1", "5"):
            answer = running.ask(f"{call}/recording.wav", Range=asked)
            assert (answer.status, answer.body) == (200, path.read_bytes()), asked
            assert answer.headers["accept-ranges"] == "bytes"


def test_who_has_it_already_is_told_so_until_it_has_grown(store: Store, tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 1_000)
    with recorded(store, path) as (running, call):
        etag = running.ask(f"{call}/recording.wav").headers["etag"]
        same = running.ask(f"{call}/recording.wav", **{"If-None-Match": etag})
        part = running.ask(f"{call}/recording.wav", Range="bytes=0-9", **{"If-Range": etag})
        record(path, IN, 1_000, 1_000)
        other = running.ask(f"{call}/recording.wav", **{"If-None-Match": etag})
        gone = running.ask(f"{call}/recording.wav", **{"If-Match": etag})
        all_anew = running.ask(f"{call}/recording.wav", Range="bytes=0-9", **{"If-Range": etag})
    assert (same.status, same.body) == (304, b"")
    assert (part.status, len(part.body)) == (206, 10)
    assert (other.status, all_anew.status) == (200, 200)
    assert (gone.status, gone.headers["content-type"]) == (412, "application/problem+json")
    assert other.body == all_anew.body == path.read_bytes()


def test_what_is_sent_of_a_call_that_runs_is_one_moment_of_it(tmp_path: Path) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 3_000)
    snapshot = Snapshot(path)
    record(path, OUT, 3_000, 9_000)
    content = b""
    while piece := snapshot.read(10_000):
        content += piece
    snapshot.close()
    assert len(content) == snapshot.size == HEADER.size + 3 * SAMPLE_RATE * FRAME_BYTES
    with wave.open(io.BytesIO(content)) as sound:
        assert sound.getnframes() == 3 * SAMPLE_RATE
        assert len(sound.readframes(10 * SAMPLE_RATE)) == 3 * SAMPLE_RATE * FRAME_BYTES


def test_a_disk_that_is_slow_holds_up_nobody_else(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 1_000)
    disk = _lock_of_threads()
    disk.acquire()
    read = Snapshot._read

    def read_late(self: Snapshot, position: int, size: int) -> bytes:
        assert disk.acquire(timeout=20)
        disk.release()
        return read(self, position, size)

    monkeypatch.setattr(Snapshot, "_read", read_late)
    with recorded(store, path) as (running, call):
        download: Any = gevent.spawn(running.ask, f"{call}/recording.wav")
        gevent.sleep(0.05)
        assert running.ask("/healthz").status == 200
        assert not download.ready()
        disk.release()
        assert download.get(timeout=20).body == path.read_bytes()


def test_many_hours_are_sent_in_pieces(store: Store, tmp_path: Path) -> None:
    """The file is sparse: what matters is that it is never held in memory, and that its far end is found."""
    path = record(tmp_path / "a.wav", IN, 30 * AN_HOUR_MS, 1_000)
    size = path.stat().st_size
    assert size > 3 * 2**30
    with recorded(store, path) as (running, call):
        end = running.ask(f"{call}/recording.wav", Range=f"bytes={size - 8}-")
        head = running.ask(f"{call}/recording.wav", "HEAD")
    assert head.headers["content-length"] == str(size)
    assert end.body == struct.pack("<hh", decode_mulaw(bytes([LOUD]))[0], 0) * 2


def test_a_call_without_a_recording_says_so(store: Store, tmp_path: Path) -> None:
    nonsense = tmp_path / "b.wav"
    nonsense.write_bytes(b"this is no sound")
    for path in (None, tmp_path / "gone.wav", nonsense, tmp_path):
        with recorded(store, path) as (running, call):
            for what in ("recording.wav", "waveform.json"):
                answer = running.ask(f"{call}/{what}")
                assert (answer.status, answer.document["detail"]) == (404, "There is no recording of this call.")
                assert running.ask(f"/api/calls/CAnobody/{what}").document["detail"] == "There is no such call."


@pytest.mark.parametrize("sid", ['CA"; x="', "CA\r\nSet-Cookie: a=b", "..\\..\\a.exe", "Ä日本"])
def test_no_sid_leaves_its_header(store: Store, tmp_path: Path, sid: str) -> None:
    path = record(tmp_path / "a.wav", IN, 0, 100)
    with recorded(store, path, sid) as (running, call):
        answer = running.ask(f"{call}/recording.wav")
    kind, _, name = answer.headers["content-disposition"].partition("; filename=")
    assert kind == "attachment"
    assert set(name) <= set("CASetCookieabx._-wvCexd0123456789.")
    assert "set-cookie" not in answer.headers

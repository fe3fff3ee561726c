"""Both sides of a call as one sound file on the call's clock: left is what came inbound, right what came outbound.

WAV with 16-bit PCM: every player opens it, and its silence is zeros, which is what a file system shows where nothing
was written. So audio is put where it belongs, in any order and by any stream of the call, and what never came takes no
room. (Mu-law would be half as large, but where nothing was written it is as loud as can be.) The header is made true
after each write, and tells of no more than is there: whenever the program is killed, the file can be played.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import sys
import time
import wave
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple
from urllib.parse import quote

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from relay.audio import SAMPLE_RATE, SAMPLES_PER_MS, Piece, decode_mulaw, encode_mulaw, silence
from relay.conversation import Tally
from relay.errors import RelayError, SettingsError
from relay.events import Track
from relay.protocol import CallInfo
from relay.speech import backoff
from relay.store.store import Store, StoreError
from relay.store.telling import LONGEST_SID, storable
from relay.text import printable

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

WRITE_EVERY: Final = 1.0  # seconds; so much is lost when the program is killed
HELD_MOST: Final = 30_000 * SAMPLES_PER_MS  # samples of a call that wait for a disk; 15 s of both sides
REST_MS: Final = 250.0  # that a stream may sleep for all a recording needs
PLACE_WITHIN: Final = 5.0  # seconds in which the store can say where a stream begins on its call's clock
PLACE_FIRST: Final = 0.1  # seconds until it is asked; doubled each time
PLACE_MOST: Final = 1.0
NOTE_WITHIN: Final = 1.0  # seconds the disk's turn waits for the store
NOTE_FIRST: Final = 1.0  # seconds after a stream's end, when the store was away until then; doubled each time
NOTE_MOST: Final = 60.0
NOTE_UNTIL: Final = 24 * 3600.0  # seconds after a stream's end; a call that is unknown by then was deleted
CLOSE_WITHIN: Final = 10.0  # seconds a call's end waits for the disk
TOO_SLOW: Final = "the disk is too slow"
LONGEST_NAME: Final = 100  # characters; file systems take 255 bytes, and a file may have two such names
LONGEST_START: Final = 30  # of a name that is longer, before the hash that tells it from others

SIDES: Final = (Track.INBOUND, Track.OUTBOUND)  # left and right
SAMPLE_BYTES: Final = 2
FRAME_BYTES: Final = SAMPLE_BYTES * len(SIDES)  # of one moment, both sides together
HEADER: Final = struct.Struct("<4sI4s 4sIHHIIHH 4sI")
SAMPLES_MOST: Final = (2**32 - HEADER.size) // FRAME_BYTES  # the header's sizes have 32 bits; 37 hours
BLOCK_MS: Final = 10_000  # of audio, read at a time

_LOW: Final = bytes(sample & 0xFF for sample in decode_mulaw(bytes(range(256))))
_HIGH: Final = bytes(sample >> 8 & 0xFF for sample in decode_mulaw(bytes(range(256))))


class RecordingError(RelayError):
    """A recording cannot be read. The message is one sentence that says why."""


class Stretch(NamedTuple):
    """Mu-law of one side without a hole, from a position on."""

    side: int
    start: int
    audio: bytearray


# --- The file -----------------------------------------------------------------------------------------------


def path_of(folder: Path, call_sid: str) -> Path:
    """Where a call's recording lies."""
    return folder / f"{file_name(call_sid)}.wav"


def file_name(given: str) -> str:
    """With what the name of a SID's file begins. SIDs come from outside and may be anything: none leads out of the
    folder, or to another SID's file."""
    name = quote(given, safe="", errors="replace")
    if 0 < len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_START]}~{sha256(given.encode(errors='replace')).hexdigest()}"


def put(path: Path, stretches: Iterable[Stretch]) -> None:
    """Puts audio where it belongs in the file, which is made if there is none. Raises OSError.

    Where several processes have streams of one call, they take turns.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:  # for its owner alone
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_size < HEADER.size:
            _tell_size(file)
        for stretch in stretches:
            _put(file, stretch)
        file.flush()
        _tell_size(file)


def _put(file: BufferedRandom, stretch: Stretch) -> None:
    """Leaves the other side as it is. Translated and laid in bytewise: 20 µs for a second of both sides; sample by
    sample it takes 900."""
    side, start, audio = stretch
    if start + len(audio) > SAMPLES_MOST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    position, size = HEADER.size + start * FRAME_BYTES, len(audio) * FRAME_BYTES
    file.seek(position)
    both = bytearray(file.read(size).ljust(size, b"\0"))
    both[side * SAMPLE_BYTES :: FRAME_BYTES] = audio.translate(_LOW)
    both[side * SAMPLE_BYTES + 1 :: FRAME_BYTES] = audio.translate(_HIGH)
    file.seek(position)
    file.write(both)


def _tell_size(file: BufferedRandom) -> None:
    """Writes the header for what is there: http://soundfile.sapp.org/doc/WaveFormat/."""
    samples = max(0, os.fstat(file.fileno()).st_size - HEADER.size) // FRAME_BYTES
    size = samples * FRAME_BYTES
    form = (1, len(SIDES), SAMPLE_RATE, SAMPLE_RATE * FRAME_BYTES, FRAME_BYTES, 8 * SAMPLE_BYTES)  # 1: PCM
    head = HEADER.pack(b"RIFF", HEADER.size - 8 + size, b"WAVE", b"fmt ", 16, *form, b"data", size)
    file.seek(0)
    file.write(head)
    file.flush()


def read(path: Path, track: Track, start_ms: int, end_ms: int) -> bytes:
    """One side's mu-law between two moments of the call; silence after the file's end. Raises RecordingError."""
    try:
        with wave.open(str(path), "rb") as sound:
            if sound.getparams()[:3] != (len(SIDES), SAMPLE_BYTES, SAMPLE_RATE):
                raise RecordingError(f"{path} is not as this program writes recordings: stereo, 16 bits, 8 kHz.")
            sound.setpos(min(start_ms * SAMPLES_PER_MS, sound.getnframes()))
            blocks = range(start_ms, end_ms, BLOCK_MS)
            return b"".join(_block(sound, track, min(BLOCK_MS, end_ms - ms) * SAMPLES_PER_MS) for ms in blocks)
    except OSError as trouble:
        raise RecordingError(f"The recording {path} cannot be read: {trouble.strerror}.") from trouble
    except (wave.Error, EOFError) as trouble:
        raise RecordingError(f"{path} is no recording of a call.") from trouble


def _block(sound: wave.Wave_read, track: Track, samples: int) -> bytes:
    frames = sound.readframes(samples)  # of a file that was cut off, perhaps in the middle of a sample
    both = array("h", frames[: len(frames) // FRAME_BYTES * FRAME_BYTES])
    audio = encode_mulaw(both[SIDES.index(track) :: len(SIDES)])
    return audio + silence(samples - len(audio))


# --- Calls that are recorded --------------------------------------------------------------------------------


class Recorder:
    """Records calls into a folder, by one thread, so that a slow disk holds up no call.

    The store, if there is one, knows where on its call's clock a stream begins, and is told where the recording lies.
    """

    def __init__(self, folder: Path, store: Store | None) -> None:
        """Raises SettingsError when nothing can be written there."""
        self.folder = folder.absolute()
        self.store = store
        self._thread = ThreadPool(1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as trouble:
            raise SettingsError(f"RECORDINGS_FOLDER cannot be made: {trouble.strerror}.") from trouble
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise SettingsError("RECORDINGS_FOLDER names a folder that cannot be written to.")

    def record(self, call: CallInfo, tracks: tuple[Track, ...]) -> Recording:
        """Begins to record some tracks of a stream."""
        return Recording(self, call, tracks)

    def write(self, path: Path, stretches: list[Stretch]) -> str:
        """Writes into a file, and waits for it. Gives what went wrong, or nothing."""
        return self._thread.apply(_attempt, (path, stretches))

    def note(self, call_sid: str, path: Path) -> bool:
        """Tells the store where a recording lies, so that it is found, and deleted with its call. False: not now."""
        if self.store is None:
            return True
        with suppress(StoreError), gevent.Timeout(NOTE_WITHIN, False):  # type: ignore[arg-type]
            return self.store.note_recording(call_sid, str(path))
        return False

    def note_later(self, call_sid: str, path: Path) -> None:
        """Goes on trying when its stream is over. Does not wait."""
        gevent.spawn(self._note_later, call_sid, path)

    def _note_later(self, call_sid: str, path: Path) -> None:
        until, pauses = monotonic() + NOTE_UNTIL, backoff(NOTE_FIRST, NOTE_MOST)
        while not self.note(call_sid, path) and monotonic() < until:
            gevent.sleep(next(pauses))

    def end_of(self, path: Path, at: float) -> int:
        """Where a stream begins that began at this time, as far as the file itself tells."""
        return self._thread.apply(_end_of, (path, at))


def _attempt(path: Path, stretches: list[Stretch]) -> str:
    """gevent prints a traceback of what a thread raises. Without stretches, they were given up."""
    try:
        if stretches:
            put(path, stretches)
    except OSError as trouble:
        return trouble.strerror or type(trouble).__name__
    return ""


def _end_of(path: Path, at: float) -> int:
    """After the end of what is there, by as much as the clock has gone on since that was written."""
    try:
        there = path.stat()
    except OSError:
        return 0
    heard_ms = (there.st_size - HEADER.size) // FRAME_BYTES // SAMPLES_PER_MS
    return heard_ms + max(0, round((at - there.st_mtime) * 1000)) if heard_ms > 0 else 0


class Recording:
    """The recording of one stream's tracks; further streams of the same call go on in the same file.

    Audio comes in through `ear`, as it does into a feed, and waits in memory until it is written, once a second. What
    the disk does not take is missing; that is said, and ends no call.
    """

    cut_ms: Final = 0  # audio that comes late finds its place all the same
    unsent_ms: Final = 0  # to a service; what waits for the disk is counted apart
    missing_ms: Final = REST_MS  # until the stream should wake: it is written by its own clock

    def __init__(self, recorder: Recorder, call: CallInfo, tracks: tuple[Track, ...]) -> None:
        self.tracks = tracks
        self._call_sid = storable(call.call_sid, LONGEST_SID)
        self._stream_sid = storable(call.stream_sid, LONGEST_SID)
        self.path = path_of(recorder.folder, self._call_sid)
        self._recorder = recorder
        self._began = time.time()
        self._stretches: list[Stretch] = []  # not yet written
        self._writing: list[Stretch] = []  # by the thread, as soon as it comes to them
        self._held = 0  # samples in them
        self._newest: list[Stretch | None] = [None, None]  # of each side
        self._lost = 0  # samples, of both sides
        self._has_complained = False
        self._has_written = False
        self._is_noted = False  # by the store
        self._finished = Event()
        self._greenlet = gevent.spawn(self._run)
        self._greenlet.link_exception(self._report)

    @property
    def tallies(self) -> list[Tally]:
        """Nobody transcribes here."""
        return []

    @property
    def lost_ms(self) -> int:
        """How much audio could not be written, summed over the tracks."""
        return self._lost // SAMPLES_PER_MS

    def ear(self, track: Track) -> Callable[[Piece], None]:
        """What takes the audio of one of its tracks."""
        return partial(self._hear, SIDES.index(track))

    def pass_on(self) -> None:
        """Nothing waits for another track."""

    def finish(self) -> None:
        """No more audio will come."""
        self._finished.set()

    def close(self) -> None:
        """Waits until all is written, for as long as a call's end may wait for a disk."""
        self.finish()
        self._greenlet.join(CLOSE_WITHIN)
        if not self._greenlet.ready():
            self._greenlet.kill(block=False)
            self._writing.clear()  # what the disk comes to later would outlast a call that is deleted by then
            self._lose(self._held, TOO_SLOW)
        if self._lost:
            log.warning("%s: %.1f s are missing in its recording", self._name, self.lost_ms / 1000)

    def _hear(self, side: int, piece: Piece) -> None:
        """Happens 50 times a second on each track."""
        start, audio = piece
        if self._held >= HELD_MOST:
            self._lose(len(audio), TOO_SLOW)
            return
        newest = self._newest[side]
        if newest is None or start != newest.start + len(newest.audio):
            newest = self._begin(side, start)
        newest.audio.extend(audio)
        self._held += len(audio)

    def _begin(self, side: int, start: int) -> Stretch:
        newest = self._newest[side] = Stretch(side, start, bytearray())
        self._stretches.append(newest)
        return newest

    # --- In its own greenlet --------------------------------------------------------------------------------

    def _run(self) -> None:
        offset = self._offset_ms() * SAMPLES_PER_MS
        while not self._finished.wait(WRITE_EVERY):
            self._write(offset)
        self._write(offset)
        if self._has_written and not self._is_noted:
            self._recorder.note_later(self._call_sid, self.path)

    def _offset_ms(self) -> int:
        """Where the stream begins on the call's clock."""
        if self._recorder.store is not None:
            with gevent.Timeout(PLACE_WITHIN, False):  # type: ignore[arg-type]
                return self._stored_offset_ms(self._recorder.store)
        return self._recorder.end_of(self.path, self._began)

    def _stored_offset_ms(self, store: Store) -> int:
        """As the store tells it, once it has written that the stream has begun."""
        pauses = backoff(PLACE_FIRST, PLACE_MOST)
        while True:
            gevent.sleep(next(pauses))
            with suppress(StoreError):
                call = store.call(self._call_sid)
                for stream in call.streams if call else ():
                    if stream.sid == self._stream_sid:
                        return stream.offset_ms

    def _write(self, offset: int) -> None:
        stretches = [Stretch(side, start + offset, audio) for side, start, audio in self._stretches if audio]
        self._writing = stretches
        self._stretches, self._newest = [], [None, None]
        if not stretches:
            return
        self._is_noted = self._is_noted or self._recorder.note(self._call_sid, self.path)
        self._has_written = True
        trouble = self._recorder.write(self.path, stretches)
        samples = sum(len(stretch.audio) for stretch in stretches)
        self._held -= samples
        if trouble:
            self._lose(samples, trouble)

    def _lose(self, samples: int, why: str) -> None:
        self._lost += samples
        if samples and not self._has_complained:
            self._has_complained = True
            log.warning("%s: its recording will lack what cannot be written: %s", self._name, why)

    @property
    def _name(self) -> str:
        return printable(self._call_sid)

    def _report(self, failed: gevent.Greenlet[[], None]) -> None:
        log.critical("%s: its recording failed: %s", self._name, type(failed.exception).__name__)

"""Phone audio: mu-law and its clock. Pure; a position is a count of samples since the stream began.

Twilio sends 8 kHz mu-law, one byte a sample (https://www.twilio.com/docs/voice/media-streams/websocket-messages),
so a position is also a byte offset of one track, and `SAMPLES_PER_MS` of them make a millisecond.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

SAMPLE_RATE: Final = 8000
SAMPLES_PER_MS: Final = SAMPLE_RATE // 1000
SILENCE: Final = 0xFF  # the mu-law byte of the sample 0 (ITU-T G.711)

QUIET: Final = 400  # of 32768; the noise of a line stays below, even soft speech does not (see `is_quiet`)
LOUD_SHARE: Final = 0.02  # of its samples may be louder in audio that is quiet: clicks, a breath

_BIAS: Final = 0x84
_LOUDEST: Final = 32635  # the loudest sample mu-law can carry, in 16 bits


def _decode_byte(byte: int) -> int:
    byte = ~byte & 0xFF
    magnitude = ((((byte & 0x0F) << 3) + _BIAS) << ((byte & 0x70) >> 4)) - _BIAS
    return -magnitude if byte & 0x80 else magnitude


def _encode_sample(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _LOUDEST) + _BIAS
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | magnitude >> exponent + 3 & 0x0F) & 0xFF


_DECODED: Final = array("h", map(_decode_byte, range(256)))
_ENCODED: Final = bytes(_encode_sample(sample) for sample in range(-32768, 32768))


def decode_mulaw(audio: bytes) -> array[int]:
    """Samples of 16 bits for mu-law bytes."""
    return array("h", map(_DECODED.__getitem__, audio))


def encode_mulaw(samples: Sequence[int]) -> bytes:
    """Mu-law bytes for samples of 16 bits."""
    return bytes(_ENCODED[sample + 32768] for sample in samples)


def silence(samples: int) -> bytes:
    """So many samples of mu-law silence."""
    return bytes((SILENCE,)) * samples


_QUIET_BYTES: Final = bytes(byte for byte, sample in enumerate(_DECODED) if abs(sample) < QUIET)


def is_quiet(audio: bytes | bytearray) -> bool:
    """Whether nobody speaks in it, as far as loudness tells."""
    return len(audio.translate(None, _QUIET_BYTES)) <= len(audio) * LOUD_SHARE


class Piece(NamedTuple):
    """Audio and the position of its first sample. With several tracks their bytes take turns, sample by sample."""

    start: int
    audio: bytes


class Timeline:
    """One track's audio on the call's clock, whatever its messages' sizes, jumps and repeats.

    `media.timestamp` is the clock. A jump forward is audio that never reached us: short ones are filled with
    silence, so that speech before and after keeps its distance; after long ones the audio just starts later, because
    a service that accepts little more than real time would need minutes to hear the silence out. A step back is
    a repeat, and cut; unless it is so large that the clock itself must have been set anew: nobody's words are thrown
    away for that.
    """

    ROUNDING: Final = 10 * SAMPLES_PER_MS  # timestamps are whole ms and frames 20 ms: half a frame is no jump
    FILL_AT_MOST: Final = 10_000 * SAMPLES_PER_MS  # longer gaps are skipped, not filled
    REPEAT_AT_MOST: Final = 1_000 * SAMPLES_PER_MS  # a step back beyond this is a new clock
    JUMP_AT_MOST: Final = 3_600_000 * SAMPLES_PER_MS  # as is a jump forward of more than an hour

    def __init__(self, on_gap: Callable[[int, int], None] = lambda start, end: None) -> None:
        """`on_gap` is told from where to where audio never came."""
        self._on_gap = on_gap
        self.end = 0  # position after the last sample
        self.missing = 0  # samples that never came
        self.repeated = 0  # samples cut because they had come before
        self.gaps = 0
        self._offset = 0  # from Twilio's clock to ours; stays 0 while Twilio's clock is sane

    def place(self, timestamp_ms: int, audio: bytes) -> Piece:
        """The audio, with silence before it or a repeat cut off it, and where it belongs. May be empty."""
        start = self.end
        ahead = timestamp_ms * SAMPLES_PER_MS + self._offset - start
        if -self.ROUNDING <= ahead <= self.ROUNDING:  # as nearly always
            self.end = start + len(audio)
            return Piece(start, audio)
        if ahead > self.JUMP_AT_MOST or ahead < -self.REPEAT_AT_MOST:
            self._offset -= ahead
            ahead = 0
        if ahead > 0:
            return self._after_gap(ahead, audio)
        if ahead < 0:
            self.repeated += min(-ahead, len(audio))
            audio = audio[-ahead:]
        return self._append(self.end, audio)

    def _after_gap(self, gap: int, audio: bytes) -> Piece:
        if self.end:  # a track that begins late, as when nobody answers yet, lacks nothing
            self.gaps += 1
            self.missing += gap
            self._on_gap(self.end, self.end + gap)
        if gap > self.FILL_AT_MOST:
            return self._append(self.end + gap, audio)
        return self._append(self.end, silence(gap) + audio)

    def _append(self, start: int, audio: bytes) -> Piece:
        self.end = start + len(audio)
        return Piece(start, audio)


class Interleaver:
    """Two tracks as one, sample by sample, in step on one clock.

    A service that takes both sides on one connection takes them in lock-step. A track that is late is waited for, as
    measured on the call's own clock by how far the other has come, and then padded with silence. One that has
    not begun or has fallen away (nobody has answered yet, say) is hardly waited for: Deepgram's own sample
    waits for both and sends nothing while the phone rings.
    """

    WAIT: Final = 400 * SAMPLES_PER_MS  # stalls of up to 233 ms were measured on real calls, without loss
    WAIT_ABSENT: Final = 40 * SAMPLES_PER_MS  # two frames: those of one moment come side by side

    def __init__(self) -> None:
        self._waiting = (bytearray(), bytearray())
        self._ends = [0, 0]  # where each track's audio ends
        self._absent = [True, True]
        self._start = 0  # where the waiting audio of both begins
        self._before_gap: list[Piece] = []
        self.cut = 0  # samples, silence aside, that came after their place was padded

    def add(self, side: int, piece: Piece) -> None:
        """Takes audio of side 0 or 1."""
        start, audio = piece
        if start > self._ends[side]:
            self._leap(side, start)
        elif late := self._ends[side] - start:
            self.cut += min(late, len(audio)) - audio.count(SILENCE, 0, late)
            audio = audio[late:]
        self._waiting[side].extend(audio)
        self._ends[side] += len(audio)
        self._absent[side] = False

    def ready(self) -> list[Piece]:
        """What both tracks have, or have been waited for; interleaved, positions counting pairs of samples."""
        ahead = 0 if self._ends[0] > self._ends[1] else 1
        behind = 1 - ahead
        wait = self.WAIT_ABSENT if self._absent[behind] else self.WAIT
        if self._ends[ahead] - self._ends[behind] > wait:
            self._absent[behind] = True
            self._pad(behind, self._ends[ahead] - self.WAIT_ABSENT)
        return self._take(min(self._ends))

    def flush(self) -> list[Piece]:
        """What is left, the shorter track padded."""
        end = max(self._ends)
        for side in (0, 1):
            self._pad(side, end)
        return self._take(end)

    def _leap(self, side: int, start: int) -> None:
        """Makes room for audio that starts after this track's end: pads, or moves both tracks on after a long gap."""
        if start - self._ends[side] <= Timeline.FILL_AT_MOST:
            self._pad(side, start)
            return
        self._before_gap = self.flush()
        if start > self._start:
            self._start = start
            self._ends = [start, start]

    def _pad(self, side: int, end: int) -> None:
        if (missing := end - self._ends[side]) > 0:
            self._waiting[side].extend(silence(missing))
            self._ends[side] = end

    def _take(self, end: int) -> list[Piece]:
        ready, self._before_gap = self._before_gap, []
        if (length := end - self._start) > 0:
            audio = bytearray(2 * length)
            for side, waiting in enumerate(self._waiting):
                audio[side::2] = waiting[:length]
                del waiting[:length]
            ready.append(Piece(self._start, bytes(audio)))
            self._start = end
        return ready

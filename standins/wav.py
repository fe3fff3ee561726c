"""Recordings of calls, read from any WAV into the tracks of a phone call."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from relay.audio import SAMPLE_RATE, encode_mulaw
from relay.errors import RelayError
from relay.events import Track

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]  # one row a sample, one column a channel, from -1 to 1

LONGEST_S: Final = 3600  # of one recording; all of it is held in memory, 8 kB a second and track
BLOCK: Final = 1 << 18  # samples read at a time, so that a long studio recording does not fill the memory


class AudioError(RelayError):
    """A recording that cannot be played. The message names the file and says why."""


def read(path: Path) -> dict[Track, bytes]:
    """Each track's 8 kHz mu-law: of two channels the left is inbound and the right outbound; a single one is inbound.

    Takes whatever libsndfile takes, at any rate and width. Raises `AudioError`.
    """
    _check_is_file(path)
    try:
        import numpy  # noqa: F401
        import soundfile
        import soxr  # noqa: F401
    except (ImportError, OSError) as missing:
        raise AudioError(f"{path} cannot be read: soundfile and soxr do not load here ({missing})") from missing
    try:
        with soundfile.SoundFile(path) as sound:
            _check_is_call(path, sound)
            channels = _channels(path, sound)
    except (soundfile.LibsndfileError, TypeError) as unreadable:  # TypeError: headerless audio, by the file's name
        raise AudioError(f"{path} is no recording that can be read; a WAV is what is wanted") from unreadable
    if not channels[0]:
        raise AudioError(f"{path} holds no audio")
    return dict(zip(Track, channels, strict=False))


def _check_is_file(path: Path) -> None:
    try:
        if path.exists() and not path.is_file():
            raise AudioError(f"{path} is a directory or a device, not a recording")
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError(f"{path} is empty")
    except OSError as unreadable:
        raise AudioError(f"{path} cannot be opened: {unreadable.strerror}") from unreadable


def _check_is_call(path: Path, sound: Any) -> None:
    if sound.channels > len(Track):
        raise AudioError(f"{path} has {sound.channels} channels; a call has one or two (left inbound, right outbound)")
    if sound.frames > LONGEST_S * sound.samplerate:
        raise AudioError(f"{path} is longer than {LONGEST_S // 60} minutes, the longest call that is played")


def _channels(path: Path, sound: Any) -> list[bytes]:
    """Each channel's mu-law. What is phone audio already stays as it is, to the byte."""
    if sound.samplerate == SAMPLE_RATE and sound.format in ("WAV", "WAVEX") and sound.subtype == "ULAW":
        interleaved = _data_chunk(path, sound.frames * sound.channels)
    else:
        interleaved = _encoded(sound)
    return [interleaved[channel :: sound.channels] for channel in range(sound.channels)]


def _data_chunk(path: Path, size: int) -> bytes:
    """The bytes of a WAV's `data` chunk. Decoded and encoded anew, 0x7F (a negative zero) would become 0xFF."""
    with path.open("rb") as file:
        file.seek(len(b"RIFF....WAVE"))
        while len(header := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", header)
            if name == b"data":
                return file.read(size)
            file.seek(length + length % 2, os.SEEK_CUR)
    return b""


def _encoded(sound: Any) -> bytes:
    """All channels' mu-law, sample by sample, resampled to 8 kHz where the recording has another rate."""
    import numpy as np

    mulaw = np.frombuffer(encode_mulaw(range(-32768, 32768)), np.uint8)

    def encode(samples: Samples) -> bytes:
        whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int32)
        return mulaw[whole + 32768].tobytes()

    return b"".join(map(encode, _blocks(sound) if sound.samplerate == SAMPLE_RATE else _resampled(sound)))


def _resampled(sound: Any) -> Iterator[Samples]:
    import numpy as np
    import soxr

    resampler = soxr.ResampleStream(sound.samplerate, SAMPLE_RATE, sound.channels, dtype="float32")
    for block in _blocks(sound):
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty((0, sound.channels), np.float32), last=True)


def _blocks(sound: Any) -> Iterator[Samples]:
    """The recording's samples. A float WAV may hold anything, also what is no number."""
    import numpy as np

    while len(block := sound.read(BLOCK, dtype="float32", always_2d=True)):
        yield np.clip(np.nan_to_num(block), -1, 1)

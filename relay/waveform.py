"""How loud each side of a recording is, moment by moment, as it is drawn."""

from __future__ import annotations

from functools import lru_cache
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from relay.audio import SAMPLES_PER_MS
from relay.recording import FRAME_BYTES, HEADER, SIDES

BLOCK: Final = 1 << 20  # bytes read at a time
LOOKED_AT: Final = 2048  # samples of each side and block or point, evenly chosen where there are more
LOUDEST: Final = 32768
DIGITS: Final = 3  # of a peak; no screen shows more
KEPT: Final = 64  # waveforms, each of some tens of kilobytes


class Waveform(NamedTuple):
    """Peaks from 0 to 1 of each side, each of as long a time."""

    duration_ms: int
    inbound: tuple[float, ...]
    outbound: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """The waveform as the API shows it."""
        return self._asdict()


@lru_cache(maxsize=KEPT)
def waveform(path: Path, size: int, changed_at: int, points: int) -> Waveform:
    """That of a recording of so many bytes; one that has changed since is another. Reads all of it. Raises OSError."""
    samples = max(0, size - HEADER.size) // FRAME_BYTES
    points = min(points, samples)
    with path.open("rb", buffering=0) as file:
        file.seek(HEADER.size)
        bounds = pairwise(number * samples // points for number in range(points + 1)) if points else ()
        peaks = [_peaks(file, end - start) for start, end in bounds]
    inbound, outbound = zip(*peaks, strict=True) if peaks else ((), ())
    return Waveform(samples // SAMPLES_PER_MS, inbound, outbound)


def _peaks(file: FileIO, samples: int) -> tuple[float, ...]:
    """The loudest of the next samples, of each side."""
    loudest = [0 for _ in SIDES]
    left = samples * FRAME_BYTES
    while left and (block := file.read(min(left, BLOCK))):
        left -= len(block)
        both = memoryview(block[: len(block) // FRAME_BYTES * FRAME_BYTES]).cast("h")
        apart = max(1, len(both) // len(SIDES) // LOOKED_AT)
        for side in range(len(SIDES)):
            heard = both[side :: apart * len(SIDES)].tolist()
            loudest[side] = max(loudest[side], max(heard, default=0), -min(heard, default=0))
    return tuple(round(peak / LOUDEST, DIGITS) for peak in loudest)

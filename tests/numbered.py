"""Numbered audio, and an ear that hears the numbers: what was lost, said twice or mixed up shows in the words.

Each millisecond of a track is one token of 8 mu-law bytes: the track's mark and the millisecond's number in 7
half-bytes. None of the bytes is 0xFF, which is silence. Twenty tokens, of the milliseconds 20k to 20k+19, are one
Twilio frame and are heard as one word: "in" or "out" for the track, and k. Silence gives no word. All else, half a
frame too, is heard as "noise".
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from relay.events import Track
from standins.ear import Ear, EarFactory, EarOptions, Heard, Phrase, Word

FRAME_MS: Final = 20
TOKEN_BYTES: Final = 8  # a millisecond of mu-law at 8 kHz
FRAME_BYTES: Final = FRAME_MS * TOKEN_BYTES
NOISE: Final = "noise"

_MARKS: Final = {Track.INBOUND: 0xA1, Track.OUTBOUND: 0xB2}
_TRACKS: Final = {mark: track for track, mark in _MARKS.items()}
_NAMES: Final = {Track.INBOUND: "in", Track.OUTBOUND: "out"}
_HALF_BYTE: Final = 0x10  # added to each half-byte, so that digits are told from marks and from silence
_SILENCE: Final = b"\xff" * TOKEN_BYTES
_DIGITS: Final = bytes.maketrans(b"0123456789abcdef", bytes(range(_HALF_BYTE, _HALF_BYTE + 16)))
_UNDIGITS: Final = bytes.maketrans(bytes(range(_HALF_BYTE, _HALF_BYTE + 16)), b"0123456789abcdef")


def numbered(track: Track, start_ms: int, length_ms: int) -> bytes:
    """The track's audio from one millisecond on; what is not a whole frame of 20 ms will be heard as noise."""
    end_ms = start_ms + length_ms
    first, last = start_ms // FRAME_MS, -(-end_ms // FRAME_MS)
    audio = b"".join(_frame(track, number) for number in range(first, last))
    begin = (start_ms - first * FRAME_MS) * TOKEN_BYTES
    return audio[begin : begin + length_ms * TOKEN_BYTES]


def frame_word(track: Track, number: int) -> str:
    """The word one frame is heard as."""
    return f"{_NAMES[track]}{number}"


def frame_words(track: Track, start_ms: int, length_ms: int) -> list[str]:
    """The words that audio of whole frames is heard as."""
    return [frame_word(track, number) for number in range(start_ms // FRAME_MS, (start_ms + length_ms) // FRAME_MS)]


def frame_of(word: str) -> tuple[Track, int]:
    """The track and the number of the frame that was heard as this word. Raises ValueError for noise."""
    for track, name in _NAMES.items():
        if word.startswith(name):
            return track, int(word.removeprefix(name))
    raise ValueError(f"not a frame's word: {word!r}")


def number_ears(*, final_ms: int | range = 3000, interim_ms: int = 1000, seed: int = 0) -> EarFactory:
    """Ears that hear numbers. From a range, every final's length is drawn, by a seed that each ear has of its own."""
    made = 0

    def ear(options: EarOptions, emit: Callable[[Heard], None]) -> Ear:
        nonlocal made
        made += 1
        return NumberEar(options, emit, final_ms=final_ms, interim_ms=interim_ms, seed=f"{seed}/{made}")

    return ear


class NumberEar:
    """Hears numbered audio on each channel by itself."""

    def __init__(
        self,
        options: EarOptions,
        emit: Callable[[Heard], None],
        *,
        final_ms: int | range,
        interim_ms: int,
        seed: str,
    ) -> None:
        self._channels = [
            _Channel(index, emit, final_ms=final_ms, interim_ms=interim_ms, seed=f"{seed}/{index}")
            for index in range(options.voices)
        ]

    def hear(self, channels: list[bytes]) -> None:
        """Hears what is complete, and keeps the rest for the next time."""
        for channel, audio in zip(self._channels, channels, strict=True):
            channel.hear(audio)

    def flush(self, channel: int | None = None) -> None:
        """Makes what one channel, or every channel, said so far final."""
        for one in self._channels if channel is None else [self._channels[channel]]:
            one.finalize(is_flushed=True)

    def finish(self) -> None:
        """A last final covers the rest."""
        for channel in self._channels:
            channel.finish()

    def close(self) -> None:
        """Holds nothing that needs freeing."""


class _Channel:
    def __init__(
        self, index: int, emit: Callable[[Heard], None], *, final_ms: int | range, interim_ms: int, seed: str
    ) -> None:
        self._index = index
        self._emit = emit
        self._lengths = final_ms
        self._interim_ms = interim_ms
        self._random = random.Random(seed)
        self._rest = b""  # audio that is not yet a whole token, or not yet a whole frame
        self._now_ms = 0  # heard up to here
        self._words: list[Word] = []  # since the last final
        self._final_ms = 0  # where the last final ended
        self._border_ms = self._next_length()  # where the next final shall end
        self._interim_at_ms = interim_ms
        self._expected = (Track.INBOUND, 0)

    def hear(self, audio: bytes) -> None:
        self._rest += audio
        at = 0
        while len(self._rest) - at >= TOKEN_BYTES:
            taken = self._hear_frame(at) or self._hear_silence(at) or self._hear_noise(at)
            if not taken:
                break
            at += taken
        self._rest = self._rest[at:]
        self._say_interim()

    def finish(self) -> None:
        if self._rest:  # a frame, or a token, that was cut in two
            self._add(Word(NOISE, self._now_ms, self._now_ms + -(-len(self._rest) // TOKEN_BYTES)))
            self._rest = b""
        self.finalize()

    def finalize(self, *, is_flushed: bool = False) -> None:
        if self._now_ms > self._final_ms:
            self._say_final(self._now_ms, is_flushed=is_flushed)

    # --- Each of these hears what begins at a byte, and tells how many bytes it was ---

    def _hear_frame(self, at: int) -> int:
        frame = _frame(*self._expected)
        if not self._rest.startswith(frame, at):
            found = _read_token(self._rest[at : at + TOKEN_BYTES])
            if found is None or found[1] % FRAME_MS:
                return 0
            self._expected = (found[0], found[1] // FRAME_MS)
            if not self._rest.startswith(_frame(*self._expected), at):
                return 0
        track, number = self._expected
        self._add(Word(frame_word(track, number), self._now_ms, self._now_ms + FRAME_MS))
        self._expected = (track, number + 1)
        return FRAME_BYTES

    def _hear_silence(self, at: int) -> int:
        if not self._rest.startswith(_SILENCE, at):
            return 0
        rest = self._rest[at:]
        tokens = (len(rest) - len(rest.lstrip(b"\xff"))) // TOKEN_BYTES
        end = self._now_ms + tokens
        while end >= self._border_ms:  # silence may be cut anywhere
            self._advance(self._border_ms)
        self._advance(end)
        return tokens * TOKEN_BYTES

    def _hear_noise(self, at: int) -> int:
        so_far = self._rest[at : at + FRAME_BYTES]
        found = _read_token(so_far[:TOKEN_BYTES])
        if found and found[1] % FRAME_MS == 0 and len(so_far) < FRAME_BYTES and _frame_of(found).startswith(so_far):
            return 0  # the frame is all right so far, and the rest of it has yet to come
        if self._words and self._words[-1].text == NOISE and self._words[-1].end_ms == self._now_ms:
            self._words[-1] = Word(NOISE, self._words[-1].start_ms, self._now_ms + 1)
            self._advance(self._now_ms + 1)
        else:
            self._add(Word(NOISE, self._now_ms, self._now_ms + 1))
        return TOKEN_BYTES

    # --- What is said of it ---

    def _add(self, word: Word) -> None:
        """Notes a word; a final that is due ends before it rather than in it."""
        while word.end_ms > self._border_ms:
            if word.start_ms == self._final_ms:
                self._border_ms = word.end_ms
            else:
                self._say_final(word.start_ms)
        self._words.append(word)
        self._advance(word.end_ms)

    def _advance(self, to_ms: int) -> None:
        self._now_ms = to_ms
        if to_ms == self._border_ms:
            self._say_final(to_ms)

    def _say_final(self, end_ms: int, *, is_flushed: bool = False) -> None:
        words = tuple(self._words)
        ends_speech = bool(words) and words[-1].end_ms < end_ms
        self._emit(Phrase(self._index, self._final_ms, end_ms, words, True, ends_speech, is_flushed))
        self._words.clear()
        self._final_ms = end_ms
        self._border_ms = end_ms + self._next_length()
        self._interim_at_ms = end_ms + self._interim_ms

    def _say_interim(self) -> None:
        if self._now_ms >= self._interim_at_ms:
            self._interim_at_ms = self._now_ms + self._interim_ms
            self._emit(Phrase(self._index, self._final_ms, self._now_ms, tuple(self._words), False))

    def _next_length(self) -> int:
        return self._lengths if isinstance(self._lengths, int) else self._random.choice(self._lengths)


@lru_cache(1 << 15)
def _frame(track: Track, number: int) -> bytes:
    mark = bytes((_MARKS[track],))
    return b"".join(
        mark + b"%07x".__mod__(ms).translate(_DIGITS) for ms in range(number * FRAME_MS, (number + 1) * FRAME_MS)
    )


def _frame_of(found: tuple[Track, int]) -> bytes:
    return _frame(found[0], found[1] // FRAME_MS)


def _read_token(token: bytes) -> tuple[Track, int] | None:
    track = _TRACKS.get(token[0])
    digits = token[1:].translate(_UNDIGITS)
    if track is None or token[1:] != digits.translate(_DIGITS):
        return None
    try:
        return track, int(digits, 16)
    except ValueError:
        return None

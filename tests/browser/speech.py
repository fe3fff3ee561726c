"""A speech service that understands exactly what a test says: Deepgram's stand-in with an ear that waits to be told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from standins.deepgram import ListenServer, Rules
from standins.ear import EarOptions, Heard, Phrase, Word
from tests.browser.serving import PATIENCE

BYTES_A_MS: Final = 8  # of mu-law at 8 kHz
SHORTEST_MS: Final = 40  # of audio that a text is said to cover
CHANNELS: Final = {"inbound": 0, "outbound": 1}


class ToldEar:
    """Hears that audio has come, and nothing in it."""

    def __init__(self, options: EarOptions, emit: Callable[[Heard], None], changed: threading.Condition) -> None:
        self.heard_ms = 0
        self.final_ms = [0] * options.voices
        self._emit = emit
        self._changed = changed

    def hear(self, channels: list[bytes]) -> None:
        """Counts it."""
        with self._changed:
            self.heard_ms += len(channels[0]) // BYTES_A_MS
            self._changed.notify_all()

    def flush(self, channel: int | None = None) -> None:
        """What was said so far is final already."""

    def finish(self) -> None:
        """Nothing more is said: a last final covers the rest."""
        for channel in range(len(self.final_ms)):
            self.say(channel, (), is_final=True)

    def close(self) -> None:
        """Holds nothing that needs freeing."""

    def say(self, channel: int, words: tuple[Word, ...], *, is_final: bool) -> None:
        """Says that these are the words since the last final."""
        start_ms = self.final_ms[channel]
        end_ms = words[-1].end_ms if words else self.heard_ms
        if is_final:
            self.final_ms[channel] = end_ms
        self._emit(Phrase(channel, start_ms, end_ms, words, is_final, ends_speech=is_final))


class Speech:
    """The service, and what is said on the call that it heard of last."""

    def __init__(self) -> None:
        self._ears: list[ToldEar] = []
        self._changed = threading.Condition()
        self.server = ListenServer(ear=self.ear, rules=Rules(pace=1000.0))

    @property
    def settings(self) -> dict[str, str]:
        """What the program is told so that it finds us, and thinks nothing of it when a test says nothing for long."""
        return {"DEEPGRAM_URL": self.server.url, "DEEPGRAM_API_KEY": "key", "SERVICE_SILENCE_SECONDS": "120"}

    def seems_to_hear(self, track: str, text: str) -> None:
        """An interim, of all audio since the last final."""
        self._say(track, text, is_final=False)

    def hears(self, track: str, text: str, *, confidence: float = 0.98) -> None:
        """A final, of all audio since the last one."""
        self._say(track, text, is_final=True, confidence=confidence)

    def hears_words(self, track: str, words: tuple[Word, ...], *, is_final: bool) -> None:
        """Words with times of their own, once their audio has come."""
        ear = self._ear(lambda ear: ear.heard_ms >= words[-1].end_ms)
        ear.say(CHANNELS[track], words, is_final=is_final)

    def _say(self, track: str, text: str, *, is_final: bool, confidence: float = 0.98) -> None:
        channel = CHANNELS[track]
        ear = self._ear(lambda ear: ear.heard_ms >= ear.final_ms[channel] + SHORTEST_MS)
        words = _spread(text.split(), ear.final_ms[channel], ear.heard_ms, confidence)
        ear.say(channel, words, is_final=is_final)

    def _ear(self, has_heard_enough: Callable[[ToldEar], bool]) -> ToldEar:
        with self._changed:
            came = self._changed.wait_for(lambda: self._ears and has_heard_enough(self._ears[-1]), PATIENCE)
            assert came, "no audio came to the speech service"
            return self._ears[-1]

    def forget(self) -> None:
        """What is said next is said on a call that is yet to come."""
        with self._changed:
            self._ears.clear()

    def ear(self, options: EarOptions, emit: Callable[[Heard], None]) -> ToldEar:
        """Listens to one more connection."""
        ear = ToldEar(options, emit, self._changed)
        with self._changed:
            self._ears.append(ear)
            self._changed.notify_all()
        return ear


@contextmanager
def speech_service() -> Iterator[Speech]:
    """A service that listens, until the end of the block."""
    speech = Speech()
    with speech.server:
        yield speech


def _spread(texts: list[str], start_ms: int, end_ms: int, confidence: float) -> tuple[Word, ...]:
    """The words side by side from the first millisecond to the last."""
    length, count = end_ms - start_ms, max(1, len(texts))
    return tuple(
        Word(text, start_ms + number * length // count, start_ms + (number + 1) * length // count, confidence)
        for number, text in enumerate(texts)
    )

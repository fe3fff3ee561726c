"""What listens inside the stand-in speech service, and what it can say it heard. Times are ms of its audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Word:
    """One word and when it was said."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Phrase:
    """What one channel said from `start_ms` to `end_ms`. Finals of a channel follow one another without a gap."""

    channel: int
    start_ms: int
    end_ms: int
    words: tuple[Word, ...]
    is_final: bool
    ends_speech: bool = False
    is_flushed: bool = False  # it was `flush` that made it final


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    """Someone began to speak."""

    channel: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class UtteranceOver:
    """No word has followed the last one for as long as the client asked."""

    channel: int
    last_word_end_ms: int


Heard = Phrase | SpeechBegan | UtteranceOver


class EarOptions(Protocol):
    """What an ear must know of what a client asked for."""

    @property
    def voices(self) -> int:
        """How many channels are heard, each by itself."""

    @property
    def utterance_end_ms(self) -> int | None:
        """How long no word must follow for an `UtteranceOver`; None when it is not wanted."""


class Ear(Protocol):
    """Listens to one connection's audio and says what it heard through the `emit` it was made with."""

    def hear(self, channels: list[bytes]) -> None:
        """Takes the next audio: mu-law, of the same length for each channel."""

    def flush(self, channel: int | None = None) -> None:
        """Makes what one channel, or every channel, said so far final, and goes on."""

    def finish(self) -> None:
        """Makes everything final; returns when all is emitted, or a deadline of its own is up."""

    def close(self) -> None:
        """Frees what it holds. May be called at any time, from any thread, and more than once."""


EarFactory = Callable[[EarOptions, Callable[[Heard], None]], Ear]

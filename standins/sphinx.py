"""Recognises speech on phone audio with pocketsphinx. Run as a program, it is the child that hears one connection.

pocketsphinx holds Python's lock while it works, so every connection gets a process of its own: audio comes in on
standard input as length-prefixed messages, what was heard goes out on standard output as lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from array import array
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final

from relay.audio import decode_mulaw
from standins.ear import Heard, Phrase, SpeechBegan, UtteranceOver, Word

if TYPE_CHECKING:
    from pocketsphinx import Decoder, Segment

SAMPLE_RATE: Final = 8000
BYTES_A_MS: Final = 2 * SAMPLE_RATE // 1000  # of 16-bit samples
FRAME_MS: Final = 30  # what the endpointer takes at a time
FRAME_BYTES: Final = FRAME_MS * BYTES_A_MS
ONE_SAMPLE: Final = b"\0\0"  # of silence, for an end that falls between two frames: it takes no empty one
MODEL_FRAME_MS: Final = 10  # pocketsphinx counts time in these
INTERIM_EVERY_MS: Final = 500
FINAL_AT_LATEST_MS: Final = 15_000  # of unbroken speech
SILENCE_FINAL_EVERY_MS: Final = 5_000  # so that clients need not keep silent audio for a replay
HELD_BACK_MS: Final = 500  # of silence: speech is noticed up to 0.3 s after it began
UNSURE: Final = 0.5  # confidence of interim words: the decoder judges words only once the speech is over
ENDPOINTER_WINDOW_S: Final = 0.3
ENDPOINTER_RATIO: Final = 0.9

HEADER: Final = struct.Struct(">cBI")  # kind, channel, length of what follows
AUDIO: Final = b"A"  # mu-law of one channel
FLUSH: Final = b"F"  # make what one channel said final, and go on
AUDIO_AT_MOST: Final = 1 << 24


class Listener:
    """Recognises one channel: finds where someone speaks, and decodes that. Times are ms of the channel's audio."""

    def __init__(
        self, channel: int, decoder: Decoder, emit: Callable[[Heard], None], *, utterance_end_ms: int | None = None
    ) -> None:
        from pocketsphinx import Endpointer, Vad

        self._channel = channel
        self._decoder = decoder
        self._emit = emit
        self._utterance_end_ms = utterance_end_ms
        self._endpointer = Endpointer(ENDPOINTER_WINDOW_S, ENDPOINTER_RATIO, Vad.LOOSE, SAMPLE_RATE, FRAME_MS / 1000)
        self._rest = b""  # less than a frame
        self._now_ms = 0  # heard up to here
        self._final_ms = 0  # where the last final ended
        self._speech_ms = 0  # where the speech that is being decoded began
        self._decoded_ms = 0  # how much of it was decoded
        self._interim_at_ms = 0
        self._upsample = Upsampler()
        self._last_word_ms: int | None = None  # the end of the last word, until UtteranceEnd is said

    def hear(self, audio: bytes) -> None:
        """Takes mu-law audio of any length."""
        pcm = self._rest + decode_mulaw(audio).tobytes()
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        for at in range(0, whole, FRAME_BYTES):
            self._hear_frame(pcm[at : at + FRAME_BYTES])
        self._rest = pcm[whole:]

    def flush(self) -> None:
        """Makes what was heard so far final, and goes on."""
        if self._endpointer.in_speech:
            self._say_final(self._decoded_until, self._end_decoding(), is_flushed=True)
            self._begin_decoding(self._decoded_until)
        elif self._now_ms > self._final_ms:
            self._say_final(self._now_ms, is_flushed=True)

    def finish(self) -> None:
        """The audio is over: the last final covers it to its end."""
        words: tuple[Word, ...] = ()
        was_speaking = bool(self._endpointer.in_speech)
        if was_speaking:
            self._decode(self._endpointer.end_stream(self._rest or ONE_SAMPLE))
            words = self._end_decoding()
        end_ms = self._now_ms + -(-len(self._rest) // BYTES_A_MS)
        if end_ms > self._final_ms:
            self._say_final(end_ms, words, ends_speech=was_speaking)

    # --- Frames ---

    def _hear_frame(self, frame: bytes) -> None:
        was_speaking = self._endpointer.in_speech
        speech = self._endpointer.process(frame)
        self._now_ms += FRAME_MS
        if speech is not None and not was_speaking:
            self._begin_decoding(max(self._final_ms, _ms(self._endpointer.speech_start)))
            self._emit(SpeechBegan(self._channel, self._speech_ms))
        self._decode(speech)
        if was_speaking and not self._endpointer.in_speech:
            end_ms = min(self._now_ms, max(self._decoded_until, self._final_ms))
            self._say_final(end_ms, self._end_decoding(), ends_speech=True)
        elif self._endpointer.in_speech:
            self._go_on_in_speech()
        else:
            self._go_on_in_silence()

    def _go_on_in_speech(self) -> None:
        if self._decoded_ms >= FINAL_AT_LATEST_MS:
            self._say_final(self._decoded_until, self._end_decoding())
            self._begin_decoding(self._decoded_until)
        elif self._now_ms >= self._interim_at_ms:
            self._interim_at_ms = self._now_ms + INTERIM_EVERY_MS
            words = self._words(is_final=False)
            self._emit(Phrase(self._channel, self._final_ms, self._decoded_until, words, is_final=False))

    def _go_on_in_silence(self) -> None:
        if self._now_ms - HELD_BACK_MS - self._final_ms >= SILENCE_FINAL_EVERY_MS:
            self._say_final(self._now_ms - HELD_BACK_MS)
        if self._utterance_end_ms is None or self._last_word_ms is None:
            return
        if self._now_ms - self._last_word_ms >= self._utterance_end_ms:
            self._emit(UtteranceOver(self._channel, self._last_word_ms))
            self._last_word_ms = None

    # --- Decoding ---

    @property
    def _decoded_until(self) -> int:
        return self._speech_ms + self._decoded_ms

    def _begin_decoding(self, at_ms: int) -> None:
        self._speech_ms = at_ms
        self._decoded_ms = 0
        self._interim_at_ms = self._now_ms + INTERIM_EVERY_MS
        self._upsample = Upsampler()
        self._decoder.start_utt()

    def _decode(self, speech: bytes | None) -> None:
        if speech:  # pocketsphinx raises IndexError for b""
            self._decoded_ms += len(speech) // BYTES_A_MS
            self._decoder.process_raw(self._upsample(speech))

    def _end_decoding(self) -> tuple[Word, ...]:
        self._decoder.end_utt()
        return self._words(is_final=True)

    def _words(self, *, is_final: bool) -> tuple[Word, ...]:
        segments = self._decoder.seg() if self._decoder.hyp() else ()
        return tuple(self._word(segment, is_final=is_final) for segment in segments if _is_word(segment.word))

    def _word(self, segment: Segment, *, is_final: bool) -> Word:
        start_ms = self._speech_ms + segment.start_frame * MODEL_FRAME_MS
        end_ms = self._speech_ms + (segment.end_frame + 1) * MODEL_FRAME_MS
        # "read(2)" is another way to say "read".
        return Word(segment.word.partition("(")[0], start_ms, end_ms, min(1.0, segment.prob) if is_final else UNSURE)

    def _say_final(
        self, end_ms: int, words: tuple[Word, ...] = (), *, ends_speech: bool = False, is_flushed: bool = False
    ) -> None:
        self._emit(Phrase(self._channel, self._final_ms, end_ms, words, True, ends_speech, is_flushed))
        self._final_ms = end_ms
        if words:
            self._last_word_ms = words[-1].end_ms


class Upsampler:
    """Doubles the rate of 16-bit samples by drawing straight lines between them.

    The model wants 16 kHz. A good resampler leaves the upper half of the band empty, and the model then errs more: it
    was not made for telephones. The mirror image that straight lines leave there serves it better.
    """

    def __init__(self) -> None:
        self._last: int | None = None  # the sample before this chunk

    def __call__(self, pcm: bytes) -> bytes:
        samples = array("h", pcm)
        before = samples[0] if self._last is None else self._last
        doubled = array("h", bytes(2 * len(pcm)))
        doubled[::2] = array("h", [(a + b) >> 1 for a, b in zip(chain((before,), samples), samples, strict=False)])
        doubled[1::2] = samples
        self._last = samples[-1]
        return doubled.tobytes()


def _is_word(text: str) -> bool:
    return not text.startswith(("<", "["))  # <s>, </s>, <sil>, [NOISE], [SPEECH]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


# --- The child process ---------------------------------------------------------------------------------------


def heard_line(heard: Heard) -> bytes:
    """What was heard, as a line of JSON."""
    return json.dumps([type(heard).__name__, asdict(heard)]).encode() + b"\n"


def read_heard(line: bytes) -> Heard:
    """What a line says was heard."""
    kind, fields = json.loads(line)
    if kind == "Phrase":
        return Phrase(**fields | {"words": tuple(Word(**word) for word in fields["words"])})
    return SpeechBegan(**fields) if kind == "SpeechBegan" else UtteranceOver(**fields)


def listen(listeners: list[Listener], source: BinaryIO) -> None:
    """Feeds the listeners from a stream of messages until it ends."""
    while len(header := source.read(HEADER.size)) == HEADER.size:
        kind, channel, length = HEADER.unpack(header)
        if length > AUDIO_AT_MOST:
            raise ValueError(f"a message of {length} bytes")
        body = source.read(length)
        if kind == AUDIO:
            listeners[channel].hear(body)
        elif kind == FLUSH:
            listeners[channel].flush()
    for listener in listeners:
        listener.finish()


def _decoder(language_model: str, dictionary: str) -> Decoder:
    from pocketsphinx import Config, Decoder

    return Decoder(Config(lm=language_model, dict=dictionary, loglevel="ERROR"))


def main() -> None:
    """Listens to standard input and says on standard output what it heard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language-model", required=True)
    parser.add_argument("--dictionary", required=True)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--utterance-end-ms", type=int)
    given = parser.parse_args()
    answers = sys.stdout.buffer

    def emit(heard: Heard) -> None:
        answers.write(heard_line(heard))
        answers.flush()

    listeners = [
        Listener(
            channel,
            _decoder(given.language_model, given.dictionary),
            emit,
            utterance_end_ms=given.utterance_end_ms,
        )
        for channel in range(given.channels)
    ]
    listen(listeners, sys.stdin.buffer)


if __name__ == "__main__":
    main()

"""A call's missing seconds, transcribed from its recording after the call and put into their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from relay.audio import SAMPLES_PER_MS, SILENCE, Piece
from relay.connection import Patience
from relay.errors import RelayError, ServiceError
from relay.events import Gap as Loss
from relay.events import SpeechEvent, Track, Transcript, Word
from relay.protocol import CallInfo, SpeechService
from relay.recording import read
from relay.replay import ReplayBuffer
from relay.speech import SpeechClient
from relay.store.records import Call, Gap, Segment, State
from relay.store.store import Store

CONTEXT_MS: Final = 1000  # of audio on either side of a gap: a word at its border is understood as a whole


class BackfillError(RelayError):
    """What is missing of a call cannot be transcribed from its recording. The sentence says why."""


def open_gaps(store: Store, call: Call) -> list[Gap]:
    """What is missing of a call that has ended and was recorded. Raises BackfillError when there is nothing to be done,
    and StoreError."""
    if call.state is State.LIVE:
        raise BackfillError("The call still runs; what is missing of it can be transcribed when it has ended.")
    gaps = [gap for gap in store.gaps(call.sid) if not gap.filled]
    if not gaps:
        raise BackfillError("Nothing is missing of this call.")
    if call.recording is None:
        raise BackfillError("The call was not recorded, so what is missing stays so. RECORD=wav records calls to come.")
    return gaps


def fill(
    store: Store,
    call: Call,
    gap: Gap,
    service: SpeechService,
    *,
    patience: Patience | None = None,
    on_progress: Callable[[int], None] = lambda ms: None,
) -> list[Transcript] | None:
    """Has the service hear a gap, puts what was said into its place, and gives it. None where there is nothing to be
    heard: it stays a gap.

    `on_progress` is told how many ms of the gap have been heard. Raises BackfillError, RecordingError and StoreError;
    then nothing was changed.
    """
    track, start_ms = Track(gap.track), max(0, gap.start_ms - CONTEXT_MS)
    audio = read(Path(call.recording or ""), track, start_ms, gap.end_ms + CONTEXT_MS)
    missing = audio[(gap.start_ms - start_ms) * SAMPLES_PER_MS : (gap.end_ms - start_ms) * SAMPLES_PER_MS]
    if missing.count(SILENCE) == len(missing) or not _was_brought(call, gap):
        return None

    def heard_until(ms: int) -> None:
        on_progress(min(max(0, ms - gap.start_ms), gap.end_ms - gap.start_ms))

    info = CallInfo(call.sid, call.streams[0].sid, (track,))
    piece = Piece(start_ms * SAMPLES_PER_MS, audio)
    finals = _transcribe(info, piece, service, patience or Patience(), heard_until)
    said = list(within(gap, finals, store.segments(call.sid)))
    store.fill_gap(gap.id, said, service.traits.name)
    return said


def _was_brought(call: Call, gap: Gap) -> bool:
    """Whether a stream brought audio of the gap; of what it missed no more than a last moment can be on the recording,
    and all the rest would be taken for heard."""
    streams = (stream for stream in call.streams if gap.track in stream.tracks)
    return any(stream.offset_ms < gap.end_ms and gap.start_ms < stream.heard_ms for stream in streams)


def _transcribe(
    call: CallInfo, piece: Piece, service: SpeechService, patience: Patience, heard_until: Callable[[int], None]
) -> list[Transcript]:
    """What the service makes of one track's audio, which lies at its place on the call's clock."""
    finals: list[Transcript] = []
    troubles: list[str] = []

    def hear(event: SpeechEvent) -> None:
        match event:
            case Transcript():
                heard_until(event.end_ms)
                if event.is_final:
                    finals.append(event)
            case Loss(reason=reason):
                troubles.append(reason)

    def give_up(_client: SpeechClient, why: ServiceError) -> bool:
        troubles.append(str(why))
        return True

    buffer = ReplayBuffer(1, len(piece.audio))
    client = SpeechClient(service, call, call.tracks, hear, buffer=buffer, patience=patience, hand_over=give_up)
    client.send(piece)
    client.finish()
    client.start()
    client.close()
    if troubles:
        raise BackfillError(f"{service.traits.name} did not hear all that is missing: {troubles[0]}.")
    return finals


# --- What of it belongs into the gap ------------------------------------------------------------------------


def within(gap: Gap, finals: Iterable[Transcript], segments: Iterable[Segment]) -> Iterator[Transcript]:
    """What was said in a gap, of finals that heard more than that. A word belongs to where its middle is, unless the
    transcript has it already from beside the gap."""
    there = [word for segment in segments if segment.track == gap.track for word in segment.words]
    beside = [word for word in there if word.start_ms < gap.start_ms or word.end_ms > gap.end_ms]
    for final in finals:
        if not final.words:
            if final.text and _is_in(gap, final):
                yield final
            continue
        words = [word for word in final.words if _is_in(gap, word) and not _is_there(word, beside)]
        if words:
            yield _only(words, final)


def _is_in(gap: Gap, said: Word | Transcript) -> bool:
    return gap.start_ms <= (said.start_ms + said.end_ms) / 2 < gap.end_ms


def _is_there(word: Word, others: Iterable[Word]) -> bool:
    """Whether another one lies at the same place: over more than half of the shorter of both."""
    return any(
        2 * (min(word.end_ms, other.end_ms) - max(word.start_ms, other.start_ms))
        > min(word.end_ms - word.start_ms, other.end_ms - other.start_ms)
        for other in others
    )


def _only(words: Sequence[Word], final: Transcript) -> Transcript:
    """A final that says no more than some of its words."""
    if len(words) == len(final.words):
        return final
    blank = " " if " " in final.text else ""  # there are languages that are written without
    text = blank.join(word.text for word in words)
    return replace(final, text=text, words=tuple(words), start_ms=words[0].start_ms, end_ms=words[-1].end_ms)

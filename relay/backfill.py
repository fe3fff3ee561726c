"""A call's missing seconds, transcribed from its recording after the call and put into their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from relay.store.records import Call, Gap, Kind, Segment, State
from relay.store.store import Store
from relay.store.telling import uncovered

CONTEXT_MS: Final = 1000  # of audio on either side of a gap: a word at its border is understood as a whole


UNSURE_MS: Final = 2000  # at the end of a stream whose server was killed: they may not have been written any more
NOT_RECORDED: Final = "Nothing of it is on the recording"
DELETED: Final = "The call was deleted meanwhile; nothing of it was stored."
FILLED_BY_OTHERS: Final = "What is missing was filled by another program meanwhile; nothing was stored twice."


@dataclass(frozen=True, slots=True)
class Filled:
    """What came of a gap: what was said in it, and the rest of it, which stays a gap, from where to where and why."""

    said: tuple[Transcript, ...]
    rest: tuple[tuple[int, int], ...] = ()
    why: str = ""


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
) -> Filled:
    """Has the service hear a gap, puts what was said into its place, and gives it. What was not recorded, or what the
    service could not hear, stays a gap.

    `on_progress` is told how many ms of the gap have been heard. Raises BackfillError when the service has heard none
    of it, or the call or its gap is gone meanwhile, RecordingError and StoreError; then nothing was changed.
    """
    track, start_ms = Track(gap.track), max(0, gap.start_ms - CONTEXT_MS)
    audio = read(Path(call.recording or ""), track, start_ms, gap.end_ms + CONTEXT_MS)
    missing = audio[(gap.start_ms - start_ms) * SAMPLES_PER_MS : (gap.end_ms - start_ms) * SAMPLES_PER_MS]
    sound_ms = gap.start_ms + -(-len(missing.rstrip(bytes((SILENCE,)))) // SAMPLES_PER_MS)
    if sound_ms == gap.start_ms:
        return Filled((), ((gap.start_ms, gap.end_ms),), NOT_RECORDED)
    recorded_ms = max(sound_ms, _recorded_ms(call, gap))
    audio = audio[: (recorded_ms + CONTEXT_MS - start_ms) * SAMPLES_PER_MS]

    def heard_until(ms: int) -> None:
        on_progress(min(max(0, ms - gap.start_ms), gap.end_ms - gap.start_ms))

    info = CallInfo(call.sid, call.streams[0].sid, (track,))
    piece = Piece(start_ms * SAMPLES_PER_MS, audio)
    finals, missed, trouble = _transcribe(info, piece, service, patience or Patience(), heard_until)
    parts = [replace(gap, start_ms=start, end_ms=end) for start, end in uncovered(gap.start_ms, recorded_ms, missed)]
    if not parts:
        raise BackfillError(f"{trouble}.")
    there = _there(store, call, gap, service.traits.name)
    said = [final for part in parts for final in within(part, finals, there)]
    rest = tuple(uncovered(gap.start_ms, gap.end_ms, [(part.start_ms, part.end_ms) for part in parts]))
    if not store.fill_gap(call.sid, gap, said, service.traits.name, rest):
        raise BackfillError(FILLED_BY_OTHERS if store.call(call.sid) else DELETED)
    return Filled(tuple(said), rest, trouble or (NOT_RECORDED if rest else ""))


def _recorded_ms(call: Call, gap: Gap) -> int:
    """Up to where audio of the gap was recorded, be it silent. Where no stream brought any, only what sounds is worth a
    transcript: a last moment before a server was killed."""
    its = [stream for stream in call.streams if gap.track in stream.tracks and stream.offset_ms < gap.end_ms]
    ends_ms = [stream.heard_ms - (UNSURE_MS if stream.summary is None else 0) for stream in its]
    return max((min(end_ms, gap.end_ms) for end_ms in ends_ms if gap.start_ms < end_ms), default=0)


def _there(store: Store, call: Call, gap: Gap, by: str) -> list[Segment]:
    """What the transcript has already that a gap's words may be doubled with: all of it, but for what others heard that
    listened side by side with the service of the gap. Where one took over from another nobody did (relay.listening)."""
    if (known := store.transcript(call.sid)) is None:
        return []
    relieved = {event.data["stream_sid"] for event in known.events if event.kind is Kind.SERVICE_REPLACED}
    its = (stream for stream in call.streams if stream.offset_ms <= gap.start_ms < stream.heard_ms)
    beside = {name for stream in its if stream.sid not in relieved for name in stream.services}
    others = beside - {gap.service} if gap.service in beside else set()
    return [said for said in known.segments if said.service not in others or (said.backfilled and said.service == by)]


def _transcribe(
    call: CallInfo, piece: Piece, service: SpeechService, patience: Patience, heard_until: Callable[[int], None]
) -> tuple[list[Transcript], list[tuple[int, int]], str]:
    """What the service makes of one track's audio, which lies at its place on the call's clock; from where to where it
    did not hear it, and why."""
    finals: list[Transcript] = []
    missed: list[tuple[int, int]] = []
    troubles: list[str] = []

    def hear(event: SpeechEvent) -> None:
        match event:
            case Transcript():
                heard_until(event.end_ms)
                if event.is_final:
                    finals.append(event)
            case Loss(start_ms=start_ms, end_ms=end_ms, reason=reason):
                missed.append((start_ms, end_ms))
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
    trouble = f"{service.traits.name} did not hear all that is missing: {troubles[0]}" if troubles else ""
    return finals, missed, trouble


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

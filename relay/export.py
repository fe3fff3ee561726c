"""A call's transcript as text, JSON, SRT and WebVTT, at any time of the call; all times are the call's. Pure.

Gaps that nothing has filled are named where they are. Subtitles keep to the measures that are usual for them: 42
characters a line, two lines, seven seconds (Netflix, "Timed Text Style Guide: General Requirements").
"""

from __future__ import annotations

import re
import textwrap
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby, pairwise
from typing import Final, NamedTuple

import orjson

from relay.events import Track, Word
from relay.store.records import Call, Gap, Segment

LINE: Final = 42  # characters
LINES: Final = 2
LONGEST_MS: Final = 7000  # that a cue is shown
SHORTEST_MS: Final = 1000  # ... unless the speaker's next one takes its place
LEGIBLE_MS: Final = 300  # before which none does: it is shown beside it
LONGEST_NAME: Final = 36  # characters of what stands before a speaker's words

NAMES: Final[Mapping[str, str]] = {Track.INBOUND: "Inbound", Track.OUTBOUND: "Outbound"}

# Ends of lines of all kinds, control characters, what turns the reading direction, and halves of characters.
_NOT_SHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TOKEN: Final = re.compile(r"\S+\s*")
_PART: Final = re.compile(rf"\S{{1,{LINE}}}\s*")
_IN_A_WORD: Final = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Passage:
    """What one speaker said in one go, or which seconds of a side are missing."""

    start_ms: int
    end_ms: int
    speaker: str
    text: str
    words: tuple[Word, ...] = ()
    is_gap: bool = False


class Piece(NamedTuple):
    """A bit of text that is never broken, with the blank that follows it."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown at once."""

    start_ms: int
    end_ms: int
    speaker: str
    lines: tuple[str, ...]


def written(
    form: str, call: Call, segments: Sequence[Segment], gaps: Sequence[Gap], *, names: Mapping[str, str] = NAMES
) -> bytes:
    """The transcript in one of the FORMATS. `names` are those of the tracks' speakers; JSON has none."""
    if form == "json":
        return orjson.dumps(
            {
                "call": call.as_json(),
                "segments": [segment.as_json() for segment in segments],
                "gaps": [gap.as_json() for gap in gaps],
            }
        )
    return _WRITERS[form](passages(segments, gaps, names)).encode()


def passages(segments: Sequence[Segment], gaps: Sequence[Gap], names: Mapping[str, str] = NAMES) -> list[Passage]:
    """All that there is to show, in the order of its beginnings."""
    with_service = _side_by_side(segments)
    said = [_said(segment, names[segment.track], with_service=with_service) for segment in segments]
    missing = [_missing(gap, names[gap.track], with_service=with_service) for gap in gaps if not gap.filled]
    shown = (passage for passage in chain(said, missing) if passage.text)
    return sorted(shown, key=lambda passage: (passage.start_ms, passage.end_ms))


def txt(shown: Iterable[Passage]) -> str:
    """A line for each passage, with the time at which it begins."""
    return "".join(f"[{_clock(passage.start_ms)[:-2]}] {passage.speaker}: {passage.text}\n" for passage in shown)


def srt(shown: Iterable[Passage]) -> str:
    """SubRip, which knows no speakers: their names stand before what they say. It cannot hide its arrow, either."""
    cues = _cues(map(_without_arrow, shown), named=True)
    return "".join(
        f"{number}\n{_times(cue).replace('.', ',')}\n{_joined(cue.lines)}\n\n" for number, cue in enumerate(cues, 1)
    )


def _without_arrow(passage: Passage) -> Passage:
    speaker, text = (said.replace("-->", "→") for said in (passage.speaker, passage.text))
    return replace(passage, speaker=speaker, text=text)


def vtt(shown: Iterable[Passage]) -> str:
    """WebVTT, whose voice spans name the speakers (https://www.w3.org/TR/webvtt1/#webvtt-cue-voice-span)."""
    cues = _cues(shown, named=False)
    return "WEBVTT\n\n" + "".join(
        f"{_times(cue)}\n<v {_escaped(cue.speaker)}>{_escaped(_joined(cue.lines))}</v>\n\n" for cue in cues
    )


_WRITERS: Final = {"txt": txt, "srt": srt, "vtt": vtt}
FORMATS: Final = ("json", *_WRITERS)


# --- What is shown ------------------------------------------------------------------------------------------


def _side_by_side(segments: Iterable[Segment]) -> bool:
    """Whether several services heard the same words: then each passage has to say whose transcript it is."""
    newest: dict[tuple[str, str], Segment] = {}
    for segment in sorted(segments, key=lambda segment: segment.start_ms):
        for (track, service), other in newest.items():
            if track == segment.track and service != segment.service:
                shared = min(segment.end_ms, other.end_ms) - segment.start_ms
                if 2 * shared > min(segment.end_ms - segment.start_ms, other.end_ms - other.start_ms):
                    return True
        newest[segment.track, segment.service] = segment
    return False


def _said(segment: Segment, name: str, *, with_service: bool) -> Passage:
    number = "" if segment.speaker is None else f" {segment.speaker + 1}"
    service = f" ({segment.service})" if with_service else ""
    speaker = _called(f"{name}{number}{service}", segment.track)
    words = tuple(replace(word, text=one_line(word.text)) for word in segment.words)
    return Passage(segment.start_ms, segment.end_ms, speaker, one_line(segment.text), words)


def _missing(gap: Gap, name: str, *, with_service: bool) -> Passage:
    service = f" ({gap.service})" if with_service and gap.service else ""
    text = f"[missing: {gap.start_ms / 1000:.1f} s to {gap.end_ms / 1000:.1f} s, {one_line(gap.reason)}]"
    return Passage(gap.start_ms, gap.end_ms, _called(f"{name}{service}", gap.track), text, is_gap=True)


def _called(name: str, track: str) -> str:
    """A speaker's name as it can be shown; a voice span without one is not valid."""
    return one_line(name)[:LONGEST_NAME].rstrip() or NAMES[track]


def one_line(text: str) -> str:
    """Text that breaks no line and turns no reader's eye around."""
    return " ".join(_NOT_SHOWN.sub(" ", text).split())


# --- Subtitles ----------------------------------------------------------------------------------------------


def _cues(shown: Iterable[Passage], *, named: bool) -> list[Cue]:
    """Cues in the order of their beginnings. Those of different speakers may overlap, as their words do."""
    cues: list[Cue] = []
    lanes = sorted(shown, key=lambda passage: (passage.speaker, passage.is_gap))
    for (speaker, _), lane in groupby(lanes, key=lambda passage: (passage.speaker, passage.is_gap)):
        head = f"{speaker}: " if named else ""
        cues += _timed([cue for passage in lane for cue in _cut(passage, head)])
    return sorted(cues, key=lambda cue: (cue.start_ms, cue.end_ms))


def _cut(passage: Passage, head: str) -> Iterator[Cue]:
    """A passage as cues that can be read. The reason of a gap is cut short instead."""
    if passage.is_gap:
        lines = textwrap.wrap(head + passage.text, LINE, max_lines=LINES, placeholder=" …]")
        yield Cue(passage.start_ms, passage.end_ms, passage.speaker, tuple(lines))
        return
    lines, start_ms, end_ms = [head], passage.start_ms, passage.start_ms
    for piece in _pieces(passage):
        if lines != [head] and (len(_with(lines, piece)) > LINES or piece.end_ms - start_ms > LONGEST_MS):
            yield Cue(start_ms, end_ms, passage.speaker, tuple(lines))
            lines = [head]
        if lines == [head]:
            start_ms = piece.start_ms
        lines, end_ms = _with(lines, piece), piece.end_ms
    if lines != [head]:
        yield Cue(start_ms, end_ms, passage.speaker, tuple(lines))


def _with(lines: list[str], piece: Piece) -> list[str]:
    """The lines with a piece more: on the last one if there is room."""
    if len(lines[-1]) + len(piece.text.rstrip()) <= LINE:
        return [*lines[:-1], lines[-1] + piece.text]
    return [*lines, piece.text]


def _timed(cues: Sequence[Cue]) -> Iterator[Cue]:
    """One speaker's cues: each long enough to be read where the next one lets it. What is told to have been said at the
    same time is shown at the same time."""
    in_order = sorted(cues, key=lambda cue: cue.start_ms)
    starts_ms = [cue.start_ms for cue in in_order]
    for cue in in_order:
        end_ms = min(max(cue.end_ms, cue.start_ms + SHORTEST_MS), cue.start_ms + LONGEST_MS)
        following = bisect_left(starts_ms, cue.start_ms + LEGIBLE_MS)
        yield replace(cue, end_ms=min([end_ms, *starts_ms[following : following + 1]]))


def _pieces(passage: Passage) -> Iterator[Piece]:
    """The passage's text, cut at its words where they tell their times, and else evenly."""
    for piece in _by_words(passage) or _evenly(passage.text, passage.start_ms, passage.end_ms):
        if len(piece.text.rstrip()) <= LINE:
            yield piece
        else:  # an address, or a language that is written without blanks
            yield from _spread(_PART.findall(piece.text), piece.start_ms, piece.end_ms)


def _by_words(passage: Passage) -> list[Piece]:
    """A piece for each word, with the punctuation around it; none when the text is not made of these words."""
    text, begins, position = passage.text, [], 0
    for word in passage.words:
        begin = text.find(word.text, position)
        if not word.text or begin < 0 or _IN_A_WORD.search(text, position, begin):
            return []
        begins.append(begin)
        position = begin + len(word.text)
    if not begins or _IN_A_WORD.search(text, position):
        return []
    starts_ms = accumulate((word.start_ms for word in passage.words), max)
    spans = pairwise([0, *begins[1:], len(text)])
    return [
        Piece(text[begin:end], start_ms, max(start_ms, word.end_ms))
        for (begin, end), start_ms, word in zip(spans, starts_ms, passage.words, strict=True)
    ]


def _evenly(text: str, start_ms: int, end_ms: int) -> Iterator[Piece]:
    return _spread(_TOKEN.findall(text), start_ms, end_ms)


def _spread(parts: Sequence[str], start_ms: int, end_ms: int) -> Iterator[Piece]:
    """Each part takes its share of the time, by its length."""
    per_character = (end_ms - start_ms) / max(1, sum(map(len, parts)))
    position = 0
    for part in parts:
        begin, position = position, position + len(part)
        yield Piece(part, start_ms + round(begin * per_character), start_ms + round(position * per_character))


# --- How it is written --------------------------------------------------------------------------------------


def _times(cue: Cue) -> str:
    return f"{_clock(cue.start_ms)} --> {_clock(cue.end_ms)}"


def _clock(ms: int) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(line.rstrip() for line in lines)


def _escaped(text: str) -> str:
    """Text as WebVTT takes it (https://www.w3.org/TR/webvtt1/#syntax, "cue text"); of its arrow nothing is left."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

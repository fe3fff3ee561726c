"""Transcripts as text, SRT and WebVTT, read back by libraries that nobody here wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from html import unescape
from itertools import pairwise
from typing import Any

import pytest
import srt  # type: ignore[import-untyped]
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from relay import export
from relay.events import Word
from relay.export import LEGIBLE_MS, LINE, LINES, LONGEST_MS, Passage, one_line, passages
from relay.store.records import Call, Gap, Segment


def segment(text: str, start_ms: int = 0, end_ms: int = 1000, *, track: str = "inbound", **more: Any) -> Segment:
    """A segment without word times, unless they are given."""
    filled: dict[str, Any] = {
        "words": (),
        "confidence": 0.9,
        "speaker": None,
        "language": None,
        "service": "Deepgram",
        "backfilled": False,
        "created_at": 0,
    }
    return Segment(id=1, track=track, start_ms=start_ms, end_ms=end_ms, text=text, **(filled | more))


def spoken(text: str, start_ms: int = 0, each_ms: int = 500, *, track: str = "inbound", **more: Any) -> Segment:
    """A segment whose words take `each_ms`, one after the other."""
    words = tuple(
        Word(word, start_ms + number * each_ms, start_ms + (number + 1) * each_ms, 0.9)
        for number, word in enumerate(text.split())
    )
    return segment(text, start_ms, start_ms + len(words) * each_ms, track=track, words=words, **more)


def gap(
    start_ms: int,
    end_ms: int,
    reason: str = "the network was away",
    *,
    service: str | None = None,
    filled: bool = False,
) -> Gap:
    """A gap on the caller's side."""
    return Gap(id=1, track="inbound", start_ms=start_ms, end_ms=end_ms, reason=reason, service=service, filled=filled)


def ms(time: timedelta) -> int:
    """A time as `srt` has it, as we do."""
    return round(time / timedelta(milliseconds=1))


def subtitles(shown: list[Passage]) -> list[srt.Subtitle]:
    """The cues of the SRT file, all of which must be readable."""
    return list(srt.parse(export.srt(shown)))


def captions(shown: list[Passage]) -> list[webvtt.Caption]:
    """The cues of the WebVTT file."""
    return webvtt.from_string(export.vtt(shown)).captions


def text_of(caption: webvtt.Caption) -> str:
    """What a caption shows, on one line."""
    return unescape(caption.text).replace("\n", " ")


CONVERSATION = (
    spoken("Hello, this is the bakery.", 1_000),
    spoken("Hi! I would like two loaves.", 2_200, track="outbound"),
    spoken("Of course.", 5_400),
)


# --- What is in them -------------------------------------------------------------------------------------------


def test_text_has_a_line_for_each_segment_and_gap_in_order_of_time() -> None:
    assert export.txt(passages(CONVERSATION, [gap(12_000, 15_500)])) == (
        "[00:00:01.0] Inbound: Hello, this is the bakery.\n"
        "[00:00:02.2] Outbound: Hi! I would like two loaves.\n"
        "[00:00:05.4] Inbound: Of course.\n"
        "[00:00:12.0] Inbound: [missing: 12.0 s to 15.5 s, the network was away]\n"
    )


def test_srt_names_the_speakers_and_has_the_calls_times() -> None:
    assert export.srt(passages(CONVERSATION[:2], [])) == (
        "1\n00:00:01,000 --> 00:00:03,500\nInbound: Hello, this is the bakery.\n\n"
        "2\n00:00:02,200 --> 00:00:05,200\nOutbound: Hi! I would like two loaves.\n\n"
    )


def test_vtt_names_the_speakers_as_voices() -> None:
    shown = passages(CONVERSATION, [gap(12_000, 15_500)])
    assert export.vtt(shown).startswith(
        "WEBVTT\n\n00:00:01.000 --> 00:00:03.500\n<v Inbound>Hello, this is the bakery.</v>\n\n"
    )
    assert [(caption.voice, caption.start, caption.end) for caption in captions(shown)] == [
        ("Inbound", "00:00:01.000", "00:00:03.500"),
        ("Outbound", "00:00:02.200", "00:00:05.200"),
        ("Inbound", "00:00:05.400", "00:00:06.400"),
        ("Inbound", "00:00:12.000", "00:00:15.500"),
    ]
    assert text_of(captions(shown)[3]) == "[missing: 12.0 s to 15.5 s, the network was away]"


def test_speakers_may_be_given_names_and_are_told_apart_by_the_service() -> None:
    segments = [segment("one", 0, speaker=0), segment("two", 1000, speaker=1), segment("three", 2000, track="outbound")]
    names = {"inbound": "Customer", "outbound": "Agent"}
    assert [passage.speaker for passage in passages(segments, [], names)] == ["Customer 1", "Customer 2", "Agent"]


def test_services_that_listen_side_by_side_are_named() -> None:
    deepgram = [spoken("how are you today", 0), spoken("I am well", 3_000)]
    gladia = [spoken("how are you to day", 100, service="Gladia"), spoken("I'm well", 3_000, service="Gladia")]
    assert [passage.speaker for passage in passages([*deepgram, *gladia], [])] == [
        "Inbound (Deepgram)",
        "Inbound (Gladia)",
        "Inbound (Gladia)",
        "Inbound (Deepgram)",
    ]


def test_side_by_side_it_is_said_which_service_has_a_gap() -> None:
    segments = [spoken("how are you today", 0), spoken("how are you today", 0, service="Gladia")]
    missing = [gap(3_000, 4_000, service="Gladia"), gap(5_000, 6_000)]
    assert [passage.speaker for passage in passages(segments, missing)][2:] == ["Inbound (Gladia)", "Inbound"]
    assert [passage.speaker for passage in passages(segments[:1], missing)] == ["Inbound"] * 3


def test_a_service_that_took_over_needs_no_name() -> None:
    segments = [
        spoken("this is how it began", 0),
        spoken("and this is how", 2_400, service="Gladia"),
        spoken("while I spoke", 1_000, track="outbound", service="Gladia"),
    ]
    assert {passage.speaker for passage in passages(segments, [])} == {"Inbound", "Outbound"}


def test_json_has_all_that_is_known() -> None:
    call = Call("CA1", "+15550100", "", 0, None, None, 5_000, None)
    written = json.loads(export.written("json", call, CONVERSATION, [gap(0, 10, filled=True)]))
    assert written["call"]["state"] == "live"
    assert [said["text"] for said in written["segments"]] == [said.text for said in CONVERSATION]
    assert written["segments"][0]["words"][1] == {
        "text": "this",
        "start_ms": 1_500,
        "end_ms": 2_000,
        "confidence": 0.9,
        "speaker": None,
    }
    assert written["gaps"] == [gap(0, 10, filled=True).as_json()]


@pytest.mark.parametrize("form", export.FORMATS)
def test_each_form_is_written_by_its_name(form: str) -> None:
    call = Call("CA1", "", "", 0, None, None, 5_000, None)
    assert "this is the bakery" in export.written(form, call, CONVERSATION, []).decode().replace("\n", " ")


def test_a_call_on_which_nothing_was_said_yet_gives_valid_files() -> None:
    assert export.txt([]) == ""
    assert subtitles([]) == []
    assert captions([]) == []
    assert export.vtt([]).startswith("WEBVTT\n")


def test_a_gap_that_was_filled_is_none() -> None:
    shown = passages([segment("from the recording", backfilled=True)], [gap(0, 1000, filled=True)])
    assert [passage.text for passage in shown] == ["from the recording"]


def test_the_reason_of_a_gap_is_cut_to_what_a_subtitle_holds() -> None:
    shown = passages([], [gap(3_600_000, 3_700_000, "the service refused the key " * 10)])
    (cue,) = subtitles(shown)
    assert cue.content.startswith("Inbound: [missing: 3600.0 s to 3700.0 s,")
    assert cue.content.endswith("…]")
    assert ms(cue.end - cue.start) == LONGEST_MS
    assert len(cue.content.split("\n")) <= LINES
    assert "the key the service" in export.txt(shown)  # where there is room it is whole


# --- How they are cut ------------------------------------------------------------------------------------------


def test_a_long_segment_is_cut_at_its_words_times() -> None:
    words = " ".join(f"word{number}" for number in range(60))
    shown = passages([spoken(words, 10_000, 400)], [])
    cues = subtitles(shown)
    assert " ".join(" ".join(cue.content.removeprefix("Inbound: ").split()) for cue in cues) == words
    assert len(cues) > 3
    for cue in cues:
        first = int(cue.content.removeprefix("Inbound: ").split()[0].removeprefix("word"))
        last = int(cue.content.split()[-1].removeprefix("word"))
        assert (ms(cue.start), ms(cue.end)) == (10_000 + first * 400, 10_000 + (last + 1) * 400)


def test_slow_words_are_shown_no_longer_than_seven_seconds() -> None:
    shown = passages([spoken("one two three four", 0, 3_000)], [])
    assert [(cue.content, ms(cue.start), ms(cue.end)) for cue in subtitles(shown)] == [
        ("Inbound: one two", 0, 6_000),
        ("Inbound: three four", 6_000, 12_000),
    ]


def test_without_word_times_a_segment_is_cut_evenly() -> None:
    text = "seven letters " * 12
    cues = subtitles(passages([segment(text, 0, 12_000)], []))
    assert len(cues) == 3
    assert ms(cues[0].start) == 0
    assert ms(cues[-1].end) == 12_000
    for cue, following in pairwise(cues):
        assert cue.end == following.start


def test_punctuation_that_the_words_lack_stays_where_it_was() -> None:
    words = (Word("well", 0, 400, 1), Word("no", 5_000, 5_400, 1), Word("thanks", 9_000, 9_500, 1))
    shown = passages([segment("— Well? No… thanks!".replace("W", "w").replace("N", "n"), 0, 9_500, words=words)], [])
    assert [(caption.text, caption.start) for caption in captions(shown)] == [
        ("— well? no…", "00:00:00.000"),
        ("thanks!", "00:00:09.000"),
    ]


def test_words_that_are_not_those_of_the_text_cut_no_word_in_two() -> None:
    words = (Word("nan", 0, 100, 1), Word("pple", 20_000, 20_100, 1))
    shown = passages([segment("bananas and an apple", 0, 20_000, words=words)], [])
    assert {word for caption in captions(shown) for word in text_of(caption).split()} == {
        "bananas",
        "and",
        "an",
        "apple",
    }


def test_words_whose_times_are_mixed_up_are_read_in_their_order() -> None:
    said = spoken(" ".join(f"w{number}" for number in range(100)))
    mixed = tuple(replace(word, start_ms=word.start_ms * 7 % 50_000) for word in said.words)
    shown = passages([replace(said, words=mixed)], [])
    assert " ".join(text_of(caption) for caption in captions(shown)) == said.text


def test_a_language_without_blanks_is_cut_between_its_words() -> None:
    words = tuple(
        Word(character, number * 300, number * 300 + 300, 1) for number, character in enumerate("你好世界" * 20)
    )
    shown = passages([segment("你好世界" * 20, 0, 24_000, words=words)], [])
    assert "".join(caption.text.replace("\n", "") for caption in captions(shown)) == "你好世界" * 20
    assert all(len(line) <= LINE for caption in captions(shown) for line in caption.text.split("\n"))


def test_a_short_word_stays_long_enough_to_be_read() -> None:
    shown = passages([segment("Yes.", 1_000, 1_200), segment("No.", 1_500, 1_700)], [])
    assert [(ms(cue.start), ms(cue.end)) for cue in subtitles(shown)] == [(1_000, 1_500), (1_500, 2_500)]


def test_what_one_speaker_says_at_the_same_time_is_shown_at_the_same_time() -> None:
    said = [segment("one two", 0, 5_000), segment("won too", 0, 4_000), segment("oh", 100, 200), segment("so", 3_000)]
    shown = passages(said, [])
    assert [(cue.content.removeprefix("Inbound: "), ms(cue.start), ms(cue.end)) for cue in subtitles(shown)] == [
        ("won too", 0, 3_000),
        ("one two", 0, 3_000),
        ("oh", 100, 1_100),
        ("so", 3_000, 4_000),
    ]


def test_a_word_without_length_that_fills_several_cues_can_be_read() -> None:
    shown = passages([segment("x" * 200, 5, 5), segment("then", 5_000)], [])
    assert [(ms(cue.start), ms(cue.end)) for cue in subtitles(shown)] == [(5, 1_005)] * 5 + [(5_000, 6_000)]
    assert "".join(text_of(caption) for caption in captions(shown)).replace(" ", "") == "x" * 200 + "then"


def test_people_who_talk_at_once_are_shown_at_once() -> None:
    shown = passages([spoken("so what I think is this", 0), spoken("wait wait", 1_000, track="outbound")], [])
    first, second = subtitles(shown)
    assert (first.content, second.content) == ("Inbound: so what I think is this", "Outbound: wait wait")
    assert second.start < first.end


# --- Hostile words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "00:00:01.000 --> 00:00:02.000",
        "</v><script>alert(1)</script>",
        "a & b &amp; c <i>d</i> -->",
        "WEBVTT NOTE STYLE",
        "3\n00:00:03,000 --> 00:00:04,000\nI was never said",
        "one\n\n\ntwo\r\rthree\u2028four\u0085five",
    ],
)
def test_no_words_can_leave_their_cue(text: str) -> None:
    shown = passages([segment("before", 0), segment(text, 10_000), segment("after", 20_000)], [])
    (caption,) = (caption for caption in captions(shown) if caption.text not in ("before", "after"))
    assert text_of(caption) == one_line(text)
    assert caption.start == "00:00:10.000"
    assert [ms(cue.start) for cue in subtitles(shown)] == [0, 10_000, 20_000]
    assert export.srt(shown).count("-->") == 3
    assert len(export.txt(shown).splitlines()) == 3


def test_a_name_cannot_leave_its_voice() -> None:
    shown = passages([segment("hello")], [], {"inbound": "A > B & <C>\n\nevil", "outbound": ""})
    assert export.vtt(shown).split("\n")[3] == "<v A &gt; B &amp; &lt;C&gt; evil>hello</v>"


def test_a_name_cannot_leave_its_cue() -> None:
    shown = passages([segment("hello")], [], {"inbound": "00:01 --> 00:02", "outbound": ""})
    assert export.srt(shown).split("\n")[2] == "00:01 → 00:02: hello"


@pytest.mark.parametrize("name", ["", "  ", "\n", "\u202e"])
def test_a_name_that_shows_nothing_is_none(name: str) -> None:
    shown = passages([segment("hello")], [gap(5_000, 6_000)], {"inbound": name, "outbound": name})
    assert [passage.speaker for passage in shown] == ["Inbound", "Inbound"]


def test_a_call_of_a_hundred_hours_and_a_word_without_length() -> None:
    at_ms = 100 * 3_600_000
    shown = passages([segment("now", at_ms, at_ms)], [gap(0, at_ms)])
    assert [(ms(cue.start), ms(cue.end)) for cue in subtitles(shown)] == [(0, LONGEST_MS), (at_ms, at_ms + 1_000)]
    assert captions(shown)[1].start == "100:00:00.000"
    assert "[100:00:00.0] Inbound: now" in export.txt(shown)


def test_nothing_turns_the_readers_eye_around() -> None:
    (passage,) = passages([segment("pay \u202e005$\u202c to \u2066me\u2069 \ud800")], [])
    assert passage.text == "pay 005$ to me"


# --- Anything at all -------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=300) | st.text(alphabet="ab 1:,.-><&\n\u3042", max_size=300)
TIMES = st.integers(0, 10**7)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """Segments whose words need not be those of their text, nor in any order."""
    text = draw(TEXTS)
    spellings = draw(st.just(text.split()) | st.lists(TEXTS, max_size=5))
    words = tuple(Word(spelling, draw(TIMES), draw(TIMES), 1.0) for spelling in spellings)
    track = draw(st.sampled_from(["inbound", "outbound"]))
    return segment(
        text, draw(TIMES), draw(TIMES), track=track, words=words, speaker=draw(st.none() | st.integers(0, 3))
    )


@given(st.lists(segments(), max_size=6), st.lists(st.builds(gap, TIMES, TIMES, TEXTS), max_size=3))
def test_whatever_was_said_the_files_can_be_read_and_say_it(said: list[Segment], gaps: list[Gap]) -> None:
    shown = passages(said, gaps)
    assert len(export.txt(shown).splitlines()) == len(shown)
    cues = subtitles(shown)
    for cue in cues:
        assert LEGIBLE_MS <= ms(cue.end - cue.start) <= LONGEST_MS
        lines = cue.content.split("\n")
        assert len(lines) <= LINES
        assert all(len(line) <= LINE for line in lines)
    starts = [ms(cue.start) for cue in cues]
    assert starts == sorted(starts)
    letters = sorted("".join(passage.text for passage in passages(said, [])).replace(" ", ""))
    assert sorted("".join(map(text_of, captions(passages(said, [])))).replace(" ", "")) == letters


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=80), st.integers(0, 10**6))
def test_words_appear_when_they_were_said(lengths: list[int], start_ms: int) -> None:
    words, now = [], start_ms
    for number, length in enumerate(lengths):
        words.append(Word(f"w{number}", now, now + length, 1.0))
        now += length
    shown = passages([segment(" ".join(word.text for word in words), start_ms, now, words=tuple(words))], [])
    for cue in subtitles(shown):
        told = cue.content.removeprefix("Inbound: ").split()
        assert ms(cue.start) == words[int(told[0][1:])].start_ms
        assert all(words[int(word[1:])].start_ms < ms(cue.start) + LONGEST_MS for word in told)

"""The API through a real server, with real databases behind it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import gevent
import pytest
import srt  # type: ignore[import-untyped]
import webvtt
from gevent.event import Event
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events import (
    CallEvent,
    Gap,
    NotTranscribed,
    ServiceConnected,
    ServiceLost,
    ServiceReplaced,
    StandsBy,
    Track,
)
from relay.export import FORMATS
from relay.store.store import Store
from relay.web.openapi import DESCRIPTION
from relay.web.parameters import read_moment
from tests.calling import answered, hang_up, say
from tests.program import clean_environment
from tests.serving import Answer, Serving, begun, call_info, ended, final, interim, serving
from tests.storing import eventually
from tests.talking import deepgram, listening
from tests.watching import Watcher

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases", "tests.stores")

MOMENTS: Final = 10  # of a call, at which its transcript is asked for


def stored(running: Serving, number: int, *events: CallEvent) -> str:
    """Has events happen on a call and waits until they are in the store; gives the call's SID."""
    running.happens(call_info(number), *events)
    with gevent.Timeout(20):
        while running.store.waiting:
            gevent.sleep(0.005)
    return call_info(number).call_sid


def asked(running: Serving, path: str, **parameters: Any) -> Any:
    """The document that is answered to a good question."""
    answer = running.ask(f"{path}?{urlencode(parameters)}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), answer.body
    return answer.document


def sids(page: Any) -> list[str]:
    """The calls on a page."""
    return [item["call_sid"] for item in page["items"]]


def problem(answer: Answer, status: int) -> str:
    """What is wrong, in the sentence that a problem has to have."""
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
    said = answer.document
    assert said.keys() == {"type", "title", "status", "detail"}
    assert said["status"] == status
    assert isinstance(said["detail"], str)
    return said["detail"]


@pytest.fixture
def served(make_store: Callable[[], Store]) -> Any:
    """A server with two calls, one of which still runs."""
    with serving(make_store()) as running:
        stored(running, 1, begun(), final("a dozen red roses"), Gap(Track.OUTBOUND, 0, 500, "no sound"), ended())
        stored(running, 2, begun(), interim("um"), final("white tulips"))
        yield running


# --- Calls -----------------------------------------------------------------------------------------------------


def test_calls_are_listed_newest_first_page_by_page(store: Store) -> None:
    with serving(store) as running:
        all_sids = [stored(running, number, begun(), ended()) for number in range(7)]
        pages = [asked(running, "/api/calls", limit=3)]
        while pages[-1]["next"]:
            pages.append(asked(running, "/api/calls", limit=3, cursor=pages[-1]["next"]))
    assert [len(page["items"]) for page in pages] == [3, 3, 1]
    assert [sid for page in pages for sid in sids(page)] == all_sids[::-1]


def test_calls_are_found_by_what_is_known_of_them(store: Store) -> None:
    with serving(store) as running:
        one = stored(running, 1, begun("Deepgram", caller="+15550101"), final("a dozen red roses"), ended())
        two = stored(running, 2, begun("Gladia", caller="+15550102", called="+49301234"), final("white tulips"))

        def found(**parameters: str) -> list[str]:
            return sids(asked(running, "/api/calls", **parameters))

        began = asked(running, f"/api/calls/{two}")["started_at"]
        assert found() == [two, one]
        assert found(state="live") == [two]
        assert found(state="ended") == [one]
        assert found(number="+15550102") == found(number="9301234") == [two]
        assert found(number="5550") == [two, one]
        assert found(service="deepgram") == [one]
        assert found(text="red roses") == [one]
        assert found(text='"roses red"') == []
        assert two in found(since=began)
        assert two not in found(until=began)
        assert found(since="2999-01-01") == []
        assert found(state="live", text="roses") == []
        assert running.ask("/api/calls?number=+15550101").document["items"][0]["call_sid"] == one  # + is a blank there


def test_a_number_is_found_as_people_write_it_and_another_name_as_it_is(store: Store) -> None:
    with serving(store) as running:
        by_phone = stored(running, 1, begun(caller="+15550101", called="+4930"), ended())
        by_sip = stored(running, 2, begun(caller="sip:anna-b@example.com", called="+4930"), ended())
        written = ("+1 555 0101", "(555) 0101", "555-0101", "1.555.01", "555\u20110101", "\u202a+1\u00a0555\u202c")
        assert [sids(asked(running, "/api/calls", number=one)) for one in written] == [[by_phone]] * len(written)
        assert sids(asked(running, "/api/calls", number="anna-b")) == [by_sip]
        assert sids(asked(running, "/api/calls", number="annab")) == []
        assert sids(asked(running, "/api/calls", number="-")) == [by_sip]


def test_a_call_is_shown_while_it_runs_and_when_it_is_over(store: Store) -> None:
    with serving(store) as running:
        sid = stored(running, 1, begun("Deepgram", "Gladia"), final("hello"))
        live = asked(running, f"/api/calls/{sid}")
        stored(running, 1, ended(8_000))
        over = asked(running, f"/api/calls/{sid}")
    assert (live["state"], live["ended_at"], live["services"]) == ("live", None, ["Deepgram", "Gladia"])
    assert (over["state"], over["duration_ms"], over["end_reason"]) == ("ended", 8_000, "stop")
    assert over["streams"][0]["summary"]["frames"] == 400


def test_deleting_a_call_deletes_all_of_it_once_it_is_over(store: Store) -> None:
    with serving(store) as running:
        sid = stored(running, 1, begun(), final("my secret number"))
        assert problem(running.ask(f"/api/calls/{sid}", "DELETE"), 409)
        stored(running, 1, ended())
        gone = running.ask(f"/api/calls/{sid}", "DELETE")
        assert (gone.status, gone.body) == (204, b"")
        assert problem(running.ask(f"/api/calls/{sid}", "DELETE"), 404) == "There is no such call."
        assert running.ask(f"/api/calls/{sid}").status == 404
        assert asked(running, "/api/search", q="secret")["items"] == []
        assert store.events_after(0) == []


# --- Transcripts -----------------------------------------------------------------------------------------------


def test_a_transcript_is_valid_in_every_form_while_the_call_runs(store: Store) -> None:
    with serving(store) as running:
        sid = stored(
            running,
            1,
            begun(),
            interim("hell"),
            final("hello there", 1_000),
            final("hi", 1_500, track=Track.OUTBOUND),
            Gap(Track.INBOUND, 4_000, 6_000, "the network was away"),
            interim("and then"),
        )
        forms = {form: running.ask(f"/api/calls/{sid}/transcript.{form}") for form in ("txt", "json", "srt", "vtt")}
        named = running.ask(f"/api/calls/{sid}/transcript.txt?inbound=Ann%20O%27Neill&outbound=%20Bob")
    assert {form: answer.headers["content-type"] for form, answer in forms.items()} == {
        "txt": "text/plain; charset=utf-8",
        "json": "application/json",
        "srt": "application/x-subrip",
        "vtt": "text/vtt; charset=utf-8",
    }
    assert forms["txt"].body.decode().splitlines() == [
        "[00:00:01.0] Inbound: hello there",
        "[00:00:01.5] Outbound: hi",
        "[00:00:04.0] Inbound: [missing: 4.0 s to 6.0 s, the network was away]",
    ]
    assert named.body.decode().startswith("[00:00:01.0] Ann O'Neill: hello there\n[00:00:01.5] Bob: hi\n")
    cues = list(srt.parse(forms["srt"].body.decode()))
    assert [cue.content for cue in cues[:2]] == ["Inbound: hello there", "Outbound: hi"]
    captions = webvtt.from_string(forms["vtt"].body.decode()).captions
    assert [(caption.voice, caption.start) for caption in captions] == [
        ("Inbound", "00:00:01.000"),
        ("Outbound", "00:00:01.500"),
        ("Inbound", "00:00:04.000"),
    ]
    transcript = forms["json"].document
    assert transcript["call"]["state"] == "live"
    assert [segment["text"] for segment in transcript["segments"]] == ["hello there", "hi"]
    assert [word["start_ms"] for word in transcript["segments"][0]["words"]] == [1_000, 1_500]
    assert [gap["reason"] for gap in transcript["gaps"]] == ["the network was away"]


def test_a_call_of_two_streams_has_one_transcript_on_its_own_clock(store: Store) -> None:
    with serving(store) as running:
        sid = stored(running, 1, begun(), final("before"), ended(2_000))
        gevent.sleep(0.05)
        again = call_info(1, stream=2)
        running.happens(again, begun(), final("after"), ended(2_000))
        with gevent.Timeout(20):
            while len(store.segments(sid)) < 2:
                gevent.sleep(0.01)
        transcript = asked(running, f"/api/calls/{sid}/transcript.json")
    offset_ms = transcript["call"]["streams"][1]["offset_ms"]
    assert offset_ms > 0
    assert [segment["start_ms"] for segment in transcript["segments"]] == [0, offset_ms]


def test_a_transcript_says_what_happened_between_the_words_and_where(store: Store) -> None:
    with serving(store) as running:
        sid = stored(running, 1, begun(), ServiceConnected("Deepgram", 0), final("hello", 1_000))
        stored(running, 1, ServiceLost("Deepgram", "it broke", 0.2), ServiceConnected("Deepgram", 1_500))
        stored(running, 1, ServiceReplaced("Deepgram", "Gladia", "it is down", 1_800), final("there", 2_000))
        stored(running, 1, StandsBy("another stream brings it"), NotTranscribed("no key"), ended(5_000))
        running.happens(call_info(1, stream=2), begun(), ended(1_000))
        eventually(
            lambda: (
                len(streams := asked(running, f"/api/calls/{sid}")["streams"]) == 2
                and all(stream["summary"] for stream in streams)
            )
        )
        transcript = asked(running, f"/api/calls/{sid}/transcript.json")
        all_events = store.events_after(0)
    offset_ms = transcript["call"]["streams"][1]["offset_ms"]
    assert [(event["kind"], event["at_ms"]) for event in transcript["events"]] == [
        ("call.started", 0),
        ("service.lost", 1_500),  # as far as the audio is known to have come, by its words
        ("service.back", 1_500),
        ("service.replaced", 1_800),
        ("error", 2_500),
        ("call.ended", 5_000),
        ("call.resumed", offset_ms),
        ("call.ended", offset_ms + 1_000),
    ]
    shown = {event["id"]: event for event in transcript["events"]}
    told = {event.id: event for event in all_events if event.kind not in ("segment.final", "gap")}
    assert {number: event["data"]["call_sid"] for number, event in shown.items()} == dict.fromkeys(told, sid)
    assert all(not {"segments", "gaps"} & event["data"].keys() for event in shown.values())
    assert transcript["last_event_id"] == all_events[-1].id


def test_a_transcript_and_the_feed_from_there_on_hold_everything_once(store: Store) -> None:
    """However busy the call is at the moment of asking."""
    call, enough = call_info(1), Event()
    with serving(store) as running:
        stored(running, 1, begun())
        talking = gevent.spawn(_talk, running, enough)
        seen: list[tuple[Any, Watcher]] = []
        while len({len(transcript["segments"]) for transcript, _ in seen}) < MOMENTS:
            transcript = asked(running, f"/api/calls/{call.call_sid}/transcript.json")
            seen.append((transcript, running.watch(call.call_sid, last_id=transcript["last_event_id"])))
        enough.set()
        count = talking.get()
        running.happens(call, ended())
        for _, watcher in seen:
            watcher.wait_for_kind("call.ended")
    for transcript, watcher in seen:
        segments = [*transcript["segments"], *(said.data["segment"] for said in watcher.of("segment.final"))]
        gaps = [*transcript["gaps"], *(gap.data["gap"] for gap in watcher.of("gap"))]
        assert [segment["text"] for segment in segments] == [f"word{number}" for number in range(count)]
        assert [gap["start_ms"] for gap in gaps] == [number * 1_000 + 500 for number in range(count)]


def _talk(running: Serving, enough: Event) -> int:
    """Says one word after another, until it is enough; gives how many."""
    for number in count_from(0):
        missed = Gap(Track.INBOUND, number * 1_000 + 500, number * 1_000 + 600, "lost")
        running.happens(call_info(1), final(f"word{number}", number * 1_000), missed)
        if enough.wait(0.001):
            return number + 1
    raise AssertionError


def test_a_real_calls_words_can_be_read_found_and_exported(store: Store) -> None:
    with listening() as speech, serving(store, deepgram(speech)) as running:
        call = answered(running.relay.url)
        say(call, 4_000)
        hang_up(call)
        running.relay.ended(call)
        with gevent.Timeout(20):
            while store.waiting:
                gevent.sleep(0.01)
        cues = list(srt.parse(running.ask(f"/api/calls/{call.call_sid}/transcript.srt").body.decode()))
        hits = asked(running, "/api/search", q="in42 in43", call=call.call_sid)["items"]
    assert len(cues) > 4
    assert " ".join(cue.content for cue in cues).count("out199") == 1
    assert [hit["segment"]["track"] for hit in hits] == ["inbound"]


HOSTILE: Final = (
    "<script>alert(1)</script>",
    "a\n\n1\n00:00:01,000 --> 00:00:02,000\nb",
    "one\0two\ud800three",
    "=cmd|' /C calc'!A0",
    "\u202egnp.exe",
)


def test_no_words_turn_a_transcript_into_something_else(store: Store) -> None:
    with serving(store) as running:
        for number, text in enumerate(HOSTILE):
            sid = stored(
                running, number, begun(caller=text, called=text), final(text), final("the end", 10_000), ended()
            )
            answers = [running.ask(f"/api/calls/{sid}/transcript.{form}") for form in ("txt", "srt", "vtt", "json")]
            for answer in answers:
                assert answer.status == 200
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["cache-control"] == "no-store"
            assert len(answers[0].body.decode().splitlines()) == 2
            assert len(list(srt.parse(answers[1].body.decode()))) == 2
            assert len(webvtt.from_string(answers[2].body.decode()).captions) == 2
            assert len(answers[3].document["segments"]) == 2
        assert len(asked(running, "/api/calls")["items"]) == len(HOSTILE)


# --- Search ----------------------------------------------------------------------------------------------------


def test_words_are_found_with_the_moment_to_jump_to(store: Store) -> None:
    with serving(store) as running:
        one = stored(running, 1, begun(), final("I would like a dozen <b>red</b> roses please", 12_000), ended())
        two = stored(
            running, 2, begun(), final("red wine", 3_000, track=Track.OUTBOUND), final("roses are blue"), ended()
        )

        def found(**parameters: Any) -> list[tuple[str, int]]:
            hits = asked(running, "/api/search", **parameters)["items"]
            return [(hit["call"]["call_sid"], hit["segment"]["start_ms"]) for hit in hits]

        assert found(q="red roses") == [(one, 12_000)]
        assert found(q="ros*", call=one) == [(one, 12_000)]
        assert found(q="red", track="outbound") == [(two, 3_000)]
        assert set(found(q="RED")) == {(one, 12_000), (two, 3_000)}
        assert found(q="!?") == []
        assert found(q="nowhere") == found(q="red", call="CAnobody") == []
        (hit,) = asked(running, "/api/search", q="red roses")["items"]
        pages = [asked(running, "/api/search", q="red", limit=1)]
        pages.append(asked(running, "/api/search", q="red", limit=1, cursor=pages[0]["next"]))
    assert "".join(part["text"] for part in hit["snippet"]) == "I would like a dozen <b>red</b> roses please"
    assert [part["text"] for part in hit["snippet"] if part["match"]] == ["red", "roses"]
    assert [len(page["items"]) for page in pages] == [1, 1]
    assert pages[1]["next"] is None


# --- What is asked wrongly -------------------------------------------------------------------------------------


WRONG: Final = (
    ("/api/calls?state=dead", "state should be live or ended, not 'dead'."),
    ("/api/calls?limit=0", "limit should be a whole number from 1 to 200, not '0'."),
    ("/api/calls?limit=201", "limit should be a whole number from 1 to 200, not '201'."),
    ("/api/calls?limit=1&limit=2", "limit should be given once."),
    ("/api/calls?since=yesterday", "since should be a time as in 2026-11-21T09:55:44Z (in a URL, write + as %2B)."),
    ("/api/calls?cursor=x", "cursor should be what an earlier answer gave as `next`."),
    ("/api/calls?number=", "number should be text on one line, of at most 200 characters."),
    ("/api/calls?text=a%00b", "text should be text on one line, of at most 200 characters."),
    ("/api/search", "q should be given: Words that were all said in one segment."),
    ("/api/search?q=" + "a" * 201, "q should be text on one line, of at most 200 characters."),
    ("/api/search?q=a&track=left", "track should be inbound or outbound, not 'left'."),
    ("/api/search?q=a&speaker=-1", "speaker should be a whole number from 0 to 1000, not '-1'."),
    ("/api/live?call=%0A", "call should be text on one line, of at most 200 characters."),
    ("/api/live?last_event_id=first", "last_event_id should be a whole number from 0"),
    ("/api/calls/CA1?words=1", "There is no parameter of the name 'words' here; there are: none."),
    ("/api/calls/CA1/transcript.srt?inbound=" + "a" * 21, "inbound should be text on one line, of at most 20"),
    ("/api/openapi.json?format=yaml", "There is no parameter of the name 'format' here"),
)


def test_a_wrong_parameter_is_one_sentence_that_names_it(served: Serving) -> None:
    for path, sentence in WRONG:
        assert problem(served.ask(path), 400).startswith(sentence)


NOT_THERE: Final = (
    ("GET", "/api/calls/CAnobody", 404),
    ("DELETE", "/api/calls/CAnobody", 404),
    ("GET", "/api/calls/CAnobody/transcript.txt", 404),
    ("GET", "/api/calls/CAnobody/transcript.json", 404),
    ("GET", "/api/calls/CAnobody/transcript.pdf", 404),
    ("GET", "/api/calls/%00", 404),
    ("GET", "/api/calls/%FF", 404),
    ("GET", "/api/calls/" + "A" * 5_000, 404),
    ("DELETE", "/api/calls/%00", 404),
    ("GET", "/api/nothing", 404),
    ("POST", "/api/calls", 405),
    ("DELETE", "/api/search", 405),
)


def test_what_there_is_not_is_a_problem_too(served: Serving) -> None:
    for method, path, status in NOT_THERE:
        answer = served.ask(path, method)
        assert problem(answer, status)
        assert status == 404 or "GET" in answer.headers["allow"]
    assert served.ask("/nothing").headers["content-type"].startswith("text/html")  # which is not the API's


def test_while_the_database_is_away_the_answer_says_so(postgresql: Server) -> None:
    store = Store(postgresql.new_database())
    store.open()
    with serving(store) as running:
        sid = stored(running, 1, begun(), ended())
        postgresql.stop()
        try:
            for path in ("/api/calls", f"/api/calls/{sid}", f"/api/calls/{sid}/transcript.vtt", "/api/search?q=a"):
                answer = running.ask(path)
                assert problem(answer, 503)
                assert answer.headers["retry-after"] == "5"
            assert problem(running.ask(f"/api/calls/{sid}", "DELETE"), 503)
        finally:
            postgresql.start()
        assert sids(asked(running, "/api/calls")) == [sid]
    store.close(10)


# --- Times -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1970-01-01T00:00:00.250", 250),
        ("1970-01-02", 86_400_000),
        ("1969-12-31T23:59:59Z", -1_000),
    ],
)
def test_times_are_read_as_iso_8601(text: str, ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")  # in which nobody asked
    time.tzset()
    assert read_moment(text) == ms
    monkeypatch.undo()
    time.tzset()


@given(st.text() | st.datetimes().map(str))
def test_any_text_is_a_time_or_is_refused(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(read_moment(text), int)


# --- The description -------------------------------------------------------------------------------------------


def test_the_description_knows_every_route_and_no_other(store: Store) -> None:
    with serving(store) as running:
        document = asked(running, "/api/openapi.json")
        rules = {
            (rule.rule, method)
            for rule in running.app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
            if rule.rule.startswith(("/api/", "/demo-call"))
        }
    written = {
        (rule.replace("<any(txt,json,srt,vtt):form>", form).replace("<sid>", "{sid}"), method)
        for rule, method in rules
        for form in FORMATS
    }
    described = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods if len(method) < 7
    }
    assert document == DESCRIPTION
    assert written == described


@settings(max_examples=200)
@given(query=st.text(max_size=60))
def test_anything_may_be_searched_for(served: Serving, query: str) -> None:
    answer = served.ask(f"/api/search?q={quote(query, errors='replace')}")
    assert answer.status in (200, 400)


@pytest.mark.once
@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing_to_complain_about(served: Serving, tmp_path: Path) -> None:
    """It makes good and bad requests of the description. The live feed is closed, so that its answers end."""
    served.live.close()
    arguments = ["run", f"{served.url}/api/openapi.json", "--checks", "all", "--max-examples", "20", "--seed", "1"]
    arguments += ["--header", f"Authorization: Bearer {served.token}"]
    finished = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *arguments],
        cwd=tmp_path,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stdout
    assert "13 selected / 13 total" in finished.stdout

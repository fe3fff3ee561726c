"""Calls and words are found, page by page; the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.store import searching
from relay.store.query import terms
from relay.store.records import Call, Hit, Page
from relay.store.store import Store
from relay.store.telling import storable
from tests.storing import IN, OUT, Reader, Talk, opened

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases",)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with opened(database) as store:
        yield store


@pytest.fixture
def both(tmp_path: Path, postgresql: Server) -> Iterator[tuple[Store, Store]]:
    """A store on each kind of database."""
    with opened(f"sqlite:///{tmp_path}/calls.db") as one, opened(postgresql.new_database()) as other:
        yield one, other


def found(page: Page[Hit]) -> list[str]:
    """The texts that were found."""
    return [hit.segment.text for hit in page.items]


def sids(page: Page[Call]) -> list[str]:
    """The calls of a page."""
    return [call.sid for call in page.items]


def pages(ask: Callable[[str | None], Page[Call]]) -> Iterator[Page[Call]]:
    """One page after the other, to the last."""
    page = ask(None)
    yield page
    while page.next is not None:
        page = ask(page.next)
        yield page


def stored(store: Store, *spoken: str) -> None:
    """A call in which this was said."""
    reader, talk = Reader(store), Talk(store).begin()
    for number, words in enumerate(spoken):
        talk.say(words, number * 1000)
    talk.end()
    reader.until_ended()


# --- Words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "hits"),
    [
        ("morning", ["Good morning, Zoë!"]),
        ("MORNING good", ["Good morning, Zoë!"]),
        ("zoe", ["Good morning, Zoë!"]),
        ("ZOË", ["Good morning, Zoë!"]),
        ("Zoe\u0308", ["Good morning, Zoë!"]),
        ('"good morning"', ["Good morning, Zoë!"]),
        ('"morning good"', []),
        ("morn", []),
        ("morn*", ["Good morning, Zoë!"]),
        ('"good morn"*', ["Good morning, Zoë!"]),
        ("don't", ["I don't know about AND or NOT"]),
        ("and NOT or", ["I don't know about AND or NOT"]),
        ("morning OR know", []),
        ("text:know", []),
        ("labels : inbound", []),
        ("inbound", []),
        ("call1", []),
        ("speaker0", []),
        ("NEAR(good morning)", []),
        ("3.50", ["That is 3.50 euros for 2 well-known items"]),
        ("well-known", ["That is 3.50 euros for 2 well-known items"]),
        ("known well", ["That is 3.50 euros for 2 well-known items"]),
        ("привет", ["Привет, мир"]),
        ("東京", []),
        ("東京*", ["東京タワー"]),
        ("a@b.example", ["write to a@b.example or see https://example.com/a/b?c=d"]),
        ("example.com/a", ["write to a@b.example or see https://example.com/a/b?c=d"]),
        ("&amp; <b>", ["R&amp;B is <b>bold</b>"]),
        ("", []),
        ("*", []),
        ('"', []),
        ("'' \\ : & | ! <-> ( )", []),
        ("\0\ud800", []),
        ("hello " * 500, []),
    ],
)
def test_words_are_found_and_signs_mean_nothing(store: Store, query: str, hits: list[str]) -> None:
    stored(
        store,
        "Good morning, Zoë!",
        "I don't know about AND or NOT",
        "That is 3.50 euros for 2 well-known items",
        "Привет, мир",
        "東京タワー",
        "write to a@b.example or see https://example.com/a/b?c=d",
        "R&amp;B is <b>bold</b>",
    )
    assert found(store.search(query)) == hits
    assert len(store.calls(text=query).items) == bool(hits)


def test_a_hit_tells_the_call_the_moment_and_the_words_around(store: Store) -> None:
    reader = Reader(store)
    talk = Talk(store).begin(("Deepgram",), "+15550100").say("one two three", 61_000, 64_000, track=OUT).end()
    reader.until_ended()
    (hit,) = store.search("TWO").items
    assert hit.call == store.call(talk.sid)
    assert (hit.segment.start_ms, hit.segment.track) == (61_000, "outbound")
    assert [(part.text, part.is_match) for part in hit.snippet] == [("one ", False), ("two", True), (" three", False)]
    shown = hit.as_json()
    assert shown["call"]["caller"] == "+15550100"
    assert shown["segment"]["words"][1]["text"] == "two"


def test_words_are_looked_for_in_one_call_on_one_track_or_of_one_speaker(store: Store) -> None:
    reader = Reader(store)
    one, other = Talk(store).begin(), Talk(store).begin()
    one.say("same word 1", track=IN, speaker=0).say("same word 2", track=OUT, speaker=1)
    other.say("same word 3", track=IN, speaker=1).say("same word 4", track=OUT)
    one.end()
    other.end()
    reader.until_ended(2)
    assert found(store.search("same")) == [f"same word {number}" for number in (4, 3, 2, 1)]
    assert found(store.search("same", call_sid=one.sid)) == ["same word 2", "same word 1"]
    assert found(store.search("same", track="inbound")) == ["same word 3", "same word 1"]
    assert found(store.search("same", speaker=1)) == ["same word 3", "same word 2"]
    assert found(store.search("same", speaker=1, track="outbound", call_sid=one.sid)) == ["same word 2"]
    assert found(store.search("same", call_sid="CA-nobody")) == []
    assert found(store.search("same", track='in"bound')) == []
    assert found(store.search("same", speaker=-1)) == []


def test_hits_come_page_by_page_while_more_is_said(store: Store) -> None:
    reader, talk = Reader(store), Talk(store).begin()
    for number in range(25):
        talk.say(f"again {number}", number * 1000)
    talk.end()
    reader.until_ended()
    seen, cursor = [], None
    for _ in range(3):
        page = store.search("again", limit=10, cursor=cursor)
        seen += found(page)
        cursor = page.next
        stored(store, "again and again")
    assert seen == [f"again {number}" for number in reversed(range(25))]
    assert cursor is None


@pytest.mark.parametrize("few", [3, 10_000])
def test_common_words_are_found_as_rare_ones_are(store: Store, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(searching, "FEW", few)
    reader = Reader(store)
    talks = [Talk(store).begin().say("common").say(f"rare{number}").end() for number in range(12)]
    reader.until_ended(12)
    assert found(store.search("common", limit=5)) == ["common"] * 5
    assert sids(store.calls(text="common")) == [talk.sid for talk in reversed(talks)]
    assert sids(store.calls(text="common", limit=5)) == [talk.sid for talk in talks[:-6:-1]]
    assert sids(store.calls(text="rare7")) == [talks[7].sid]
    assert sids(store.calls(text='"common rare7"')) == []
    assert [hit.call.sid for hit in store.search("common", call_sid=talks[3].sid).items] == [talks[3].sid]


SYMBOLS: Final = "das kostet 50 € und 20$", "hello 😀 world", "25 m² (№ 5, nº 5)", "x²+y²=½", "नमस्ते दुनिया", "人々 ok️"


@pytest.mark.parametrize(
    ("query", "hit"),
    [
        *(("50 €", 0), ("€ 50", 0), ("50€", 0), ('"kostet 50 und"', 0), ("€20", 0), ("€", None)),
        *(("😀 hello", 1), ('"hello 😀 world"', 1), ('"hello world"', 1), ("hel😀*", 1), ("😀", None)),
        *(("25 m²", 2), ("№ 5", 2), ("№5", 2), ("nº 5", 2), ("m", None), ("25 m", None)),
        *(("y²", 3), ("x²+y²", 3), ("½", 3), ("नमस्ते", 4), ("नमस्*", 4), ("नमस", None), ("人々", 5), ("ok", 5)),
    ],
)
def test_symbols_mean_nothing_and_hide_nothing(store: Store, query: str, hit: int | None) -> None:
    stored(store, *SYMBOLS)
    assert found(store.search(query)) == ([] if hit is None else [SYMBOLS[hit]])
    assert len(store.calls(text=query).items) == (hit is not None)


ODD: Final = "aEé \u0301ßİ\u0307ﬁ²½1٣Ⅷⅷ№º™€😀\ufe0f\u200dकि्々\U0001e922\"'.*"
TEXTS: Final = st.text(st.sampled_from(ODD) | st.characters(codec="utf-8"), max_size=50)


@settings(max_examples=60)
@given(spoken=st.lists(TEXTS, min_size=1, max_size=5), data=st.data())
def test_both_databases_find_the_same(both: tuple[Store, Store], spoken: list[str], data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(spoken))
    begin, end = sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    query = data.draw(st.sampled_from(["{}", '"{}"', '"{}"*'])).format(text[begin:end])
    whole = text.replace('"', " ")
    for store in both:
        stored(store, *(f"{text} again" for text in spoken))
        assert bool(store.search(f'"{whole}"').items) == bool(terms(whole))
    in_sqlite, in_postgresql = (store.search(query, limit=len(spoken)).items for store in both)
    assert [hit.segment.text for hit in in_sqlite] == [hit.segment.text for hit in in_postgresql]
    assert all(any(part.is_match for part in hit.snippet) for hit in in_sqlite)


@settings(
    max_examples=60,
)
@given(query=st.text(alphabet=st.characters(codec="utf-8")) | st.text("ab*\"'()&|!:-^ \\<>{}", max_size=20))
def test_no_query_is_an_error(store: Store, query: str) -> None:
    store.search(query, track="inbound", speaker=1)
    store.calls(text=query, number=storable(query), service=storable(query))


@settings(max_examples=40)
@given(spoken=st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1))
def test_whatever_was_said_is_stored_as_it_was_and_found_by_its_first_latin_word(store: Store, spoken: str) -> None:
    stored(store, f"{spoken} landmark")
    (hit,) = store.search("landmark", limit=1).items
    assert hit.segment.text.endswith(" landmark")
    assert store.delete(hit.call.sid)
    assert found(store.search("landmark")) == []


# --- Calls --------------------------------------------------------------------------------------------------


def test_calls_are_filtered_by_state_number_time_service_and_text(store: Store) -> None:
    reader = Reader(store)
    first = Talk(store).begin(("Deepgram",), "+1 555 0100", "+49 30 1234").say("hello").end()
    reader.until_ended()
    second = Talk(store, service="Gladia").begin(("Gladia", "Deepgram"), "sip:a_b@c", "+1 555 0100").say("goodbye")
    second.end()
    reader.until_ended(2)
    live = Talk(store).begin(("AssemblyAI",), "+44 100%").say("hello again")
    reader.until(lambda events: len(events) == 8)
    starts = {call.sid: call.started_at for call in store.calls().items}

    def only(**filters: object) -> list[str]:
        return sids(store.calls(**filters))  # type: ignore[arg-type]

    assert only() == [live.sid, second.sid, first.sid]
    assert only(state="live") == [live.sid]
    assert only(state="ended") == [second.sid, first.sid]
    assert only(number="555 0100") == [second.sid, first.sid]
    assert only(number="1234") == [first.sid]
    assert only(number="%") == [live.sid]
    assert only(number="a_b") == [second.sid]
    assert only(number="a%b") == []
    assert only(number="SIP:A") == [second.sid]
    assert only(since=starts[second.sid]) == [live.sid, second.sid]
    assert only(until=starts[second.sid]) == [first.sid]
    assert only(service="Deepgram") == [second.sid, first.sid]
    assert only(service="assemblyai") == [live.sid]
    assert only(service="Deep") == []
    assert only(text="hello") == [live.sid, first.sid]
    assert only(text="hello", state="ended", service="Deepgram", number="+1") == [first.sid]
    assert only(text="hello", state="ended", service="Gladia") == []
    live.end()


def test_calls_come_page_by_page_while_new_ones_begin(store: Store) -> None:
    reader = Reader(store)
    talks = [Talk(store).begin().end() for _ in range(23)]
    reader.until_ended(23)
    seen: list[str] = []
    for page in pages(lambda cursor: store.calls(limit=5, cursor=cursor)):
        seen += sids(page)
        reader = Reader(store)
        Talk(store).begin().end()
        reader.until_ended()
    assert seen == [talk.sid for talk in reversed(talks)]


def test_paging_goes_on_though_the_last_call_of_a_page_is_deleted(store: Store) -> None:
    reader = Reader(store)
    talks = [Talk(store).begin().end() for _ in range(6)]
    reader.until_ended(6)
    first = store.calls(limit=3)
    store.delete(first.items[-1].sid)
    assert sids(store.calls(limit=3, cursor=first.next)) == [talk.sid for talk in reversed(talks[:3])]


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.", "1.2.3", "9" * 30, "\uff11"])
def test_a_cursor_that_is_none_is_refused(store: Store, cursor: str) -> None:
    for ask in (store.calls, store.deliveries):
        with pytest.raises(ValueError, match="cursor"):
            ask(cursor=cursor)
    with pytest.raises(ValueError, match="cursor"):
        store.search("word", cursor=cursor)


def test_what_no_database_takes_is_refused(store: Store) -> None:
    for ask in (
        lambda: store.call("CA\0"),
        lambda: store.segments("CA\ud800"),
        lambda: store.delete("CA\0\ud800"),
        lambda: store.events_after(2**70),
        lambda: store.search("word", speaker=2**70, call_sid="CA\0\ud800"),
        lambda: store.replay_delivery(2**70),
    ):
        with suppress(ValueError):
            assert not ask() or ask() == Page(())
    assert not store.trouble


def test_a_page_has_no_more_and_no_less_items_than_make_sense(store: Store) -> None:
    stored(store, *["word"] * 3)
    assert len(store.search("word", limit=0).items) == 1
    assert len(store.search("word", limit=10**9).items) == 3


def test_what_is_not_there_is_nothing(store: Store) -> None:
    assert store.call("CA-nobody") is None
    assert store.segments("CA-nobody") == []
    assert store.gaps("CA-nobody") == []
    assert store.calls().items == ()
    assert store.calls().next is None

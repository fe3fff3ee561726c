"""What people type into a search, and what is shown of what was found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.store.query import SNIPPET, Term, snippet, terms


def marked(text: str, query: str) -> str:
    """What is shown of a text, with what was looked for in brackets."""
    return "".join(f"[{part.text}]" if part.is_match else part.text for part in snippet(text, terms(query)))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("two words", (Term(("two",)), Term(("words",)))),
        ('"two words" more', (Term(("two", "words")), Term(("more",)))),
        ("begin*", (Term(("begin",), is_prefix=True),)),
        ("b*", (Term(("b",)),)),
        ('"two beg"*', (Term(("two", "beg"), is_prefix=True),)),
        ('"never closed', (Term(("never", "closed")),)),
        ("don't well-known", (Term(("don", "t")), Term(("well", "known")))),
        ("a AND NOT b OR (c)", tuple(Term((word,)) for word in ("a", "and", "not", "b", "or", "c"))),
        ("x; DROP TABLE calls --", tuple(Term((word,)) for word in ("x", "drop", "table", "calls"))),
        ("3.50 €", (Term(("3", "50")),)),
        ('"hello 😀 world" 5\ufe0f\u20e3', (Term(("hello", "world")), Term(("5",)))),
        ("x²+y² № 5 nº", (Term(("x²", "y²")), Term(("5",)), Term(("nº",)))),
        ("नमस्ते 人々", (Term(("नमस्ते",)), Term(("人々",)))),
        ("İSTANBUL Straße", (Term(("istanbul",)), Term(("strasse",)))),
        ("\u0301\u0301", ()),
        ("text:hello ^hello", (Term(("text", "hello")), Term(("hello",)))),
        ("cafe\u0301 caf\u00e9", (Term(("cafe",)),) * 2),
        ("", ()),
        ("* \" - '' ... \0", ()),
    ],
)
def test_a_query_is_words_phrases_and_beginnings_and_nothing_else(query: str, wanted: tuple[Term, ...]) -> None:
    assert terms(query) == wanted


@pytest.mark.parametrize(
    ("text", "query", "shown"),
    [
        ("Call the café today", "cafe", "Call the [café] today"),
        ("Call the CAFE today", "Café", "Call the [CAFE] today"),
        ("a red car, a red bus", '"red bus" car', "a red [car], a [red bus]"),
        ("reading and ready", "read*", "[reading] and [ready]"),
        ("I don't know", "don't", "I [don't] know"),
        ("nothing here", "else", "nothing here"),
        ("one two one", "one", "[one] two [one]"),
        ("Straße", "strasse", "[Straße]"),
        ("das kostet 50 € und 5\ufe0f\u20e3", '"50 und 5"', "das kostet [50 € und 5\ufe0f\u20e3]"),
    ],
)
def test_a_snippet_marks_what_was_looked_for(text: str, query: str, shown: str) -> None:
    assert marked(text, query) == shown


def test_a_snippet_of_a_long_text_is_the_part_around_the_first_match() -> None:
    before, after = "so it goes " * 50, " and on and on" * 50
    shown = marked(f"{before}needle{after}", "needle")
    assert "[needle]" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) <= SNIPPET + 4
    assert shown.strip("…").replace("[", "").replace("]", "") in f"{before}needle{after}"
    assert marked("needle" + after, "needle").startswith("[needle] and on")


@given(st.text(), st.text())
def test_any_query_of_any_text_gives_pieces_of_that_text(text: str, query: str) -> None:
    parts = snippet(text, terms(query))
    whole = "".join(part.text for part in parts)
    assert whole == text if len(text) <= SNIPPET else whole.strip("…") in text
    assert all(part.text for part in parts)


@given(st.lists(st.sampled_from(["red", "blue", "café", "don't", "ÄÖÜ"]), min_size=1, max_size=60), st.data())
def test_every_word_of_a_text_is_found_in_it(words: list[str], data: st.DataObject) -> None:
    word = data.draw(st.sampled_from(words))
    parts = snippet(" ".join(words), terms(word.lower()))
    assert any(part.is_match and part.text == word for part in parts)

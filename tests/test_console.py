"""What the terminal shows of what happens, and that nobody can write to it who should not."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.console import LONGEST_TEXT, Console, Outlet
from relay.events import (
    CallEvent,
    CallResult,
    Complained,
    Heard,
    Ignored,
    Listened,
    Malformed,
    MessageReceived,
    Remark,
    ServiceBack,
    ServiceConnected,
    ServiceConnecting,
    ServiceDown,
    ServiceLost,
    ServiceReplaced,
    SessionBegun,
    StreamBegun,
    StreamEnded,
    Summary,
    Track,
    Transcript,
    Translation,
    Word,
)
from relay.hub import Happened
from relay.protocol import CallInfo
from tests.talking import BOTH, CALL

ROOMY = 10.0  # seconds; nothing here takes nearly so long
OTHER = CallInfo("CA00000000000000000000000000000002", "MZ00000000000000000000000000000002", BOTH)
ALONE = CallInfo("CA00000000000000000000000000000003", "MZ00000000000000000000000000000003", (Track.INBOUND,))
END = StreamEnded("stop", 43_210, 4_324, 0, 1, 20, 99, 2, 0, 1_170, None)


def shown(*happened: Happened, verbose: bool = False) -> list[str]:
    """The lines that come of it, where nobody looks at them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        with path.open("w") as file:
            outlet = Outlet(file)
            console = Console(outlet, verbose=verbose)
            for one in happened:
                console.hear(one)
            outlet.close(ROOMY)
        return path.read_bytes().decode().splitlines()


def line_of(event: CallEvent, call: CallInfo | None = CALL, *, verbose: bool = False) -> str:
    """The one line that comes of an event."""
    (line,) = shown(Happened(call, event), verbose=verbose)
    return line


def said(text: str, *, is_final: bool = True, words: tuple[Word, ...] = (), track: Track = Track.INBOUND) -> Transcript:
    return Transcript(track, text, 1_000, 2_500, is_final, words)


# --- Lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (SessionBegun("Gladia", "45463597-20b7"), "Gladia session ID: 45463597-20b7"),
        (
            ServiceReplaced("Deepgram", "Gladia", "Deepgram's connection broke (reset)", 12_340),
            "Deepgram is given up: Deepgram's connection broke (reset). Gladia goes on from 12.3 s.",
        ),
        (
            ServiceDown("Deepgram", "Deepgram refused the key (401)"),
            "Deepgram is taken for down (Deepgram refused the key (401)): new calls go to another service for now.",
        ),
        (ServiceBack("Deepgram"), "Deepgram is well again."),
        (Translation(Track.OUTBOUND, "Guten Tag.", 20, 900, "de"), "[DE] Outbound: Guten Tag. [20 - 900]"),
        (
            Remark(Track.INBOUND, "entity", "Harbor Books (ORGANIZATION)", 20, 900),
            "[ENTITY] Inbound: Harbor Books (ORGANIZATION) [20 - 900]",
        ),
        (
            Remark(Track.OUTBOUND, "sentiment", "positive (joy)", 0, 1),
            "[SENTIMENT] Outbound: positive (joy) [0 - 1]",
        ),
        (Summary("Somebody asks for an order."), "[SUMMARY] Somebody asks for an order."),
        (ServiceConnecting("Gladia", 1), "Gladia connection initiated..."),
        (ServiceConnecting("Gladia", 3), "Gladia connection initiated... (attempt 3)"),
        (ServiceConnected("Gladia", 0), "Connected to Gladia WebSocket"),
        (ServiceConnected("Gladia", 1_250), "Connected to Gladia WebSocket, replaying from 1.2 s"),
        (ServiceLost("Gladia", "it broke", 0.25), "Gladia connection lost: it broke. Trying again in 0.2 s."),
        (said("Hello."), "[FINAL] Inbound: Hello. [1000 - 2500]"),
        (said("Hello.", words=(Word("Hello.", 1_100, 1_300, 1),)), "[FINAL] Inbound: Hello. [1100 - 1300]"),
        (said("Hel", is_final=False, track=Track.OUTBOUND), "[INTERIM] Outbound: Hel"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_each_event_has_its_line(event: CallEvent, line: str) -> None:
    assert line_of(event) == line


def test_one_track_needs_neither_its_name_nor_times() -> None:
    assert line_of(said("Hello."), ALONE) == "[FINAL] Transcription: Hello."


def test_what_nobody_needs_to_see_is_not_shown() -> None:
    unseen: list[CallEvent] = [
        said(""),
        Heard(Track.INBOUND, 7),
        Listened(7),
        Ignored("Pong"),
        StreamBegun(("Gladia",), "+15550100", "+15550101"),
        CallResult("Gladia", "7", b'{"said":"Hello."}'),
    ]
    assert shown(*(Happened(CALL, event) for event in unseen)) == []
    assert line_of(Ignored("Pong"), verbose=True) == "The service sent Pong, which is not needed"


def test_what_belongs_to_no_call_has_no_calls_name() -> None:
    lines = shown(*begun(CALL), *begun(OTHER), Happened(None, ServiceBack("Gladia")))
    assert lines == ["Gladia is well again."]


# --- Whose line it is --------------------------------------------------------------------------------------------


def begun(call: CallInfo, *services: str) -> list[Happened]:
    return [Happened(call, StreamBegun(services or ("Deepgram",)))]


def test_side_by_side_each_line_begins_with_the_services_name() -> None:
    lines = shown(
        *begun(CALL, "Deepgram", "Gladia"),
        Happened(CALL, said("Hello."), "Deepgram"),
        Happened(CALL, said("Hello!"), "Gladia"),
        Happened(CALL, Summary("A call."), "Gladia"),
        Happened(CALL, END),
    )
    assert lines[:3] == [
        "Deepgram: [FINAL] Inbound: Hello. [1000 - 2500]",
        "Gladia: [FINAL] Inbound: Hello! [1000 - 2500]",
        "Gladia: [SUMMARY] A call.",
    ]
    assert lines[3].startswith("Call CA..000001 ended (stop): 43.2 s, 4324 frames, ")


def test_one_service_alone_is_not_named() -> None:
    lines = shown(*begun(CALL, "Gladia"), Happened(CALL, said("Hello."), "Gladia"))
    assert lines == ["[FINAL] Inbound: Hello. [1000 - 2500]"]


def test_of_several_calls_each_line_names_its_own_until_one_is_left() -> None:
    lines = shown(
        *begun(CALL, "Deepgram", "Gladia"),
        *begun(ALONE, "Deepgram"),
        Happened(CALL, said("One."), "Gladia"),
        Happened(ALONE, said("Two."), "Deepgram"),
        Happened(CALL, END),
        Happened(ALONE, said("Three."), "Deepgram"),
    )
    assert lines[0] == "CA..000001 Gladia: [FINAL] Inbound: One. [1000 - 2500]"
    assert lines[1] == "CA..000003 [FINAL] Transcription: Two."
    assert lines[2].startswith("Call CA..000001 ended")
    assert lines[3:] == ["[FINAL] Transcription: Three."]


# --- Hostile words -----------------------------------------------------------------------------------------------

FROM_OUTSIDE: dict[str, Callable[[str], CallEvent]] = {
    "a final": said,
    "an interim": lambda text: said(text, is_final=False),
    "a translation": lambda text: Translation(Track.INBOUND, text, 0, 1, "de"),
    "a language": lambda text: Translation(Track.INBOUND, "Hello.", 0, 1, text),
    "a remark": lambda text: Remark(Track.INBOUND, "entity", text, 0, 1),
    "a summary": Summary,
    "a session": lambda text: SessionBegun("Gladia", text),
    "a complaint": Complained,
    "a shape": Malformed,
    "a message of Twilio's": lambda text: MessageReceived("start", text),
    "a kind": Ignored,
}
HOSTILE = [
    "\x1b[2J\x1b[1;1H",  # clears the screen
    "\x1b]0;title\x07",  # names the window
    "\x9b31m",  # colours, in eight bits
    "one\r\ntwo\ntwo and a half\x0bthree\x85four\u2028five\u2029six",  # more lines than one
    "\u202egnihton",  # from right to left
    "\x00\x08\x7f\ufeff\u200b",
    "[bold red]not ours[/] [/]",
    "\ud800",  # half a character
]


def plain(line: str) -> str:
    """Without the colours that are ours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


@pytest.mark.parametrize("event", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE.keys())
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_words_are_shown_as_one_harmless_line(event: Callable[[str], CallEvent], text: str) -> None:
    line = line_of(event(f"ab {text} yz"), verbose=True)
    assert line.isprintable()
    assert "ab " in line.lower()
    assert " yz" in line.lower()


def test_hostile_names_of_calls_are_harmless() -> None:
    for sid in ("\x1b[2J", "CA\n\x1b[31m\x07" * 9):
        hostile = CallInfo(sid, "MZ7", BOTH)
        lines = shown(*begun(CALL), *begun(hostile), Happened(hostile, said("Hello.")), Happened(hostile, END))
        assert len(lines) == 2
        assert all(line.isprintable() for line in lines)


@settings(max_examples=200)
@given(which=st.sampled_from(sorted(FROM_OUTSIDE)), text=st.text(st.characters(categories=None)))
def test_whatever_comes_is_at_most_one_harmless_line(which: str, text: str) -> None:
    lines = shown(Happened(CALL, FROM_OUTSIDE[which](text)), verbose=True)
    assert len(lines) <= 1
    assert all(line.isprintable() for line in lines)


def test_a_text_without_end_is_cut() -> None:
    assert len(line_of(said("x" * 10 * LONGEST_TEXT))) < LONGEST_TEXT + 100


# --- Where someone looks -----------------------------------------------------------------------------------------


def on_a_terminal(*happened: Happened) -> str:
    """What a terminal gets."""
    received = b""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as file:
        outlet = Outlet(file)
        assert outlet.is_terminal
        console = Console(outlet)
        for one in happened:
            console.hear(one)
        outlet.close(ROOMY)
    with suppress(OSError):  # at the end, where nobody has the other side any more
        while data := os.read(ours, 65536):
            received += data
    os.close(ours)
    return received.decode().replace("\r\n", "\n")


def test_a_terminal_gets_the_same_lines_in_colours_of_our_own() -> None:
    happened = [Happened(CALL, Summary("Hello.")), Happened(CALL, Complained("no")), Happened(CALL, said("x " * 500))]
    colourful = on_a_terminal(*happened)
    assert "\x1b[32m[SUMMARY] Hello.\x1b[0m" in colourful
    assert "\x1b[33m" in colourful
    assert plain(colourful).splitlines() == shown(*happened)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_words_do_nothing_to_a_terminal(text: str) -> None:
    line = plain(on_a_terminal(Happened(CALL, Summary(f"a {text} z")))).rstrip("\n")
    assert line == line_of(Summary(f"a {text} z"))

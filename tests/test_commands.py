"""The commands for calls that were kept, as people type them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import app
from commands import COMMANDS
from relay.events import Gap, StreamBegun, StreamEnded, Track, Transcript, Word
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.recording import SIDES, Stretch, path_of, put
from relay.store.records import Attempt
from relay.store.store import Store
from standins.deepgram import Drop, Fault, ListenServer, Refusal
from standins.ear import Ear, EarOptions, Heard
from tests.numbered import number_ears, numbered
from tests.talking import BOTH
from tests.vendors import VENDORS

pytest_plugins = ("tests.databases",)

INBOUND, OUTBOUND = BOTH
CALLER, CALLED = "+4930123456", "+15550001111"
HOOK = "https://hooks.example.org/calls"
SECRET = "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"  # of digits


def sid(number: int) -> str:
    """SIDs that differ in their last characters, and in their first ones."""
    return f"CA{number:02x}{'0' * 28}{number:02x}"


@dataclass
class Place:
    """A folder with a database, and people who type commands there."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, answer: str | None = None, width: int = 200) -> Result:
        """What a command prints."""
        group = click.Group("app.py", context_settings={"obj": lambda: self.environ})
        group.__class__ = app.OneSentence
        for command in COMMANDS:
            group.add_command(command)
        return CliRunner(env={"COLUMNS": str(width)}).invoke(group, list(arguments), input=answer)

    def out(self, *arguments: str, answer: str | None = None, width: int = 200) -> str:
        """The same, when it goes well."""
        result = self.run(*arguments, answer=answer, width=width)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.out(*arguments, "--json"))

    def refusal(self, *arguments: str, answer: str | None = None) -> str:
        """The one sentence with which it ends."""
        result = self.run(*arguments, answer=answer)
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit), result.exception
        (line,) = result.stderr.splitlines()
        return line.removeprefix("Error: ")

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = Store(self.environ["DATABASE_URL"], endpoints={HOOK: frozenset({"call.ended", "segment.final"})})
        store.open()
        try:
            yield store
        finally:
            store.close(10)


@pytest.fixture
def place(database: str, tmp_path: Path) -> Place:
    return Place(tmp_path, {"DATABASE_URL": database})


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """With SQLite, where the database makes no difference."""
    return Place(tmp_path, {"DATABASE_URL": f"sqlite:///{tmp_path}/calls.db"})


def final(track: Track, text: str, start_ms: int) -> Transcript:
    """Words of a tenth of a second each."""
    words = tuple(
        Word(word, start_ms + number * 100, start_ms + (number + 1) * 100, 0.9)
        for number, word in enumerate(text.split())
    )
    return Transcript(track, text, start_ms, words[-1].end_ms, is_final=True, words=words)


def hear(store: Store, number: int, *events: object, ended: bool = True, service: str = "Deepgram") -> None:
    """A call and what happens on it."""
    call = CallInfo(sid(number), f"MZ{number:032x}", BOTH)
    store.hear(Happened(call, StreamBegun((service,), CALLER, CALLED)))
    for event in events:
        store.hear(Happened(call, event, service))  # type: ignore[arg-type]
    if ended:
        store.hear(Happened(call, StreamEnded("stop", 83_000, 1, 0, 0, 0, 0, 0, 0, None, None)))
    written(store)


def written(store: Store) -> None:
    """Waits until all that was heard is."""
    store.note_recording("nobody", "")


TALK = (
    final(INBOUND, "Good morning, Sophie speaking.", 1_000),
    final(OUTBOUND, "Hello, my café order is late.", 62_500),
    Gap(INBOUND, 65_000, 70_500, "the service was away"),
    final(INBOUND, "I am sorry about that.", 72_000),
)


# --- calls -----------------------------------------------------------------------------------------------------


def test_calls_are_listed_newest_first(place: Place) -> None:
    with place.store() as store:
        hear(store, 1, *TALK)
        hear(store, 2, ended=False)
        shown = place.out("calls")
    lines = [line.split() for line in shown.splitlines() if "CA.." in line or "CA0" in line]
    assert [line[-1] for line in lines] == ["CA..000002", "CA..000001"]
    newer, older = lines
    assert older[2:] == [CALLER, CALLED, "1:23", "ended", "15", "CA..000001"]
    assert newer[5:] == ["live", "0", "CA..000002"]
    assert abs(datetime.fromisoformat(" ".join(older[:2])).timestamp() - datetime.now().timestamp()) < 120


def test_calls_are_chosen_by_what_is_asked_for(place: Place) -> None:
    with place.store() as store:
        hear(store, 1, *TALK)
        hear(store, 2, ended=False)

        def listed(*asked: str) -> list[str]:
            return [call["call_sid"] for call in place.json("calls", *asked)]

        assert listed() == [sid(2), sid(1)]
        assert listed("--live") == [sid(2)]
        assert listed("--text", "cafe late") == [sid(1)]
        assert listed("--number", "555000") == [sid(2), sid(1)]
        assert listed("--number", "(555) 000") == [sid(2), sid(1)]
        assert listed("--number", "666") == []
        assert listed("--since", "10m") == [sid(2), sid(1)]
        assert listed("--since", "2999-01-01") == []
        assert listed("--limit", "1") == [sid(2)]
        assert "--limit 500 shows" in place.out("calls", "--limit", "1")
        assert place.out("calls", "--number", "666") == "No call is like that.\n"


def test_what_is_no_text_is_found_nowhere(here: Place) -> None:
    """Not all that is typed is UTF-8."""
    with here.store() as store:
        hear(store, 1, *TALK)
    assert here.json("search", "caf\udce9") == []
    assert here.json("calls", "--text", "caf\udce9", "--number", "\udce9") == []
    assert "There is no call" in here.refusal("show", "\udce9")


def test_a_time_that_is_none_is_said(here: Place) -> None:
    result = here.run("calls", "--since", "yesterday")
    assert result.exit_code == 2
    assert "2026-11-21" in result.output


def test_calls_as_the_api_gives_them(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, *TALK)
        store.note_recording(sid(1), "/somewhere.wav")
        call = store.call(sid(1))
    assert call is not None
    assert here.json("calls") == [call.as_json()]


@pytest.mark.parametrize("command", [("calls",), ("search", "hello")])
def test_an_empty_database_says_how_to_make_a_first_call(here: Place, command: tuple[str, ...]) -> None:
    assert "python app.py demo" in here.out(*command)
    assert here.json(*command) == []


@pytest.mark.parametrize("command", ["show", "export", "delete", "backfill"])
def test_a_call_that_is_not_there_is_said(here: Place, command: str) -> None:
    assert "python app.py demo" in here.refusal(command, "CA12")
    with here.store() as store:
        hear(store, 1)
    assert here.refusal(command, "CA9\x1b[2J").startswith("There is no call CA9 [2J; `python app.py calls` lists")


def test_without_a_database_there_is_nothing_to_list(tmp_path: Path) -> None:
    assert Place(tmp_path, {"DATABASE_URL": "none"}).refusal("calls") == "DATABASE_URL is none: calls are not kept."


def test_a_database_that_is_not_to_be_had_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Place(tmp_path, {"DATABASE_URL": f"sqlite:///{tmp_path}/file/calls.db"}).refusal("calls")


# --- show ------------------------------------------------------------------------------------------------------


def test_a_call_is_shown_with_speakers_times_and_gaps(place: Place) -> None:
    with place.store() as store:
        hear(store, 1, *TALK)
        store.note_recording(sid(1), "/recordings/one.wav")
    about, transcript = place.out("show", sid(1)).split("\n\n")
    assert re.fullmatch(
        rf"{sid(1)}: 20\d\d-\d\d-\d\d \d\d:\d\d, 1:23 min, ended \(stop\)\n"
        rf"From \{CALLER} to \{CALLED}\nTranscribed by Deepgram\nRecorded in /recordings/one.wav",
        about,
    )
    assert transcript.splitlines() == [
        "[00:00:01.0] Inbound: Good morning, Sophie speaking.",
        "[00:01:02.5] Outbound: Hello, my café order is late.",
        "[00:01:05.0] Inbound: [missing: 65.0 s to 70.5 s, the service was away]",
        "[00:01:12.0] Inbound: I am sorry about that.",
    ]


def test_a_call_is_shown_while_it_runs(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, ended=False)
        assert here.out("show", sid(1)).endswith(
            "live\n" + f"From {CALLER} to {CALLED}\nTranscribed by Deepgram\n\nNothing has been said yet.\n"
        )
        hear_more = Happened(CallInfo(sid(1), f"MZ{1:032x}", BOTH), TALK[0], "Deepgram")
        store.hear(hear_more)
        written(store)
        assert "Good morning" in here.out("show", sid(1))


def test_who_transcribed_is_shown_where_several_heard_the_same(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, TALK[0], ended=False)
        store.hear(Happened(CallInfo(sid(1), f"MZ{1:032x}", BOTH), TALK[0], "Gladia"))
    shown = here.out("show", sid(1))
    assert "Inbound (Deepgram): Good morning" in shown
    assert "Inbound (Gladia): Good morning" in shown


def test_what_was_said_moves_no_cursor(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, final(INBOUND, "[red]alarm[/] \x1b[2J\u202edone", 0))
    shown = here.out("show", sid(1)) + here.out("search", "alarm")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[red]alarm[/]" in shown


def test_a_shortened_sid_is_enough_where_it_means_one_call(here: Place) -> None:
    with here.store() as store:
        for number in (0x1A, 0x1B, 0x2A):
            hear(store, number)
    for short in ("CA1a", "CA2", f"0{0x1B:02x}", "CA..00001a", "CA1b..1b", sid(0x2A)):
        call = here.json("show", short)["call"]["call_sid"]
        head, _, tail = short.partition("..")
        assert call.startswith(head) or call.endswith(tail or head)
    refusal = here.refusal("show", "CA1")
    assert sid(0x1A) in refusal
    assert sid(0x1B) in refusal
    assert "more than one call" in refusal


# --- export ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "holds"),
    [
        ("txt", "[00:01:02.5] Outbound: Hello, my café order is late.\n"),
        ("srt", "00:01:02,500 --> 00:01:03"),
        ("vtt", "<v Outbound>Hello, my café order is late.</v>"),
        ("json", '"text":"Hello, my café order is late."'),
    ],
)
def test_a_transcript_is_printed_or_written(here: Place, form: str, holds: str) -> None:
    with here.store() as store:
        hear(store, 1, *TALK)
    printed = here.run("export", sid(1), "--format", form).stdout_bytes
    assert holds in printed.decode()
    file = here.folder / "transcript"
    result = here.run("export", sid(1), "--format", form, "--output", str(file))
    assert (result.exit_code, result.stdout) == (0, "")
    assert file.read_bytes() == printed


def test_text_is_what_is_exported_unless_asked_otherwise(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, *TALK)
    assert here.out("export", sid(1)) == here.out("export", sid(1), "--format", "txt")
    assert here.json("show", sid(1)) == json.loads(here.out("export", sid(1), "--format", "json"))


def test_a_file_that_cannot_be_written_is_said(here: Place) -> None:
    with here.store() as store:
        hear(store, 1)
    result = here.run("export", sid(1), "--output", str(here.folder / "nowhere" / "file"))
    assert result.exit_code == 1
    assert "No such file" in result.output


# --- search ----------------------------------------------------------------------------------------------------


def test_words_are_found_and_shown_with_their_call_and_second(place: Place) -> None:
    with place.store() as store:
        hear(store, 1, *TALK)
        hear(store, 2, final(OUTBOUND, "The café is closed.", 5_000))
        shown = place.out("search", "CAFE")
        lines = [line.split() for line in shown.splitlines() if "CA.." in line]
        assert [line[2:6] for line in lines] == [
            ["CA..000002", "0:05", "Outbound", "The"],
            ["CA..000001", "1:02", "Outbound", "Hello,"],
        ]
        assert "The café is closed." in shown

        def found(*asked: str) -> list[str]:
            return [hit["call"]["call_sid"] for hit in place.json("search", *asked)]

        assert found("order", "late") == [sid(1)]
        assert found('"late order"') == []
        assert found("cafe", "--call", "CA02") == [sid(2)]
        assert found("cafe", "--track", "inbound") == []
        assert found("cafe", "--limit", "1") == [sid(2)]
        assert place.out("search", "tea") == "Nobody said that.\n"


def test_what_was_found_is_highlighted(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with here.store() as store:
        hear(store, 1, *TALK)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "my \x1b[1;7mcafé\x1b[0m order" in here.out("search", "cafe")


# --- delete ----------------------------------------------------------------------------------------------------


def test_deleting_asks_first(place: Place) -> None:
    recording = place.folder / "one.wav"
    put(recording, [])
    with place.store() as store:
        hear(store, 1, *TALK)
        store.note_recording(sid(1), str(recording))
    kept = place.run("delete", sid(1), answer="n\n")
    assert kept.exit_code == 1
    assert f"Delete {sid(1)} of 20" in kept.output
    assert "its transcript and its recording?" in kept.output
    assert place.json("calls")
    assert place.out("delete", sid(1), answer="y\n").endswith(f"{sid(1)} is deleted.\n")
    assert place.json("calls") == []
    assert not recording.exists()


def test_nobody_is_asked_who_has_said_yes(here: Place) -> None:
    with here.store() as store:
        hear(store, 1)
    assert here.out("delete", "CA01", "--yes") == f"{sid(1)} is deleted.\n"


def test_a_call_that_runs_is_not_deleted(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, ended=False)
        assert "still runs" in here.refusal("delete", sid(1), "--yes")


# --- backfill --------------------------------------------------------------------------------------------------


@contextmanager
def deepgram(place: Place, *faults: Fault) -> Iterator[ListenServer]:
    """A service that place's settings lead to, at its own pace."""
    with ListenServer(ear=number_ears(final_ms=500), faults=faults) as server:
        place.environ |= {"DEEPGRAM_URL": server.url, "DEEPGRAM_API_KEY": "key"}
        yield server
        assert server.violations == []


def record(place: Place, store: Store, number: int) -> None:
    """A recording of both sides."""
    path = path_of(place.folder, sid(number))
    put(path, [Stretch(SIDES.index(track), 0, bytearray(numbered(track, 0, 4_000))) for track in BOTH])
    store.note_recording(sid(number), str(path))


def test_what_is_missing_is_transcribed_from_the_recording(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, Gap(INBOUND, 1_000, 2_000, "away"), Gap(OUTBOUND, 60_000, 61_000, "away"))
        record(here, store, 1)
    with deepgram(here):
        said = here.out("backfill", "CA01")
    assert said.splitlines() == [
        "Inbound, 1.0 s to 2.0 s: 50 words found.",
        "Outbound, 60.0 s to 61.0 s stays missing. Nothing of it is on the recording.",
    ]
    shown = here.json("show", "CA01")
    words = [word["text"] for segment in shown["segments"] for word in segment["words"]]
    assert words == [f"in{number}" for number in range(50, 100)]
    assert all(segment["backfilled"] for segment in shown["segments"])
    assert [gap["filled"] for gap in shown["gaps"]] == [True, False]


def test_what_a_service_could_not_hear_is_said_and_stays_missing(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, Gap(INBOUND, 500, 3_500, "away"))
        record(here, store, 1)
    with deepgram(here, Fault(drop=Drop(2_000, "reset")), *[Fault(refuse=Refusal(401, "INVALID_AUTH", "No."))] * 20):
        found, stays = here.out("backfill", "CA01").splitlines()
    assert re.fullmatch(r"Inbound, 0\.5 s to 3\.5 s: [1-9]\d* words found\.", found)
    assert re.fullmatch(
        r"Inbound, [12]\.\d s to 3\.5 s stays missing\. Deepgram did not hear all that is missing: .*[^.]\.", stays
    )
    with deepgram(here):
        assert "stays missing" not in here.out("backfill", "CA01")
    words = [word["text"] for segment in here.json("show", "CA01")["segments"] for word in segment["words"]]
    assert words == [f"in{number}" for number in range(25, 175)]


def test_of_services_side_by_side_the_one_that_missed_it_fills_it(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, Gap(INBOUND, 1_000, 1_500, "away"), service="Gladia")
        hear(store, 2, Gap(INBOUND, 1_000, 1_500, "away"), service="Deepgram")
        record(here, store, 1)
        record(here, store, 2)
    here.environ |= {"SPEECH_SERVICES": "deepgram,gladia", "GLADIA_API_KEY": "key"}
    with deepgram(here), VENDORS["gladia"].listening() as server:
        here.environ["GLADIA_URL"] = server.url
        for number, service in ((1, "Gladia"), (2, "Deepgram")):
            here.out("backfill", sid(number))
            shown = here.json("show", sid(number))
            assert {segment["service"] for segment in shown["segments"]} == {service}
            assert [(gap["service"], gap["filled"]) for gap in shown["gaps"]] == [(service, True)]


@pytest.mark.parametrize("typed", ["", "..", "CA", "C..1"])
def test_too_little_of_a_sid_means_no_call(here: Place, typed: str) -> None:
    with here.store() as store:
        hear(store, 1)
    assert "at least 3 characters" in here.refusal("delete", typed, "--yes")
    assert here.json("calls")


def test_of_a_call_that_is_deleted_meanwhile_nothing_is_put_into_another_one(place: Place) -> None:
    gap = Gap(INBOUND, 1_000, 2_000, "away")
    with place.store() as store:
        hear(store, 1, gap)
        record(place, store, 1)
        (its,) = store.gaps(sid(1))

        def delete_while_it_listens(options: EarOptions, emit: Callable[[Heard], None]) -> Ear:
            assert store.delete(sid(1))
            hear(store, 2, gap)
            (another,) = store.gaps(sid(2))
            assert another.id == its.id or "postgresql" in place.environ["DATABASE_URL"]
            return number_ears()(options, emit)

        with ListenServer(ear=delete_while_it_listens) as server:
            place.environ |= {"DEEPGRAM_URL": server.url, "DEEPGRAM_API_KEY": "key"}
            assert "was deleted meanwhile" in place.refusal("backfill", sid(1))
        assert [(gap.filled, store.segments(sid(2))) for gap in store.gaps(sid(2))] == [(False, [])]


def test_webhooks_are_told_of_what_was_filled(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, Gap(INBOUND, 1_000, 1_500, "away"))
        record(here, store, 1)
    here.environ |= {"WEBHOOK_URLS": HOOK, "WEBHOOK_SECRETS": SECRET}
    with deepgram(here):
        here.out("backfill", "CA01")
    (newest, *_) = here.json("webhooks")
    assert (newest["kind"], newest["state"]) == ("segment.final", "pending")


def test_a_service_that_refuses_is_one_sentence(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, Gap(INBOUND, 1_000, 2_000, "away"))
        record(here, store, 1)
    with deepgram(here, Fault(refuse=Refusal(401, "INVALID_AUTH", "No."))):
        assert "DEEPGRAM_API_KEY" in here.refusal("backfill", "CA01")
    del here.environ["DEEPGRAM_API_KEY"]
    assert "DEEPGRAM_API_KEY is not set" in here.refusal("backfill", "CA01")
    assert "GLADIA_API_KEY is not set" in here.refusal("backfill", "CA01", "--service", "gladia")


def test_why_nothing_can_be_filled_is_one_sentence(here: Place) -> None:
    gap = Gap(INBOUND, 1_000, 2_000, "away")
    with here.store() as store:
        hear(store, 1, gap, ended=False)
        hear(store, 2, gap)
        hear(store, 3, *TALK[:2])
        assert "still runs" in here.refusal("backfill", "CA01")
    assert "was not recorded" in here.refusal("backfill", "CA02")
    assert "Nothing is missing" in here.refusal("backfill", "CA03")


# --- webhooks --------------------------------------------------------------------------------------------------


@pytest.fixture
def told(place: Place) -> Place:
    """One delivery arrived, one was given up, one waits."""
    with place.store() as store:
        hear(store, 1, *TALK[:2])
        first, second, _ = reversed(store.deliveries().items)
        store.note_deliveries(
            [
                Attempt(first.id, delivered_at=1_700_000_000_000, status=204),
                Attempt(second.id, status=500, error="answered 500"),
            ]
        )
    return place


def test_deliveries_are_listed_newest_first(told: Place) -> None:
    lines = [line.split() for line in told.out("webhooks").splitlines() if "CA.." in line]
    assert [line[2:6] for line in lines] == [
        ["call.ended", "CA..000001", "pending", "0"],
        ["segment.final", "CA..000001", "failed", "1"],
        ["segment.final", "CA..000001", "delivered", "1"],
    ]
    assert lines[1][6:] == ["answered", "500"]
    assert [each["state"] for each in told.json("webhooks", "--state", "failed")] == ["failed"]


def test_a_delivery_is_sent_again(told: Place) -> None:
    (failed,) = told.json("webhooks", "--state", "failed")
    assert told.out("webhooks", "--replay", str(failed["id"])) == f"Delivery {failed['id']} is sent again.\n"
    assert told.json("webhooks", "--state", "failed") == []
    assert len(told.json("webhooks", "--state", "pending")) == 2


def test_all_that_was_given_up_is_sent_again(told: Place) -> None:
    assert told.out("webhooks", "--replay", "failed") == "1 delivery is sent again.\n"
    assert told.out("webhooks", "--replay", "failed") == "0 deliveries are sent again.\n"


@pytest.mark.parametrize("which", ["999999", "x", "-1", "9" * 40])
def test_a_delivery_that_is_not_there_is_said(told: Place, which: str) -> None:
    result = told.run("webhooks", "--replay", which)
    assert result.exit_code == 2
    assert f"there is no delivery {which}." in result.output


def test_no_deliveries_are_said(here: Place) -> None:
    assert "WEBHOOK_URLS" in here.out("webhooks")
    assert here.json("webhooks") == []


# --- Help ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_explains_every_option_and_how_calls_are_named(here: Place, command: click.Command) -> None:
    assert command.name
    shown = here.out(command.name, "--help")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.opts[0] in shown
        elif parameter.name == "sid":
            assert "beginning or end" in shown


def test_a_narrow_terminal_leaves_nothing_out(here: Place) -> None:
    with here.store() as store:
        hear(store, 1, *TALK)
    shown = here.out("calls", width=70)
    assert "CA..000001" in shown, "a SID can be copied"
    assert {"1:23", "ended", "15"} <= set(shown.split())
    assert "…" not in shown

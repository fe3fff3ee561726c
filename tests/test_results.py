"""What a service has made of a whole call is fetched after its end, and kept as a file."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gladia_client import Gladia, GladiaSettings
from relay.events import CallEvent, CallResult, Complained, Summary, Transcript
from relay.hub import Happened, Hub
from relay.protocol import CallInfo
from relay.results import Results
from standins.gladia import GladiaServer, Rules
from standins.twilio import SimulatedCall
from tests.calling import Relay, hang_up, in_time, relay
from tests.numbered import frame_words, number_ears
from tests.talking import BOTH, CALL, HASTE, Hasty

ROOMY = 10.0  # seconds; nothing here takes nearly so long


@contextmanager
def gladia(**rules: Any) -> Iterator[GladiaServer]:
    with GladiaServer(ear=number_ears(), rules=Rules(**rules)) as server:
        yield server
    assert server.violations == []


def at(server: GladiaServer, **settings: Any) -> Hasty:
    return Hasty(Gladia(GladiaSettings(api_key="key", url=server.url, **settings)))


@contextmanager
def keeping(folder: Path, service: Hasty, *, ask: float = ROOMY, **settings: Any) -> Iterator[Relay]:
    """A relay that keeps results below this folder; all are written at its end."""
    results = Results(folder)
    with relay(service, patience=replace(HASTE, ask=ask), **settings) as running:
        running.switchboard.hub = Hub(running.hear, results.hear)
        yield running
    results.close(ROOMY)


def call_of(running: Relay, length_ms: int = 4_000, call_sid: str | None = None) -> SimulatedCall:
    """A call of both tracks, from its start to its end."""
    call = SimulatedCall(running.url)
    call.call_sid = call_sid or call.call_sid
    call.open()
    call.start()
    in_time(call, length_ms)
    hang_up(call)
    running.ended(call)
    return call


def questions(server: GladiaServer) -> list[int]:
    """With what each question for a result was answered."""
    return [request.status for request in server.requests if request.method == "GET"]


def words(document: Any, channel: int) -> list[str]:
    """What was said on one channel, as a document of Gladia's has it."""
    utterances = document["result"]["transcription"]["utterances"]
    return [word for said in utterances if said["channel"] == channel for word in said["text"].split()]


# --- Whole calls -------------------------------------------------------------------------------------------------


def test_a_calls_result_becomes_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    with gladia() as server, keeping(folder, at(server, summary="concise")) as running:
        call = call_of(running)
    (path,) = folder.iterdir()
    assert path.name == f"{call.call_sid}-gladia-{next(iter(server.sessions))}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(path.read_bytes())
    for channel, track in enumerate(BOTH):
        assert words(document, channel) == frame_words(track, 0, 4_000)
    assert document["custom_metadata"] == {"call_sid": call.call_sid}
    assert questions(server) == [200, 200], "it was not done at once"
    (summary,) = running.of(call).of(Summary)
    assert document["result"]["summarization"]["results"] == summary.text  # type: ignore[union-attr]


def test_each_session_of_a_call_has_a_file_of_its_own(tmp_path: Path) -> None:
    with gladia() as server, keeping(tmp_path, at(server), tracks="apart") as running:
        call = call_of(running)
    documents = [json.loads(path.read_bytes()) for path in tmp_path.glob(f"{call.call_sid}-gladia-*.json")]
    spoken = sorted(tuple(words(document, 0)) for document in documents)
    assert spoken == sorted(tuple(frame_words(track, 0, 4_000)) for track in BOTH)


def test_a_hostile_name_of_a_call_does_not_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with gladia() as server, keeping(folder, at(server)) as running:
        call_of(running, call_sid="../../../CA\\..\\hosti le\x00\n%2e")
    assert list(tmp_path.iterdir()) == [folder]
    (path,) = folder.iterdir()
    assert path.name.startswith("_________CA____hosti_le___2e-gladia-")


def test_a_result_that_nobody_wants_is_not_fetched(tmp_path: Path) -> None:
    with gladia() as server, keeping(tmp_path, at(server, keep_result=False)) as running:
        call = call_of(running)
    assert questions(server) == []
    assert list(tmp_path.iterdir()) == []
    assert running.of(call).of(Transcript)


def test_a_result_that_is_never_done_is_given_up_and_the_call_ends(tmp_path: Path) -> None:
    with gladia(processing_answers=1_000_000) as server, keeping(tmp_path, at(server), ask=0.3) as running:
        call = call_of(running)
        assert server.sessions, "the call was not heard"
        said = [event.reason for event in running.of(call).of(Complained) if isinstance(event, Complained)]
    assert said == ["Gladia has not told of the call in time"]
    assert len(questions(server)) > 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_and_ends_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "a file"
    folder.write_text("mine")
    with gladia() as server, keeping(folder / "results", at(server)) as running:
        calls = [call_of(running) for _ in range(2)]
    for call in calls:
        assert running.ended(call).reason == "stop"
        assert running.of(call).of(CallResult)
    assert [record.getMessage() for record in caplog.records] == [
        "a call's result could not be kept in RESULTS_FOLDER: Not a directory"
    ] * 2
    assert folder.read_text() == "mine"


# --- One result --------------------------------------------------------------------------------------------------


def keep(folder: Path, *happened: Happened) -> list[Path]:
    """The files that come of it."""
    results = Results(folder)
    for one in happened:
        results.hear(one)
    results.close(ROOMY)
    return sorted(folder.rglob("*")) if folder.exists() else []


def result_of(call_sid: str = CALL.call_sid, session_id: str = "7", document: bytes = b"{}") -> Happened:
    return Happened(CallInfo(call_sid, "MZ1", BOTH), CallResult("Gladia", session_id, document), "Gladia")


@settings(max_examples=200, deadline=None)
@given(call_sid=st.text(), session_id=st.text())
def test_no_name_leaves_the_folder(call_sid: str, session_id: str) -> None:
    with TemporaryDirectory() as above:
        folder = Path(above) / "results"
        (path,) = keep(folder, result_of(call_sid, session_id))
        assert path.parent == folder
        assert path.is_file()
        assert list(Path(above).iterdir()) == [folder]


def test_a_name_without_end_is_cut(tmp_path: Path) -> None:
    (path,) = keep(tmp_path, result_of("C" * 10_000, "7" * 10_000))
    assert len(path.name) < 255


def test_a_result_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # bytes; as good as a full disk
    try:
        assert keep(tmp_path, result_of(document=b"x" * (2 << 20))) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be kept in RESULTS_FOLDER" in caplog.text


def test_the_newest_of_two_results_is_kept(tmp_path: Path) -> None:
    keep(tmp_path, result_of(document=b"1"))
    (path,) = keep(tmp_path, result_of(document=b"2"))
    assert path.read_bytes() == b"2"


def test_nothing_else_is_kept(tmp_path: Path) -> None:
    others: list[CallEvent] = [Summary("All is well."), Complained("no")]
    nobodys = Happened(None, CallResult("Gladia", "7", b"{}"))
    assert keep(tmp_path, nobodys, *(Happened(CALL, other) for other in others)) == []

"""What a service has made of a whole call is fetched after its end, and kept as a file."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import gevent
import pytest
from gevent.monkey import get_original
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, update

from gladia_client import Gladia, GladiaSettings
from relay import results as results_module
from relay.events import CallEvent, CallResult, Complained, Summary, Transcript
from relay.hub import Happened, Hub
from relay.passes import Kind, Passes, Scope
from relay.protocol import CallInfo
from relay.recording import Stretch, path_of, put
from relay.results import Results, kept_beside
from relay.store.database import address
from relay.store.tables import calls
from relay.store.telling import LONGEST_SID, storable
from standins.gladia import GladiaServer, Rules
from standins.twilio import SimulatedCall
from tests.calling import Relay, answered, hang_up, in_time, relay, say
from tests.numbered import frame_words, number_ears
from tests.program import program
from tests.storing import Reader, Talk, eventually, opened
from tests.talking import BOTH, CALL, HASTE, Hasty

pytest_plugins = ("tests.databases",)

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
    assert path.name.startswith("..%2F..%2F..%2FCA%5C..%5Chosti%20le%20%0A%252e-gladia-")


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
    assert set(questions(server)) <= {200}
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
    return sorted(path for path in folder.rglob("*") if path.is_file())


def result_of(call_sid: str = CALL.call_sid, session_id: str = "7", document: bytes = b"{}") -> Happened:
    return Happened(CallInfo(call_sid, "MZ1", BOTH), CallResult("Gladia", session_id, document), "Gladia")


@settings(max_examples=200)
@given(call_sid=st.text(), session_id=st.text())
def test_no_name_leaves_the_folder(call_sid: str, session_id: str) -> None:
    with TemporaryDirectory() as above:
        folder = Path(above) / "results"
        (path,) = keep(folder, result_of(call_sid, session_id))
        assert path.parent == folder
        assert list(Path(above).iterdir()) == [folder]


def test_names_without_end_are_cut_and_stay_different(tmp_path: Path) -> None:
    sessions = ["7" * 10_000, "7" * 10_000 + "8"]
    paths = keep(tmp_path, *(result_of("é" * 10_000, session) for session in sessions))
    assert len(paths) == 2
    assert all(len(path.name) < 255 for path in paths)


SIDS: Final = ("CA1", "CA11", "CA1-gladia", "CA1.", "*", "?", "[C]A1", "", "é" * 150, "e\u0301" * 150, "e" * 201, "\0")


@pytest.mark.parametrize("sid", SIDS)
def test_all_that_lies_beside_the_store_is_known_by_its_call_and_nothing_of_another(sid: str, tmp_path: Path) -> None:
    """It is deleted with its call; what the store calls the same is the same."""
    recordings, results = tmp_path / "recordings", tmp_path / "results"
    beside = kept_beside(recordings, results)
    others = [other for other in SIDS if as_stored(other) != as_stored(sid)]
    keep(results, *(result_of(other, session) for other in others for session in ("7", "gladia-7")))
    theirs = set(results.iterdir())
    keep(results, *(result_of(sid, session) for session in ("7", "gladia-7")))
    assert set(beside(as_stored(sid))) == {path_of(recordings, as_stored(sid)), *results.iterdir()} - theirs
    assert path_of(recordings, as_stored(sid)) not in {path_of(recordings, as_stored(other)) for other in others}


def as_stored(sid: str) -> str:
    return storable(sid, LONGEST_SID)


def test_a_disk_that_does_not_answer_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the call, nor whoever else has need of a thread: name servers are asked by gevent's."""
    disk, keep_file = get_original("threading", "Event")(), results_module._keep

    def keep_in_the_end(path: Path, document: bytes) -> None:
        disk.wait(ROOMY)
        keep_file(path, document)

    monkeypatch.setattr(results_module, "_keep", keep_in_the_end)
    monkeypatch.setattr(results_module, "HELD_MOST", 20)  # bytes
    results = Results(tmp_path)
    with gevent.Timeout(ROOMY / 2):
        for session in range(20):
            results.hear(result_of(session_id=str(session)))
        gevent.sleep(0)
        assert gevent.get_hub().threadpool.apply(str, (1,)) == "1"
        disk.set()
    results.close(ROOMY)
    assert len(list(tmp_path.rglob("*.json"))) == 10
    assert "its result is not kept: the disk is too slow" in caplog.text
    results.hear(result_of(session_id="later"))
    results.close(ROOMY)
    assert (tmp_path / f"{CALL.call_sid}-gladia-later.json").exists()


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


# --- With its call -----------------------------------------------------------------------------------------------


def lies_beside(call_sid: str, recordings: Path, results: Path) -> list[Path]:
    """A recording, and what two sessions made of the call."""
    recording = path_of(recordings, call_sid)
    put(recording, [Stretch(0, 0, bytearray(160))])
    return [recording, *keep(results, result_of(call_sid, "7"), result_of(call_sid, "8"))]


def test_what_lies_beside_the_store_is_deleted_with_its_call(database: str, tmp_path: Path) -> None:
    """Also a recording of which the store knows nothing: it was away while that was made."""
    recordings, results = tmp_path / "recordings", tmp_path / "results"
    recordings.mkdir()
    with opened(database, beside=kept_beside(recordings, results)) as store:
        reader = Reader(store)
        gone, kept = Talk(store).begin().end(), Talk(store).begin().end()
        reader.until_ended(2)
        theirs = {talk.sid: lies_beside(talk.sid, recordings, results) for talk in (gone, kept)}
        assert store.delete(gone.sid)
        assert {path for path in tmp_path.rglob("*") if path.is_file() and gone.sid in path.name} == set()
        assert all(path.exists() for path in theirs[kept.sid] if kept.sid in path.name)
        assert not store.delete(gone.sid)


def test_what_lies_beside_the_store_is_too_old_with_its_call(database: str, tmp_path: Path) -> None:
    recordings, results = tmp_path / "recordings", tmp_path / "results"
    recordings.mkdir()
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin().end()
        reader.until_ended()
        theirs = lies_beside(talk.sid, recordings, results)
        engine = create_engine(address(database))
        with engine.begin() as connection:
            connection.execute(update(calls), {"started_at": 1, "ended_at": 2})
        engine.dispose()
        with opened(database, keep_days=1, beside=kept_beside(recordings, results)):
            eventually(lambda: store.call(talk.sid) is None)
            assert not any(path.exists() for path in theirs), "they go first"


@pytest.mark.parametrize("by_command", [True, False])
def test_the_program_deletes_all_of_a_call(tmp_path: Path, by_command: bool) -> None:
    passes = Passes(tmp_path / "data" / "access")
    token = passes.issue(Kind.TOKEN, {Scope.READ, Scope.DELETE}, for_s=3600)
    with GladiaServer(ear=number_ears(), key="key") as speech:
        settings = {"SPEECH_SERVICE": "gladia", "GLADIA_URL": speech.url, "GLADIA_API_KEY": "key", "RECORD": "wav"}
        with program(folder=tmp_path, PORT="0", **settings) as started:
            url = started.line(r"listening on: http://(\S+)")[1]
            call = answered(f"ws://{url}/media/{passes.stream_key}")
            say(call, 2_000)
            hang_up(call)
            started.line(rf"^Call CA\.\.{call.call_sid[-6:]} ended")
            eventually(lambda: {path.suffix for path in files_of(tmp_path, call)} == {".wav", ".json"})
            eventually(lambda: has_ended(f"http://{url}/api/calls/{call.call_sid}", token))
            if by_command:
                with program("delete", call.call_sid, "--yes", folder=tmp_path, **settings) as deleting:
                    assert deleting.end() == 0, deleting
            else:
                delete(f"http://{url}/api/calls/{call.call_sid}", token)
            assert files_of(tmp_path, call) == []


def files_of(folder: Path, call: SimulatedCall) -> list[Path]:
    return [path for path in (folder / "data").rglob("*") if path.name.startswith(call.call_sid)]


def has_ended(url: str, token: str) -> bool:
    """Whether the call's end has been stored, which is a moment after it was printed."""
    with suppress(HTTPError), urlopen(asked(url, token), timeout=ROOMY) as answer:
        return bool(json.load(answer)["state"] == "ended")
    return False


def delete(url: str, token: str) -> None:
    with urlopen(asked(url, token, "DELETE"), timeout=ROOMY) as answer:
        assert answer.status == HTTPStatus.NO_CONTENT


def asked(url: str, token: str, method: str = "GET") -> Request:
    return Request(url, method=method, headers={"Authorization": f"Bearer {token}"})

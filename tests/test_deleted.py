"""A call is deleted and the process is killed with signal 9 meanwhile: nothing of the call may stay for good."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.writing import owed
from tests.program import ROOT
from tests.storing import Reader, Talk, eventually, opened

pytest_plugins = ("tests.databases",)

SECRET = "quicksilver"


def a_recorded_call(database: str, recording: Path) -> str:
    """Among others, and with a word that none of them has."""
    with opened(database) as store:
        reader = Reader(store)
        talks = [Talk(store).begin().say(f"xylophone {number}").end() for number in range(30)]
        secret = Talk(store).begin().say(f"{SECRET} and more").end()
        reader.until_ended(len(talks) + 1)
        recording.write_bytes(b"sound")
        store.note_recording(secret.sid, str(recording))
    return secret.sid


def delete_and_be_killed(database: str, sid: str, moment: str) -> None:
    """A process of its own, which is killed in the middle."""
    arguments = [sys.executable, "-m", "tests.deletion_victim", database, sid, moment]
    assert subprocess.run(arguments, cwd=ROOT, timeout=60, check=False).returncode == -signal.SIGKILL


def files_with_it(folder: Path) -> list[str]:
    """The files of SQLite's database in which the word still is."""
    return [path.name for path in folder.iterdir() if SECRET.encode() in path.read_bytes().lower()]


@pytest.mark.parametrize("moment", ["before_the_commit", "after_the_commit"])
def test_no_recording_stays_of_a_call_that_is_gone(database: str, tmp_path: Path, moment: str) -> None:
    recording = tmp_path / "call.wav"
    sid = a_recorded_call(database, recording)
    delete_and_be_killed(database, sid, moment)
    assert not recording.exists()
    with opened(database) as store:
        is_there = store.call(sid) is not None
        assert is_there == (moment == "before_the_commit")
        assert store.delete(sid) == is_there, "what is there can be deleted again"
        assert store.search(SECRET).items == ()


@pytest.mark.parametrize("moment", ["after_the_commit", "before_the_log_is_cut_off"])
def test_the_next_start_leaves_no_word_of_it_in_any_file(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "data"
    database = f"sqlite:///{folder}/calls.db"
    sid = a_recorded_call(database, tmp_path / "call.wav")
    with closing(sqlite3.connect(folder / "calls.db")) as other:  # which keeps the log from being cut off by itself
        other.execute("SELECT count(*) FROM calls").fetchone()
        delete_and_be_killed(database, sid, moment)
        assert files_with_it(folder)
        with opened(database) as store:
            eventually(lambda: not files_with_it(folder))
            eventually(lambda: not store._readers.run(owed))
            assert len(store.search("xylophone").items) == 30

"""Passes: who holds one may do what it says, until it ends; and nobody else may."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import SettingsError
from relay.passes import Kind, Pass, Passes, Scope
from tests.program import ROOT

HOUR = 3600


@pytest.fixture
def passes(tmp_path: Path) -> Passes:
    return Passes(tmp_path)


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


def read_token(passes: Passes) -> str:
    return passes.issue(Kind.TOKEN, {Scope.READ}, for_s=HOUR)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "passes").iterdir())


def test_a_pass_says_what_it_is_for(passes: Passes) -> None:
    text = passes.issue(Kind.SHARE, {Scope.READ, Scope.SHARE}, for_s=HOUR, call_sid="CA1", name="for the shop")
    found = passes.look(text, Kind.SHARE)
    assert found is not None
    assert (found.kind, found.scopes, found.call_sid) == (Kind.SHARE, frozenset({Scope.READ, Scope.SHARE}), "CA1")
    assert (found.name, found.expires_at - found.created_at) == ("for the shop", HOUR)
    assert found.id not in repr(found)
    assert [one.id for one in passes.all()] == [found.id]


@pytest.mark.parametrize("call_sid", [None, "CA1"])
@pytest.mark.parametrize("scopes", [set(), {Scope.READ}, {Scope.READ, Scope.DELETE}])
def test_it_allows_its_scopes_with_its_call(scopes: set[Scope], call_sid: str | None, passes: Passes) -> None:
    found = passes.look(passes.issue(Kind.TOKEN, scopes, for_s=HOUR, call_sid=call_sid), Kind.TOKEN)
    assert found is not None
    for scope in Scope:
        assert found.allows(scope, "CA1") == (scope in scopes)
        assert found.allows(scope, "CA2") == found.allows(scope, None) == (scope in scopes and call_sid is None)


@pytest.mark.parametrize("kind", Kind)
def test_a_pass_of_one_kind_is_none_of_another(kind: Kind, passes: Passes) -> None:
    text = passes.issue(kind, {Scope.READ}, for_s=HOUR)
    assert [other for other in Kind if passes.look(text, other) is not None] == [kind]


def test_every_flipped_bit_is_noticed(passes: Passes) -> None:
    text = read_token(passes).encode()
    for place in range(len(text)):
        for bit in range(8):
            forged = bytearray(text)
            forged[place] ^= 1 << bit
            assert passes.look(forged.decode("latin-1"), Kind.TOKEN) is None


@given(text=st.text(max_size=300))
def test_no_text_of_others_is_a_pass(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    passes = Passes(tmp_path_factory.getbasetemp() / "any")
    issued = read_token(passes)
    assert passes.look(text, Kind.TOKEN) is None
    assert passes.look(issued + text, Kind.TOKEN) is None or not text
    assert not passes.end(text)


def test_a_pass_of_another_server_is_none_here(passes: Passes, tmp_path: Path) -> None:
    assert passes.look(read_token(Passes(tmp_path / "other")), Kind.TOKEN) is None


def test_it_expires_and_is_swept_away(tmp_path: Path) -> None:
    clock = Clock()
    passes = Passes(tmp_path, now=clock)
    short, long = passes.issue(Kind.TOKEN, (), for_s=60), passes.issue(Kind.TOKEN, (), for_s=61)
    known = passes.look(short, Kind.TOKEN)
    assert known is not None
    clock.at += 59.9
    assert passes.look(short, Kind.TOKEN)
    assert passes.still_good(known)
    clock.at += 0.1
    assert passes.look(short, Kind.TOKEN) is None
    assert not passes.still_good(known)
    assert passes.look(long, Kind.TOKEN)
    passes.sweep()
    assert [path.name for path in files(tmp_path)] == [one.id for one in passes.all()] == [long.partition(".")[0]]


def test_what_has_ended_is_worth_nothing_in_any_process(tmp_path: Path) -> None:
    one, other = Passes(tmp_path), Passes(tmp_path)
    text = read_token(one)
    known = other.look(text, Kind.TOKEN)
    assert known is not None
    assert one.end(known.id)
    assert other.look(text, Kind.TOKEN) is None
    assert not other.still_good(known)
    assert not one.end(known.id)
    assert list(other.all()) == []


def test_it_outlasts_a_restart(tmp_path: Path) -> None:
    text, key = read_token(Passes(tmp_path)), Passes(tmp_path).stream_key
    again = Passes(tmp_path)
    assert again.look(text, Kind.TOKEN)
    assert again.stream_key == key
    assert len(urlsafe_b64decode(key)) == 24


def test_a_name_that_leads_elsewhere_leads_nowhere(passes: Passes, tmp_path: Path) -> None:
    """Even if it is signed, and there is a pass."""
    beside = tmp_path / "beside"
    read_token(passes)
    beside.write_bytes(files(tmp_path)[0].read_bytes())
    for name in (
        "../beside",
        str(beside),
        "",
        ".",
        "..",
        "../key",
        "a\0b",
        "A" * 32,
        "0" * 31,
        "0" * 33,
        "0" * 32 + "\n",
    ):
        signed = passes._signer.sign(name).decode()
        assert passes.look(signed, Kind.TOKEN) is None
        assert not passes.end(name)
    assert beside.exists()
    assert (tmp_path / "key").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"kind": "token"}', b'{"kind": "king", "scopes": []}', b"\xff", b"\0" * 100],
)
def test_a_damaged_file_is_no_pass_and_is_swept(content: bytes, passes: Passes, tmp_path: Path) -> None:
    text = read_token(passes)
    files(tmp_path)[0].write_bytes(content)
    assert passes.look(text, Kind.TOKEN) is None
    assert list(passes.all()) == []
    passes.sweep()
    assert files(tmp_path) == []


def test_only_its_user_may_read_what_is_kept_and_no_text_is(passes: Passes, tmp_path: Path) -> None:
    text = read_token(passes)
    secret = text.partition(".")[2].encode()
    for path in (tmp_path / "passes", tmp_path / "key", *files(tmp_path)):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        assert path.is_dir() or secret not in path.read_bytes()


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_key_that_was_cut_short_signs_nothing(length: int, tmp_path: Path) -> None:
    Passes(tmp_path)
    (tmp_path / "key").write_bytes(b"k" * length)
    with pytest.raises(SettingsError, match=r"ACCESS_FOLDER=.* holds a damaged key"):
        Passes(tmp_path)


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"ACCESS_FOLDER=.*file/access cannot be used"):
        Passes(tmp_path / "file" / "access")


def test_what_a_killed_process_left_half_written_is_swept_later(passes: Passes, tmp_path: Path) -> None:
    half = tmp_path / "passes" / f"{'0' * 32}.new"
    half.write_bytes(b"{")
    passes.sweep()
    assert half.exists(), "somebody may be writing it"
    os.utime(half, (0, 0))
    passes.sweep()
    assert not half.exists()


def test_a_pass_shows_itself_without_its_id() -> None:
    shown = Pass("0" * 32, Kind.TOKEN, frozenset({Scope.READ}), None, "mine", 0, 1)
    assert "0" * 32 not in f"{shown} {shown!r}"


# --- Several processes -----------------------------------------------------------------------------------------

_FIRST = """
import sys
from pathlib import Path
from relay.passes import Kind, Passes
folder = Path(sys.argv[1])
sys.stdin.read()  # until all are there
"""
MAKE_KEYS = (
    _FIRST
    + """
for number in range(200):
    print(Passes(folder / str(number)).stream_key)
"""
)
SPEND = (
    _FIRST
    + """
passes = Passes(folder)
for text in (folder / "texts").read_text().split():
    known = passes.look(text, Kind.STREAM)
    if known is not None and passes.end(known.id):
        print(text)
"""
)
ISSUE = (
    _FIRST
    + """
passes = Passes(folder)
for _ in range(500):
    print(passes.look(passes.issue(Kind.TOKEN, (), for_s=60), Kind.TOKEN) is not None)
"""
)
SWEEP = (
    _FIRST
    + """
passes = Passes(folder)
for _ in range(300):
    passes.sweep()
"""
)


def at_once(folder: Path, *scripts: str) -> list[list[str]]:
    """What each of the scripts prints; they run at the same time, in processes that share nothing but the folder."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for script in scripts
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    printed = []
    for process in running:
        assert process.stdout is not None
        printed.append(process.stdout.read().split())
        assert process.wait(60) == 0
    return printed


def test_of_processes_that_start_at_once_one_makes_the_key(tmp_path: Path) -> None:
    one, *others = at_once(tmp_path, *[MAKE_KEYS] * 3)
    assert len(set(one)) == 200
    assert others == [one, one]


def test_of_those_who_spend_a_pass_one_succeeds(tmp_path: Path) -> None:
    passes = Passes(tmp_path)
    texts = [passes.issue(Kind.STREAM, (), for_s=60, call_sid="CA1") for _ in range(500)]
    (tmp_path / "texts").write_text("\n".join(texts))
    spent = at_once(tmp_path, *[SPEND] * 3)
    assert sorted(text for one in spent for text in one) == sorted(texts)
    assert files(tmp_path) == []


def test_a_sweep_takes_no_pass_that_is_being_written(tmp_path: Path) -> None:
    first, second, _ = at_once(tmp_path, ISSUE, ISSUE, SWEEP)
    assert {*first, *second} == {"True"}
    assert len(list(Passes(tmp_path).all())) == 1000

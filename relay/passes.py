"""Passes: what lets someone in. A pass is a signed name, and a file of that name which says what it is for.

Its text is kept nowhere. Ending a pass is removing its file, which all processes see at once, and of several that want
to spend the same pass one succeeds. They outlast a restart of the server, and the database's absence.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson
from itsdangerous import Signer

from relay.errors import SettingsError

KEY_BYTES: Final = 32
ID_BYTES: Final = 16  # 128 bits: not to be guessed, and never the same twice
LONGEST_TEXT: Final = 200  # characters; ours have 76
LEFT_BEHIND_AFTER: Final = 3600  # seconds; a file that is still half written then was left by a killed process

_ID: Final = re.compile(r"[0-9a-f]{32}")  # no other name leads anywhere, least of all out of the folder


class Kind(StrEnum):
    """What a pass is used as. One of one kind is worth nothing as another."""

    SESSION = "session"  # a browser's cookie
    TOKEN = "token"  # noqa: S105  # a program's, sent as `Authorization: Bearer`
    SHARE = "share"  # a link to one call
    STREAM = "stream"  # for one media stream of one call, once


class Scope(StrEnum):
    """What a pass lets one do."""

    READ = "read"  # see calls and what was said on them
    DELETE = "delete"
    METRICS = "metrics"
    SHARE = "share"  # make links to one call
    TRY = "try"  # start the demo call


@dataclass(frozen=True, slots=True)
class Pass:
    """Who holds it may do what its scopes say: with all calls, or with one."""

    id: str = field(repr=False)
    kind: Kind
    scopes: frozenset[Scope]
    call_sid: str | None  # None: all
    name: str  # what whoever issued it calls it
    created_at: int  # seconds since 1970
    expires_at: int

    def allows(self, scope: Scope, call_sid: str | None) -> bool:
        """Whether this may be done with this call; None: with all of them."""
        return scope in self.scopes and self.call_sid in (None, call_sid)


class Passes:
    """The passes of a server, in a folder that only its user may read."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        """Makes the folder, and the key that signs, if there are none. Raises SettingsError."""
        self._folder = folder / "passes"
        self._now = now
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._key = _key(folder / "key")
        except OSError as trouble:
            raise SettingsError(f"ACCESS_FOLDER={folder} cannot be used: {trouble.strerror}.") from None
        if len(self._key) != KEY_BYTES:  # with a key that was cut short anybody could sign
            raise SettingsError(f"ACCESS_FOLDER={folder} holds a damaged key; remove the file `key`, and log in again.")
        self._signer = Signer(self._key, salt="pass", digest_method=sha256)

    @property
    def stream_key(self) -> str:
        """What TwiML written by hand shows: it does not change, and admits any call's streams."""
        return urlsafe_b64encode(hmac.digest(self._key, b"stream key", "sha256")[:24]).decode()

    def issue(
        self, kind: Kind, scopes: Iterable[Scope], *, for_s: float, call_sid: str | None = None, name: str = ""
    ) -> str:
        """A new pass's text. Raises OSError."""
        id_ = secrets.token_hex(ID_BYTES)
        now = int(self._now())
        said = {
            "kind": kind,
            "scopes": sorted(scopes),
            "call_sid": call_sid,
            "name": name,
            "created_at": now,
            "expires_at": now + int(for_s),
        }
        self._write(id_, orjson.dumps(said))
        return self._signer.sign(id_).decode()

    def look(self, text: str, kind: Kind) -> Pass | None:
        """The pass of this text; None when it is forged, ended, expired, or of another kind."""
        id_ = text[:LONGEST_TEXT].partition(".")[0]
        if not hmac.compare_digest(self._signer.sign(id_.encode(errors="replace")), text.encode(errors="replace")):
            return None
        found = self._read(id_)
        return found if found is not None and found.kind is kind else None

    def still_good(self, known: Pass) -> bool:
        """Whether a pass that was looked at has neither ended nor expired since."""
        return self._now() < known.expires_at and (self._folder / known.id).exists()

    def end(self, pass_id: str) -> bool:
        """Ends a pass; whether it was one. Of several that end the same pass at once, one is told so."""
        if not _ID.fullmatch(pass_id):
            return False
        try:
            (self._folder / pass_id).unlink()
        except OSError:
            return False
        return True

    def all(self) -> Iterator[Pass]:
        """Those that are worth something."""
        for path in self._folder.iterdir():
            if (found := self._read(path.name)) is not None:
                yield found

    def sweep(self) -> None:
        """Removes what has expired, and what a killed process left half written."""
        for path in self._folder.iterdir():
            with suppress(OSError):
                if _ID.fullmatch(path.name):
                    is_over = self._parsed(path.name, path.read_bytes()) is None
                else:
                    is_over = time.time() - path.stat().st_mtime > LEFT_BEHIND_AFTER
                if is_over:
                    path.unlink()

    def _write(self, id_: str, said: bytes) -> None:
        """Writes a pass's file aside, so that it is whole as soon as it is there."""
        aside = self._folder / f"{id_}.new"
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(said)
        aside.rename(self._folder / id_)

    def _read(self, id_: str) -> Pass | None:
        if not _ID.fullmatch(id_):
            return None
        try:
            return self._parsed(id_, (self._folder / id_).read_bytes())
        except OSError:
            return None

    def _parsed(self, id_: str, content: bytes) -> Pass | None:
        try:
            said: dict[str, Any] = orjson.loads(content)
            found = Pass(
                id=id_,
                kind=Kind(said["kind"]),
                scopes=frozenset(map(Scope, said["scopes"])),
                call_sid=said["call_sid"],
                name=said["name"],
                created_at=said["created_at"],
                expires_at=said["expires_at"],
            )
        except (ValueError, KeyError, TypeError):
            return None
        return found if self._now() < found.expires_at else None


def _key(path: Path) -> bytes:
    """The key in this file, which is made if there is none. Of several processes that start at once, one makes it."""
    made = path.with_name(f"key.{os.getpid()}")
    with suppress(FileExistsError):
        if not path.exists():
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            try:
                os.link(made, path)  # which fails where there is one, and shows no half of it
            finally:
                made.unlink()
    return path.read_bytes()

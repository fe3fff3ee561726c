"""The demo call, as a running server offers it: the sample call through its own media socket, heard on this machine.

The call and its speech service are a process of their own (`standins.sample_call`), which may be busy as it likes.
Whichever worker gets the call finds the service's address in a note that only this program's user may read.
"""

from __future__ import annotations

import importlib.util
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import gevent
import orjson
from gevent.event import AsyncResult

from relay.call import CALLED, CALLER
from relay.errors import Refused, RelayError, ServiceError
from relay.events import Track
from relay.listening import SERVICE
from relay.protocol import Abilities, CallInfo, Limits, SpeechProtocol, SpeechService, Traits
from relay.provider import Provider
from standins.recognizer import HOW_OFTEN_IT_ERRS

NEEDED: Final = ("pocketsphinx", "websockets")
WORD: Final = "demo"  # what the call's stream asks for
NAME: Final = "Local recogniser"
BEGIN_WITHIN: Final = 30.0  # seconds from the request to the first audio, on a busy machine
END_WITHIN: Final = 15.0  # seconds to hang up, hear the last words, and be gone
WELCOME: Final = (
    "A demo call begins: a recording is played through this server, and heard by a speech service for trying out.",
    f"That is none of those you can choose: with its vocabulary, {HOW_OFTEN_IT_ERRS['call']}.",
)

_ROOT: Final = Path(__file__).parent.parent


class LocalService:
    """The speech service for trying out, as the relay sees it: it hears the demo call and no other."""

    def __init__(self, note: Path, service_at: Callable[[str], SpeechService]) -> None:
        """`service_at` makes the service whose protocol is spoken, at an address."""
        self._note = note
        self._service_at = service_at
        self._spoken = service_at("ws://localhost")

    @property
    def traits(self) -> Traits:
        """Those of the protocol, under a name of its own."""
        return replace(self._spoken.traits, word=WORD, name=NAME)

    @property
    def abilities(self) -> Abilities:
        """Those of the protocol."""
        return self._spoken.abilities

    @property
    def limits(self) -> Limits:
        """Those of the protocol."""
        return self._spoken.limits

    def tailored(self, language: str | None, keyterms: tuple[str, ...]) -> LocalService:
        """It knows one language, and no terms."""
        return self

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> SpeechProtocol:
        """Speaks to the service of this call. Raises Refused when it has none."""
        try:
            note = orjson.loads(self._note.read_bytes())
        except (OSError, ValueError):
            note = {}
        if note.get("call_sid") != call.call_sid:
            raise Refused("the speech service for trying out hears the demo call only, while that runs")
        return self._service_at(note["url"]).protocol(call, tracks)


class LocalProvider(Provider):
    """The speech service for trying out, which is another one in each demo call: none is down because one was."""

    def failed(self, failure: ServiceError) -> None:
        """Says nothing of the next one."""


class DemoCall:
    """The demo call of a server: one at a time, also if several processes are that server."""

    def __init__(
        self, folder: Path, service_at: Callable[[str], SpeechService], say: Callable[[str, str], None]
    ) -> None:
        """`folder` is for this program's user alone, and `service_at` as in LocalService."""
        self._note = folder.absolute() / "demo-call"
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._follower: gevent.Greenlet[..., None] | None = None
        self._url = ""
        self._headers: Mapping[str, str] = {}
        self.provider = LocalProvider(LocalService(self._note, service_at))
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        self.why_not = f"{missing[0]} is not installed: pip install -r requirements-demo.txt" if missing else ""

    def goes_to(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        """The server listens: this is its media socket, with the key that opens it, and the headers of the upgrade."""
        self._url, self._headers = url, headers or {}

    def begin(self) -> str:
        """Begins to play it; gives its SID once its audio flows. Raises RelayError with the reason when it cannot."""
        if self.why_not:
            raise RelayError(self.why_not)
        if self._child is not None:
            raise RelayError("A demo call runs already; there is one at a time.")
        call_sid = f"CA{secrets.token_hex(16)}"
        begun: AsyncResult[str] = AsyncResult()
        self._child = self._start(call_sid)
        self._follower = gevent.spawn(self._follow, self._child, begun)
        try:
            why_not = begun.get(timeout=BEGIN_WITHIN)
        except gevent.Timeout:
            self.hang_up()
            why_not = "The demo call did not begin in time."
        if why_not:
            raise RelayError(why_not)
        for line in WELCOME:
            self._say(line, "yellow")
        return call_sid

    def hang_up(self) -> None:
        """Has the call end; it does so by itself. Never waits."""
        if self._child is not None and self._child.stdin is not None:
            with suppress(OSError):
                self._child.stdin.close()

    def close(self) -> None:
        """Ends the call, if there is one, and all that was started for it."""
        self.hang_up()
        if self._follower is not None:
            self._follower.join(END_WITHIN)
        if self._child is not None:
            self._child.kill()

    def _start(self, call_sid: str) -> subprocess.Popen[bytes]:
        parameters = {SERVICE: WORD, CALLER: "+12025550143", CALLED: "+12025550178"}  # numbers kept free for fiction
        order = {
            "url": self._url,
            "headers": self._headers,
            "call_sid": call_sid,
            "parameters": parameters,
            "note": str(self._note),
        }
        child = subprocess.Popen(
            [sys.executable, "-m", "standins.sample_call"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,  # which ends when we do, however that happens
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for us
        )
        assert child.stdin is not None
        child.stdin.write(orjson.dumps(order) + b"\n")
        child.stdin.flush()
        return child

    def _follow(self, child: subprocess.Popen[bytes], begun: AsyncResult[str]) -> None:
        """Until it is over."""
        assert child.stdout is not None
        why_not = "The demo call could not begin."
        for line in child.stdout:
            if not (why_not := orjson.loads(line)["why_not"]):
                begun.set("")
        self.hang_up()
        child.stdout.close()
        child.wait()
        self._child = None
        if not begun.ready():
            begun.set(why_not)

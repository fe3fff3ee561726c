"""For tests of what is asked of the server over HTTP: a relay with a store, and things that happen on calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask

from relay.admission import Admission, TwilioSettings
from relay.call import Switchboard
from relay.events import (
    CallEvent,
    StreamBegun,
    StreamEnded,
    Track,
    Transcript,
    Word,
)
from relay.hub import Happened, Hub
from relay.listening import Listening
from relay.passes import Kind, Passes, Scope
from relay.protocol import CallInfo, SpeechService
from relay.provider import Provider
from relay.settings import Settings
from relay.store.records import Event
from relay.store.store import Store
from relay.web.api import api
from relay.web.entrance import AccessSettings, entrance
from relay.web.live import HEARTBEAT_S, Live
from relay.web.metrics import Metrics, health
from relay.web.neighbours import Neighbours
from relay.web.pages import pages
from relay.web.routes import MEDIA_PATH, create_app
from relay.web.server import Server
from relay.web.telephony import telephony
from relay.web.trial import Trial, trial
from tests.calling import Relay
from tests.talking import BOTH, HASTE
from tests.watching import Watcher


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def document(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Serving:
    """A relay that serves, and what it is made of."""

    url: str
    app: Flask
    relay: Relay
    switchboard: Switchboard
    store: Store
    live: Live
    metrics: Metrics
    passes: Passes
    token: str  # of one who may do all

    def ask(self, path: str, method: str = "GET", body: bytes | str | None = None, **headers: str) -> Answer:
        """One request of one who may do all."""
        return self.ask_as({"Authorization": f"Bearer {self.token}"} | headers, path, method, body)

    def ask_as(
        self, headers: dict[str, str], path: str, method: str = "GET", body: bytes | str | None = None
    ) -> Answer:
        """One request with these headers only."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def watch(
        self, call: str | None = None, last_id: int | None = None, header: str = "", **credentials: str
    ) -> Watcher:
        """One who has these credentials watches the live feed; without them, one who may do all."""
        return Watcher(self.url, call, last_id, header, **(credentials or {"token": self.token}))

    def happens(self, call: CallInfo | None, *events: CallEvent, service: str = "Deepgram") -> None:
        """Has all listeners hear of it."""
        for event in events:
            self.switchboard.hub.publish(Happened(call, event, service))


class NoCall:
    """Says that a demo call has begun, and begins none."""

    why_not = ""

    def begin(self) -> str:
        """Gives a SID."""
        return "CAdemo"


@contextmanager
def serving(
    store: Store,
    *services: SpeechService,
    on_request: Sequence[SpeechService] = (),
    heartbeat_s: float = HEARTBEAT_S,
    why_not: str = "nobody listens",
    access: AccessSettings | None = None,
    folder: Path | None = None,
    parts: Sequence[Blueprint] = (),
    demo: Trial | None = None,
    neighbours: Neighbours | None = None,
    **settings: object,
) -> Iterator[Serving]:
    """A relay on a free port with this store, which is open; its passes lie in a folder of their own, or in this."""
    chosen = replace(Settings(), port=0, **settings)  # type: ignore[arg-type]
    live, metrics = Live(store, heartbeat_s=heartbeat_s, neighbours=neighbours), Metrics()
    told: list[Relay] = []
    hub = Hub(store.hear, live.hear, metrics.hear, lambda happened: told[0].hear(happened))
    first, asked = (tuple(Provider(service, patience=HASTE) for service in some) for some in (services, on_request))
    switchboard = Switchboard(chosen, Listening(first, (), asked, why_not), hub, HASTE)
    empty = TemporaryDirectory()
    passes = Passes(folder or Path(empty.name))
    way_in = entrance(passes, access or AccessSettings(), chosen, store)
    admission = Admission(passes, TwilioSettings(), chosen)
    metrics.look_at_the_door(admission.doorbook)
    ours = (api(store, live), health(metrics, switchboard, store, live), way_in, telephony(admission, switchboard))
    tried = demo or NoCall()
    shown = (trial(tried), pages(chosen, passes, store, tried))
    app = create_app(switchboard, *ours, *shown, *parts, passes=passes, admission=admission)
    server = Server(app, chosen)
    token = passes.issue(Kind.TOKEN, Scope, for_s=3600)
    host = f"127.0.0.1:{server.port}"
    told.append(Relay(f"ws://{host}{MEDIA_PATH}/{passes.stream_key}", switchboard, admission, passes))
    try:
        yield Serving(f"http://{host}", app, told[0], switchboard, store, live, metrics, passes, token)
        assert switchboard.quiet.wait(20), "streams were left behind"
    finally:
        live.close()
        server.close()
        empty.cleanup()


# --- Things that happen on calls -------------------------------------------------------------------------------


def call_info(number: int, *, stream: int = 1) -> CallInfo:
    """The call of this number."""
    return CallInfo(f"CA{number:032}", f"MZ{stream:016}{number:016}", BOTH)


def begun(*services: str, caller: str = "+15550100", called: str = "+15550199") -> StreamBegun:
    """A stream begins."""
    return StreamBegun(services or ("Deepgram",), caller, called)


def final(text: str, start_ms: int = 0, *, track: Track = Track.INBOUND, each_ms: int = 500) -> Transcript:
    """A final whose words take `each_ms` each."""
    words = tuple(
        Word(word, start_ms + number * each_ms, start_ms + (number + 1) * each_ms, 0.9)
        for number, word in enumerate(text.split())
    )
    end_ms = start_ms + max(1, len(words)) * each_ms
    return Transcript(track, text, start_ms, end_ms, is_final=True, words=words, confidence=0.9)


def interim(text: str, start_ms: int = 0, *, track: Track = Track.INBOUND) -> Transcript:
    """What may still change."""
    return replace(final(text, start_ms, track=track), is_final=False)


def ended(duration_ms: int = 10_000, reason: str = "stop") -> StreamEnded:
    """A stream ends."""
    return StreamEnded(reason, duration_ms, duration_ms // 20, 0, 0, 0, 0, 0, 0, None, None)


def kinds(events: Sequence[Event]) -> list[str]:
    """What has happened."""
    return [event.kind.value for event in events]

"""For tests that call the relay: a server on a free port, and what it publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import gevent
from gevent.event import Event

from relay.admission import Admission, TwilioSettings
from relay.call import Switchboard
from relay.connection import Patience
from relay.doorbook import Doorbook
from relay.events import StreamEnded
from relay.hub import Happened, Hub
from relay.listening import Listening
from relay.passes import Passes
from relay.protocol import SpeechService
from relay.provider import Provider
from relay.settings import Settings
from relay.web.routes import MEDIA_PATH, create_app
from relay.web.server import Server
from relay.web.telephony import telephony
from standins.twilio import SimulatedCall
from tests.numbered import numbered
from tests.talking import HASTE, SPEED, Heard


@dataclass
class Relay:
    """A relay that runs, and what it has told of each call."""

    url: str  # with the stream key
    switchboard: Switchboard
    admission: Admission
    passes: Passes
    told: list[Happened] = field(default_factory=list)
    heard: dict[str, Heard] = field(default_factory=dict)  # by stream SID
    changed: Event = field(default_factory=Event)

    def hear(self, happened: Happened) -> None:
        """Takes an event of the hub's."""
        self.told.append(happened)
        if happened.call is not None:
            self.heard.setdefault(happened.call.stream_sid, Heard())(happened.event)
        self.changed.set()

    def of(self, call: SimulatedCall) -> Heard:
        """What was told of a call's stream."""
        return self.heard.setdefault(call.stream_sid, Heard())

    def ended(self, call: SimulatedCall, within: float = 40) -> StreamEnded:
        """The end of a call's stream, when it has come."""
        end = self.of(call).wait_for(StreamEnded, within=within)
        assert isinstance(end, StreamEnded)
        return end

    def wait_for(self, predicate: Callable[[], object], within: float = 30) -> None:
        """Returns when the predicate holds; it is asked after every event."""
        with gevent.Timeout(within):
            while not predicate():
                self.changed.wait()
                self.changed.clear()


@contextmanager
def relay(
    *services: SpeechService,
    fallbacks: Sequence[SpeechService] = (),
    on_request: Sequence[SpeechService] = (),
    patience: Patience = HASTE,
    why_not: str = "nobody listens",
    twilio: TwilioSettings | None = None,
    **settings: object,
) -> Iterator[Relay]:
    """A relay on a free port, with these services side by side."""
    chosen = replace(Settings(), port=0, **settings)  # type: ignore[arg-type]
    hub_listeners: list[Callable[[Happened], None]] = []
    first, then, asked = (
        tuple(Provider(service, patience=patience) for service in some) for some in (services, fallbacks, on_request)
    )
    listening = Listening(first, then, asked, why_not)
    switchboard = Switchboard(chosen, listening, Hub(lambda happened: hub_listeners[0](happened)), patience)
    folder = TemporaryDirectory()
    passes = Passes(Path(folder.name))
    admission = Admission(passes, twilio or TwilioSettings(), chosen, Doorbook(tell_every_s=0.2))
    app = create_app(switchboard, telephony(admission, switchboard), admission=admission)
    server = Server(app, chosen)
    running = Relay(f"ws://127.0.0.1:{server.port}{MEDIA_PATH}/{passes.stream_key}", switchboard, admission, passes)
    hub_listeners.append(running.hear)
    try:
        yield running
        assert switchboard.quiet.wait(20), "streams were left behind"
    finally:
        server.close()
        folder.cleanup()


def say(call: SimulatedCall, length_ms: int, *, at_ms: int = 0) -> None:
    """Numbered audio on every track of a call, as fast as the socket takes it."""
    for ms in range(at_ms, at_ms + length_ms, 20):
        for track in call.tracks:
            call.say(track, numbered(track, ms, 20), at_ms=ms)


def in_time(call: SimulatedCall, length_ms: int, *, at_ms: int = 0) -> None:
    """The same at the hurried clock's real time."""
    for ms in range(at_ms, at_ms + length_ms, 20):
        say(call, 20, at_ms=ms)
        gevent.sleep(0.02 / SPEED)


def answered(url: str, *tracks: str) -> SimulatedCall:
    """A call whose stream has begun."""
    call = SimulatedCall(url, tracks=tracks) if tracks else SimulatedCall(url)
    call.open()
    call.start()
    return call


def hang_up(call: SimulatedCall) -> None:
    """Ends a call as Twilio does."""
    call.stop()
    call.close()

"""Carries any speech service's protocol: connects, paces, keeps alive, backs off, replays, drains and closes.

IDLE ──> CONNECTING ──> OPEN ──> CLOSING
           ^   │          │         │
           │   v          v         v
          WAITING <─────────────────┤      lost: tried again, from what was not heard
                                    v
(any) ───────────────────────────> OVER    refused, finished or given up
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Final

import gevent
from gevent.event import Event

from relay.audio import SAMPLES_PER_MS, Piece
from relay.connection import Connection, Patience
from relay.conversation import Conversation, Tally
from relay.errors import Full, Lost, Refused, ServiceError, Stalled, Unavailable
from relay.events import (
    Complained,
    Gap,
    ServiceConnected,
    ServiceConnecting,
    ServiceLost,
    ServiceRefused,
    SpeechEvent,
    Track,
)
from relay.fetch import fetch
from relay.protocol import CallInfo, Request, SpeechProtocol, SpeechService
from relay.replay import Clock, ReplayBuffer
from relay.text import printable

log = logging.getLogger(__name__)

GOODBYE_WITHIN: Final = 0.5  # seconds
LET_GO_WITHIN: Final = 2.0  # seconds a greenlet that was told to end may take
HOPELESS_FAILURES: Final = 3  # connections in a row that brought no final: another service is asked, if there is one
HOPELESS_AFTER: Final = 5.0  # seconds of trouble, after which the same holds
DEAF_AFTER: Final = 2.0  # times the patience for an answer, of what may be speech, until we ask whether it is heard
DEAF_MOST: Final = 16.0  # doubled up to this while it turns out that there was nothing to say
HELD_AFTER: Final = 30.0  # seconds, after which a connection was none that failed, even if nobody spoke
OK: Final = 200  # HTTP statuses of requests that were answered well lie between these
REDIRECTS: Final = 300


class State(Enum):
    """Where a client is in its life."""

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    WAITING = "waiting"
    OVER = "over"


_NEXT: Final = {
    State.IDLE: {State.CONNECTING, State.OVER},
    State.CONNECTING: {State.OPEN, State.WAITING, State.OVER},
    State.OPEN: {State.CLOSING, State.WAITING, State.OVER},
    State.CLOSING: {State.CONNECTING, State.WAITING, State.OVER},
    State.WAITING: {State.CONNECTING, State.OVER},
    State.OVER: set(),
}


def backoff(first: float, most: float) -> Iterator[float]:
    """Delays before new attempts, in seconds: doubled each time, and each shortened by chance, so that the calls of
    one outage do not come back all at once."""
    delay = first
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # it spreads load and hides nothing
        delay = min(delay * 2, most)


@dataclass(slots=True)
class _Session:
    """A service's word for one conversation, which may outlive a connection."""

    protocol: SpeechProtocol
    clock: Clock = field(default_factory=Clock)
    connections: int = 0


class SpeechClient:
    """One call's audio to one service, over as many connections as it takes, and its words back.

    `send` never waits. `on_event` is called in the client's greenlets with events in the call's time, and must not wait
    either. `connection` gives leave for each connection while it lasts, or raises Unavailable. `hand_over` is asked
    when the service is taken for lost, and says whether another one hears the rest of the buffer.
    """

    def __init__(
        self,
        service: SpeechService,
        call: CallInfo,
        tracks: tuple[Track, ...],
        on_event: Callable[[SpeechEvent], None],
        *,
        buffer: ReplayBuffer,
        chunk_ms: int = 100,
        patience: Patience | None = None,
        connection: Callable[[bool], AbstractContextManager[None]] = lambda is_new: nullcontext(),
        hand_over: Callable[[SpeechClient, ServiceError], bool] = lambda client, why: False,
    ) -> None:
        self.tally = Tally()
        self.state = State.IDLE
        self.tracks = tracks
        self.buffer = buffer
        self._service = service
        self._traits = service.traits
        self._call = call
        self._on_event = on_event
        self._patience = patience or Patience()
        self._leave = connection
        self._hand_over = hand_over
        self._chunk = SAMPLES_PER_MS * min(max(self._traits.smallest_chunk_ms, chunk_ms), self._traits.largest_chunk_ms)
        self.buffer.forgets_pauses = not self._traits.finalises_silence
        self._session: _Session | None = None
        self._wake = Event()  # there is something to do: audio, an answer, the end
        self._deaf_after = DEAF_AFTER
        self._why_lost = ""
        self._is_replaced = False  # the buffer is another client's now
        self._greenlet = gevent.Greenlet(self._run)

    def start(self) -> None:
        """Begins to connect."""
        self._greenlet.link_exception(self._report)
        self._greenlet.start()

    def send(self, piece: Piece) -> None:
        """Takes audio that follows all that came before; tracks' bytes take turns. Never waits."""
        if not piece.audio:
            return
        self.buffer.add(piece)
        if self.buffer.waiting >= self._chunk:
            self._wake.set()

    @property
    def missing_ms(self) -> float:
        """How much audio has still to come until there is one more chunk of it."""
        return (self._chunk - self.buffer.waiting % self._chunk) / SAMPLES_PER_MS

    @property
    def unsent_ms(self) -> int:
        """How much audio waits to be sent."""
        return self.buffer.waiting // SAMPLES_PER_MS

    def finish(self) -> None:
        """No more audio will come."""
        self.buffer.finished = True
        self._wake.set()

    def close(self) -> None:
        """Finishes, waits for the last words for as long as the audio not yet heard takes and the patience for an
        answer and to drain allow, and then for nothing more."""
        self.finish()
        unheard_s = self.buffer.unheard / SAMPLES_PER_MS / 1000
        self._greenlet.join(unheard_s / self._traits.pace + self._patience.answer + self._patience.drain)
        self._greenlet.kill(timeout=LET_GO_WITHIN)
        if not self._is_replaced:
            self._tell_losses(self._why_lost)

    def ask_afterwards(self) -> None:
        """Asks the service for what it says of a call only after its end, and tells it."""
        if self._session is None:
            return
        try:
            late = ServiceError(f"{self._traits.name} has not told of the call in time")
            with gevent.Timeout(self._patience.ask, late):
                protocol = self._session.protocol
                for pause in backoff(self._patience.ask_again, self._patience.retry_most):
                    with suppress(Lost, Unavailable):  # which may pass
                        self._ask(protocol, protocol.after())
                    if protocol.after() is None:
                        return
                    gevent.sleep(pause)
        except ServiceError as trouble:
            self._on_event(Complained(str(trouble)))

    def give_up(self, why: str) -> None:
        """Leaves the buffer to another client, as it is to be heard from here; what did not fit is told as lost."""
        self._is_replaced = True
        self.buffer.rewind()
        self._tell_losses(why)

    def converse_once(self) -> None:
        """One connection, from handshake to last word, in the caller's greenlet. Raises ServiceError."""
        self._become(State.CONNECTING)
        self._converse()

    # --- The client's own greenlet --------------------------------------------------------------------------

    def _run(self) -> None:
        self._why_lost = f"{self._traits.name} did not finish in time"
        try:
            self._keep_talking()
        except ServiceError as failure:
            self._why_lost = str(failure)
            self._on_event(ServiceRefused(self._traits.name, str(failure)))
        finally:
            if not self._is_replaced:
                self.buffer.abandon()
            self._become(State.OVER)

    def _keep_talking(self) -> None:
        """One connection after another, each from where the last one failed, until the service has said all.

        Raises ServiceError when it will have none of this call and nobody else hears the rest.
        """
        failures, since, delays = 0, 0.0, self._delays()
        while True:
            began, connections, progress = monotonic(), self.tally.connections, self.buffer.progress
            self._become(State.CONNECTING)
            self._on_event(ServiceConnecting(self._traits.name, failures + 1))
            try:
                self._converse()
            except ServiceError as trouble:
                failure = trouble
            else:
                if self.buffer.finished and not self.buffer.waiting:
                    return
                failures, self._session = 0, None  # it was asked whether it still hears, and it does
                continue
            if self._is_done and not isinstance(failure, Refused):
                return
            was_open = self.tally.connections > connections
            if self.buffer.progress > progress or (was_open and monotonic() - began > HELD_AFTER):
                failures, delays = 0, self._delays()
            if not failures:
                since = monotonic() if was_open else began
            failures += 1
            if self._is_hopeless(failure, failures, since) and self._hand_over(self, failure):
                return
            if isinstance(failure, Refused):
                raise failure
            if isinstance(failure, Stalled) and failures > 1:
                self._session = None  # where nothing comes of it, another may help
            self._become(State.WAITING)
            delay = next(delays)
            self._on_event(ServiceLost(self._traits.name, str(failure), delay))
            gevent.sleep(delay)

    @property
    def _is_done(self) -> bool:
        """Whether nothing is left to be heard."""
        if self.buffer.finished and self.buffer.forgets_pauses:
            self.buffer.rewind()
        return self.buffer.finished and not self.buffer.unheard

    def _is_hopeless(self, failure: ServiceError, failures: int, since: float) -> bool:
        """Whether another service should hear the rest, if there is one."""
        if isinstance(failure, Refused | Stalled | Full):
            return True
        return failures >= HOPELESS_FAILURES or monotonic() - since > HOPELESS_AFTER

    def _converse(self) -> None:
        """One connection, from handshake to last word. Raises ServiceError when it ends before that."""
        session = self._session
        if session is None or not session.protocol.resumable:
            self.buffer.rewind()
            session = self._session = _Session(self._service.protocol(self._call, self.tracks))
        with self._leave(not session.connections):
            while self._ask(session.protocol, session.protocol.before()):
                pass
            connection = Connection(self._traits.name, session.protocol, self._patience)
            session.connections += 1
            self._talk(connection, session)

    def _talk(self, connection: Connection, session: _Session) -> None:
        conversation = Conversation(
            connection,
            session.protocol,
            self.buffer,
            self._wake,
            tracks=self.tracks,
            traits=self._traits,
            patience=self._patience,
            chunk=self._chunk,
            clock=session.clock,
            deaf_after_s=self._deaf_after * self._patience.answer,
            tally=self.tally,
            on_event=self._on_event,
        )
        reader = gevent.spawn(conversation.read)
        reader.link_exception(self._report)
        try:
            self._become(State.OPEN)
            conversation.open(resumed=session.connections > 1)
            self._opened()
            conversation.write()
            self._become(State.CLOSING)
            conversation.drain()
            self.buffer.heard_all()
            self._deaf_after = min(2 * self._deaf_after, DEAF_MOST) if conversation.seems_deaf else DEAF_AFTER
        finally:
            try:
                self._part(connection, conversation, session.protocol)
            finally:
                reader.kill(timeout=LET_GO_WITHIN)

    def _part(self, connection: Connection, conversation: Conversation, protocol: SpeechProtocol) -> None:
        """Lets go of a connection; of its session, too, if it cannot be resumed: one that is left is still billed."""
        try:
            if not protocol.resumable:
                with suppress(ServiceError), gevent.Timeout(GOODBYE_WITHIN, False):  # type: ignore[arg-type]
                    conversation.say_goodbye()
        finally:
            connection.close()

    def _ask(self, protocol: SpeechProtocol, request: Request | None) -> bool:
        """Makes a request, if there is one, and tells what its answer means. Raises ServiceError."""
        if request is None:
            return False
        response = fetch(self._traits.name, request, self._patience.connect)
        if not OK <= response.status < REDIRECTS:
            raise protocol.refused(response.status, response.headers, response.body)
        for event in protocol.answered(response.body):
            self._on_event(event)
        return True

    def _opened(self) -> None:
        self.tally.connections += 1
        kept_s = self.buffer.most / SAMPLES_PER_MS / 1000
        self._tell_losses(f"{self._traits.name} was away for longer than the {kept_s:g} s of audio kept")
        self._on_event(ServiceConnected(self._traits.name, self.buffer.unheard_from // SAMPLES_PER_MS))

    def _delays(self) -> Iterator[float]:
        return backoff(self._patience.retry_first, self._patience.retry_most)

    def _become(self, state: State) -> None:
        assert state in _NEXT[self.state], f"{self.state} cannot become {state}"
        log.debug("%s: %s is %s", printable(self._call.call_sid), self._traits.name, state.value)
        self.state = state

    def _tell_losses(self, reason: str) -> None:
        for loss in self.buffer.losses():
            gap = Gap(self.tracks[loss.side], loss.start // SAMPLES_PER_MS, loss.end // SAMPLES_PER_MS, reason)
            self.tally.lost_ms += gap.end_ms - gap.start_ms
            self._on_event(gap)

    def _report(self, failed: gevent.Greenlet[[], None]) -> None:
        log.critical(
            "%s: a greenlet for %s failed: %s",
            printable(self._call.call_sid),
            self._traits.name,
            type(failed.exception).__name__,
        )

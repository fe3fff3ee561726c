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
from enum import Enum
from typing import Final

import gevent
from gevent.event import Event

from relay.audio import SAMPLES_PER_MS, Piece
from relay.connection import Connection, Patience
from relay.conversation import Conversation, Tally
from relay.errors import Refused, ServiceError
from relay.events import (
    Gap,
    ServiceConnected,
    ServiceConnecting,
    ServiceLost,
    ServiceRefused,
    SpeechEvent,
    Track,
)
from relay.protocol import CallInfo, SpeechService
from relay.replay import ReplayBuffer
from relay.text import printable

log = logging.getLogger(__name__)

LET_GO_WITHIN: Final = 2.0  # seconds a greenlet that was told to end may take


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
    State.CLOSING: {State.WAITING, State.OVER},
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


class SpeechClient:
    """One call's audio to one service, over as many connections as it takes, and its words back.

    `send` never waits. `on_event` is called in the client's greenlets with events in the call's time, and must not wait
    either.
    """

    def __init__(
        self,
        service: SpeechService,
        call: CallInfo,
        tracks: tuple[Track, ...],
        on_event: Callable[[SpeechEvent], None],
        *,
        chunk_ms: int = 100,
        replay_s: float = 60,
        patience: Patience | None = None,
    ) -> None:
        self.tally = Tally()
        self.state = State.IDLE
        self._service = service
        self._traits = service.traits
        self._call = call
        self._tracks = tracks
        self._on_event = on_event
        self._patience = patience or Patience()
        self._chunk = SAMPLES_PER_MS * min(max(self._traits.smallest_chunk_ms, chunk_ms), self._traits.largest_chunk_ms)
        self._replay_s = replay_s
        self._buffer = ReplayBuffer(len(tracks), round(replay_s * 1000) * SAMPLES_PER_MS)
        self._wake = Event()  # there is something to do: audio, an answer, the end
        self._why_lost = ""
        self._greenlet = gevent.Greenlet(self._run)

    def start(self) -> None:
        """Begins to connect."""
        self._greenlet.link_exception(self._report)
        self._greenlet.start()

    def send(self, piece: Piece) -> None:
        """Takes audio that follows all that came before; tracks' bytes take turns. Never waits."""
        if not piece.audio:
            return
        self._buffer.add(piece)
        if self._buffer.waiting >= self._chunk:
            self._wake.set()

    @property
    def missing_ms(self) -> float:
        """How much audio has still to come until there is one more chunk of it."""
        return (self._chunk - self._buffer.waiting % self._chunk) / SAMPLES_PER_MS

    def finish(self) -> None:
        """No more audio will come."""
        self._buffer.finished = True
        self._wake.set()

    def close(self) -> None:
        """Finishes, waits for the last words for as long as the audio not yet heard takes and the patience to drain
        allows, and then for nothing more."""
        self.finish()
        unheard_s = self._buffer.unheard / SAMPLES_PER_MS / 1000
        self._greenlet.join(unheard_s / self._traits.pace + self._patience.drain)
        self._greenlet.kill(timeout=LET_GO_WITHIN)
        self._tell_losses(self._why_lost)

    # --- The client's own greenlet --------------------------------------------------------------------------

    def _run(self) -> None:
        self._why_lost = f"{self._traits.name} did not finish in time"
        try:
            self._keep_talking()
        except Refused as refusal:
            self._why_lost = str(refusal)
            self._on_event(ServiceRefused(self._traits.name, str(refusal)))
        finally:
            self._buffer.abandon()
            self._become(State.OVER)

    def _keep_talking(self) -> None:
        """One connection after another, each from where the last one failed, until the service has said all."""
        attempt, delays = 0, self._delays()
        while True:
            heard_until = self._buffer.heard_until
            attempt += 1
            try:
                return self._converse(attempt)
            except Refused:
                raise
            except ServiceError as trouble:
                reason = str(trouble)
            self._buffer.rewind()
            if self._buffer.finished and not self._buffer.unheard:
                return None
            if self._buffer.heard_until > heard_until:
                attempt, delays = 0, self._delays()
            self._become(State.WAITING)
            delay = next(delays)
            self._on_event(ServiceLost(self._traits.name, reason, delay))
            gevent.sleep(delay)

    def _converse(self, attempt: int) -> None:
        """One connection, from handshake to last word. Raises ServiceError when it ends before that."""
        self._become(State.CONNECTING)
        self._on_event(ServiceConnecting(self._traits.name, attempt))
        protocol = self._service.protocol(self._call, self._tracks)
        connection = Connection(self._traits.name, protocol, self._patience)
        conversation = Conversation(
            connection,
            protocol,
            self._buffer,
            self._wake,
            tracks=self._tracks,
            traits=self._traits,
            patience=self._patience,
            chunk=self._chunk,
            tally=self.tally,
            on_event=self._on_event,
        )
        reader = gevent.spawn(conversation.read)
        reader.link_exception(self._report)
        try:
            self._opened()
            conversation.write()
            self._become(State.CLOSING)
            conversation.drain()
            self._buffer.heard_all()
        finally:
            try:
                connection.close()
            finally:
                reader.kill(timeout=LET_GO_WITHIN)

    def _opened(self) -> None:
        self._become(State.OPEN)
        self.tally.connections += 1
        self._tell_losses(f"{self._traits.name} was away for longer than the {self._replay_s:g} s of audio kept")
        self._on_event(ServiceConnected(self._traits.name, self._buffer.unheard_from // SAMPLES_PER_MS))

    def _delays(self) -> Iterator[float]:
        return backoff(self._patience.retry_first, self._patience.retry_most)

    def _become(self, state: State) -> None:
        assert state in _NEXT[self.state], f"{self.state} cannot become {state}"
        log.debug("%s: %s is %s", printable(self._call.call_sid), self._traits.name, state.value)
        self.state = state

    def _tell_losses(self, reason: str) -> None:
        for loss in self._buffer.losses():
            gap = Gap(self._tracks[loss.side], loss.start // SAMPLES_PER_MS, loss.end // SAMPLES_PER_MS, reason)
            self.tally.lost_ms += gap.end_ms - gap.start_ms
            self._on_event(gap)

    def _report(self, failed: gevent.Greenlet[[], None]) -> None:
        log.critical(
            "%s: a greenlet for %s failed: %r", printable(self._call.call_sid), self._traits.name, failed.exception
        )

"""A speech service as this process knows it: how much of it is in use, and whether it is well."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import gevent

from relay.audio import SAMPLES_PER_MS, Piece, silence
from relay.connection import Patience
from relay.errors import Denied, Full, Lost, Misspoke, Refused, ServiceError
from relay.events import ServiceBack, ServiceDown, Track
from relay.protocol import CallInfo, SpeechService, Traits
from relay.replay import ReplayBuffer
from relay.speech import SpeechClient, backoff

log = logging.getLogger(__name__)

PROBE_FIRST: Final = 1.0  # seconds until a service that is down is probed; doubled each time
PROBE_MOST: Final = 60.0
PROBE_MS: Final = 500  # of silence, which it has to take, and to say that it has said all
A_MINUTE: Final = 60.0

_NOBODY: Final = CallInfo("CA-probe", "MZ-probe", (Track.INBOUND,))


class Provider:
    """One service, shared by all calls of the process.

    While it is down, one probe at a time asks whether it is well again. Only what the service, its account or the
    network did counts against it, never a request of ours that it rightly refused.
    """

    def __init__(self, service: SpeechService, *, patience: Patience | None = None) -> None:
        self.service = service
        self.on_change: Callable[[ServiceDown | ServiceBack], None] = lambda change: None
        self.open = 0  # connections
        self.well = True
        self._patience = patience or Patience()
        self._begun: deque[float] = deque()  # when the sessions of the last minute were

    @property
    def traits(self) -> Traits:
        """What the service can take."""
        return self.service.traits

    @property
    def has_room(self) -> bool:
        """Whether one more session may be begun."""
        limits = self.service.limits
        while self._begun and monotonic() - self._begun[0] > A_MINUTE:
            self._begun.popleft()
        return self.open < limits.connections and (
            limits.sessions_per_minute is None or len(self._begun) < limits.sessions_per_minute
        )

    @contextmanager
    def connection(self, is_new: bool) -> Iterator[None]:
        """Counts a connection while it lasts, and the session that it begins if it is a new one.

        Raises Full when there would be more than the settings allow.
        """
        if is_new and not self.has_room:
            raise Full(f"{self.traits.name} is used as much as {self.traits.word.upper()}_{self._bound()} allows")
        if is_new:
            self._begun.append(monotonic())
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    def _bound(self) -> str:
        return "CONNECTIONS" if self.open >= self.service.limits.connections else "SESSIONS_PER_MINUTE"

    def failed(self, failure: ServiceError) -> None:
        """A call has given the service up."""
        ours = isinstance(failure, Misspoke | Full | Refused) and not isinstance(failure, Denied)
        if ours or not self.well:
            return
        self.well = False
        self.on_change(ServiceDown(self.traits.name, str(failure)))
        gevent.spawn(self._probe_until_well).link_exception(self._report)

    def probe(self) -> None:
        """Has it take a moment of silence and say goodbye. Raises ServiceError when it does not."""
        buffer = ReplayBuffer(1, PROBE_MS * SAMPLES_PER_MS)
        client = SpeechClient(
            self.service,
            _NOBODY,
            _NOBODY.tracks,
            lambda event: None,
            buffer=buffer,
            patience=self._patience,
            connection=self.connection,
        )
        buffer.forgets_pauses = False  # all there is to send is one
        client.send(Piece(0, silence(PROBE_MS * SAMPLES_PER_MS)))
        client.finish()
        within = self._patience.connect + self._patience.drain
        with gevent.Timeout(within, Lost(f"{self.traits.name} did not finish a short session within {within:g} s")):
            client.converse_once()

    def _probe_until_well(self) -> None:
        for delay in backoff(PROBE_FIRST, PROBE_MOST):
            gevent.sleep(delay)
            try:
                self.probe()
            except ServiceError as trouble:
                log.debug("%s is still down: %s", self.traits.name, trouble)
            else:
                self.well = True
                self.on_change(ServiceBack(self.traits.name))
                return

    def _report(self, failed: gevent.Greenlet[[], None]) -> None:
        self.well = True  # nobody would ever find out
        log.critical("the probe of %s failed: %s", self.traits.name, type(failed.exception).__name__)

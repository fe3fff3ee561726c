"""Hands what happens on a call to whoever listens, and waits for nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from relay.events import CallEvent
from relay.protocol import CallInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Happened:
    """An event, the call it belongs to (None while its stream has not said whose it is, or when it belongs to none),
    and the name of the service that it is about, if it is about one."""

    call: CallInfo | None
    event: CallEvent
    service: str = ""


Listener = Callable[[Happened], None]


class Hub:
    """Every listener hears every event, in order. A listener never waits: one that has to has a queue of its own."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def publish(self, happened: Happened) -> None:
        """Tells all listeners. One that fails is logged and does not keep the others from hearing."""
        for listener in self._listeners:
            try:
                listener(happened)
            except Exception:
                log.exception("a listener failed on %s", type(happened.event).__name__)

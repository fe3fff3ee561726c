"""A live stream as it is just now: who listens, how far behind, and what seems to be said. Kept nowhere. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

from relay.events import (
    CallEvent,
    Listened,
    ServiceConnected,
    ServiceConnecting,
    ServiceLost,
    ServiceRefused,
    ServiceReplaced,
    StreamEnded,
    Track,
    Transcript,
)

Side = tuple[str, Track]  # a service, and the track that it hears


class State(StrEnum):
    """What a service is to a stream."""

    CONNECTING = "connecting"
    LISTENING = "listening"
    LOST = "lost"  # and tried again, until it listens
    REFUSED = "refused"


class Changes(NamedTuple):
    """What is to be told anew: the status, and what seems to be said on these sides."""

    of_status: bool = False
    of_interims: tuple[Side, ...] = ()


NONE: Final = Changes()


class Present:
    """One stream's present."""

    def __init__(self) -> None:
        self.interims: dict[Side, Transcript] = {}
        self._until_ms = self._unsent_ms = 0
        self._services: dict[str, State] = {}
        self._behind_ms: dict[str, int | None] = {}  # of the newest words of each service

    @property
    def status(self) -> dict[str, Any]:
        """How the stream is doing, as the live feed shows it."""
        services = {
            name: {"state": state.value, "behind_ms": self._behind_ms.get(name)}
            for name, state in self._services.items()
        }
        return {"until_ms": self._until_ms, "unsent_ms": self._unsent_ms, "services": services}

    def hear(self, service: str, event: CallEvent) -> Changes:
        """Takes what happens on the stream."""
        match event:
            case Transcript():
                return self._said((service, event.track), event)
            case Listened(until_ms, unsent_ms):
                self._until_ms, self._unsent_ms = until_ms, unsent_ms
                return Changes(of_status=True)
            case ServiceConnecting(service):
                return NONE if service in self._services else self._become(service, State.CONNECTING)
            case ServiceConnected(service):
                return self._become(service, State.LISTENING)
            case ServiceLost(service):
                return self._become(service, State.LOST)
            case ServiceRefused(service):
                return self._become(service, State.REFUSED)
            case ServiceReplaced(service):
                return self._become(service, None)
            case StreamEnded(duration_ms=duration_ms):
                self._until_ms, self._unsent_ms = duration_ms, 0
                self._services.clear()
                return Changes(of_status=True, of_interims=self._void(*self.interims))
        return NONE

    def _said(self, side: Side, said: Transcript) -> Changes:
        """A final ends the interim before it, and is told by the store; one without words is told by nobody."""
        if not said.is_final:
            if not said.text:
                return NONE
            self.interims[side] = said
            self._behind_ms[side[0]] = said.behind_ms
            return Changes(of_interims=(side,))
        self._behind_ms.setdefault(side[0], said.behind_ms)  # for a service that gives no interims
        ended = self._void(side)
        return NONE if said.text else Changes(of_interims=ended)

    def _become(self, service: str, state: State | None) -> Changes:
        """Whatever changes for a service, the interims of its last connection are void."""
        before = self._services.pop(service, None)
        if state is not None:
            self._services[service] = state
        voided = self._void(*(side for side in self.interims if side[0] == service))
        return Changes(of_status=state is not before, of_interims=voided)

    def _void(self, *sides: Side) -> tuple[Side, ...]:
        return tuple(side for side in sides if self.interims.pop(side, None) is not None)

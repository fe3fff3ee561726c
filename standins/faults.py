"""Ways in which the stand-in speech service can misbehave on one connection, as a test or a drill tells it to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Refusal:
    """The client is turned away: 429 TOO_MANY_REQUESTS, … Each service says that in its own words, and place."""

    status: int
    err_code: str
    message: str


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """The connection is closed in good order, for a reason of the service's own."""

    code: int = 1011
    reason: str = "NET-0000 the service has nothing to say"


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is lost once so much audio was heard; after 0 ms it is lost as soon as it is open.

    "reset": a TCP reset. "abandon": nobody reads or answers any more, not even a ping, and the socket stays open.
    "mute": everything is read and pings are answered, but nothing is ever said again.
    """

    after_ms: int
    how: Literal["reset", "abandon", "mute"] | CloseFrame


@dataclass(frozen=True, slots=True)
class Fault:
    """How one connection misbehaves. Each field is one kind of trouble; they can be combined."""

    refuse: Refusal | None = None
    drop: Drop | None = None
    answer_late_s: float = 0.0  # every message of the service comes so much later
    garbage: bool = False  # it begins with messages nobody can make sense of
    on_end: Literal["drain", "ignore", "reset", "cut"] = "drain"  # "cut": a goodbye in good order, but no last results
    no_pong: bool = False  # pings are not answered
    acks_lost_ms: int = 0  # of so much audio before the drop: it was taken, and that is never acknowledged

"""Deliveries of events to webhooks: which are due, how they went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select, update

from relay.store import reading
from relay.store.ledger import Ledger
from relay.store.owner import is_gone
from relay.store.records import Attempt, Delivery, DeliveryState, Page
from relay.store.tables import calls, deliveries, events, owners
from relay.store.telling import storable

LEASE_MS: Final = 60_000  # for so long a delivery is one worker's; then, if nothing was noted, it is due again
UNSENT_MS: Final = 3 * 24 * 3600 * 1000  # for about so long what was not taken is sent again
UNKNOWN: Final = "nobody sends to this endpoint any more"

_PENDING: Final = deliveries.c.state == DeliveryState.PENDING.value


def is_due(connection: Connection, endpoint: str, now: int) -> bool:
    """Whether there is something to deliver."""
    next_at = next_delivery_at(connection, endpoint)
    return next_at is not None and next_at <= now


def next_delivery_at(connection: Connection, endpoint: str) -> int | None:
    """When the next delivery is due."""
    earliest = select(func.min(deliveries.c.next_at)).where(_PENDING, deliveries.c.endpoint == endpoint)
    found: int | None = connection.scalar(earliest)
    return found


def waiting(connection: Connection) -> dict[str, int]:
    """How many are pending, by endpoint."""
    count = select(deliveries.c.endpoint, func.count().label("number")).where(_PENDING).group_by(deliveries.c.endpoint)
    return {row.endpoint: row.number for row in connection.execute(count)}


def lease(ledger: Ledger, endpoint: str, now: int, limit: int) -> list[Delivery]:
    """What is due, oldest first; nobody else is given it for a while."""
    due = _PENDING, deliveries.c.endpoint == endpoint, deliveries.c.next_at <= now
    query = _deliveries().where(*due).order_by(deliveries.c.next_at, deliveries.c.id).limit(limit)
    leased = [_delivery(row) for row in ledger.connection.execute(query)]
    mine = deliveries.c.id.in_([delivery.id for delivery in leased])
    ledger.connection.execute(update(deliveries).where(mine), {"next_at": now + LEASE_MS, "lessee": ledger.owner})
    return leased


def dead_lessees(connection: Connection, now: int) -> list[str]:
    """Processes that are gone while deliveries are still theirs."""
    query = select(deliveries.c.lessee, owners.c.seen_at).outerjoin(owners, owners.c.owner == deliveries.c.lessee)
    rows = connection.execute(query.where(_PENDING, deliveries.c.lessee.is_not(None)).distinct())
    return [row.lessee for row in rows if is_gone(row.lessee, row.seen_at or 0, now)]


def free_leases(ledger: Ledger) -> None:
    """Makes due what processes that are gone were about to send, or have sent and not noted."""
    theirs = deliveries.c.lessee.in_(dead_lessees(ledger.connection, ledger.now))
    ledger.connection.execute(update(deliveries).where(_PENDING, theirs), {"next_at": ledger.now, "lessee": None})


def give_up(ledger: Ledger) -> None:
    """Gives up what nobody has sent for days to endpoints that are not known any more. While it was due another process
    may have known them."""
    unsent = _PENDING, deliveries.c.next_at < ledger.now - UNSENT_MS, deliveries.c.endpoint.not_in(ledger.endpoints)
    row = {"state": DeliveryState.FAILED.value, "last_error": UNKNOWN, "lessee": None}
    ledger.connection.execute(update(deliveries).where(*unsent), row)


def note(ledger: Ledger, attempts: Sequence[Attempt]) -> None:
    """Notes how attempts went."""
    for attempt in attempts:
        row: dict[str, Any] = {
            "attempts": deliveries.c.attempts + 1,
            "last_status": attempt.status,
            "last_error": attempt.error and storable(attempt.error),
            "delivered_at": attempt.delivered_at,
            "state": _state(attempt).value,
            "lessee": None,
        }
        if attempt.next_at is not None:
            row["next_at"] = attempt.next_at
        ledger.connection.execute(update(deliveries).where(deliveries.c.id == attempt.delivery_id).values(**row))


def _state(attempt: Attempt) -> DeliveryState:
    if attempt.delivered_at is not None:
        return DeliveryState.DELIVERED
    return DeliveryState.FAILED if attempt.next_at is None else DeliveryState.PENDING


def replay(ledger: Ledger, delivery_id: int) -> bool:
    """Has it delivered once more."""
    again = {"state": DeliveryState.PENDING.value, "attempts": 0, "next_at": ledger.now}
    unsent = {"delivered_at": None, "lessee": None}
    its = update(deliveries).where(deliveries.c.id == delivery_id)
    return ledger.connection.execute(its, again | unsent).rowcount > 0


def page_of_deliveries(
    connection: Connection, endpoint: str | None, state: str | None, before: int | None, limit: int
) -> Page[Delivery]:
    """Deliveries, newest first."""
    query = _deliveries().order_by(deliveries.c.id.desc()).limit(limit + 1)
    if endpoint is not None:
        query = query.where(deliveries.c.endpoint == endpoint)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if before is not None:
        query = query.where(deliveries.c.id < before)
    found = [_delivery(row) for row in connection.execute(query)]
    return Page(tuple(found[:limit]), str(found[limit - 1].id) if len(found) > limit else None)


def _deliveries() -> Select[Any]:
    its = deliveries.c.id.label("delivery_id"), *(column for column in deliveries.c if column.name != "id")
    return select(*its, events, calls.c.sid).join(events, events.c.id == deliveries.c.event_id).join(calls)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.delivery_id,
        endpoint=row.endpoint,
        message_id=row.message_id,
        event=reading.event(row),
        state=DeliveryState(row.state),
        attempts=row.attempts,
        next_at=row.next_at,
        last_status=row.last_status,
        last_error=row.last_error,
        delivered_at=row.delivered_at,
    )

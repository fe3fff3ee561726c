"""The outbox of the webhooks; the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from sqlalchemy import create_engine, select, update

from relay.store.batch import now_ms
from relay.store.database import address
from relay.store.outbox import LEASE_MS, UNKNOWN, UNSENT_MS
from relay.store.records import Attempt, DeliveryState
from relay.store.store import Store
from relay.store.tables import deliveries
from tests.storing import Reader, Talk, dead_process, eventually, opened

pytest_plugins = ("tests.databases",)

ENDPOINTS: Final = {
    "all": frozenset({"call.started", "segment.final", "gap", "call.ended"}),
    "ends": frozenset({"call.ended"}),
    "none": frozenset[str](),
}


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    with opened(database, endpoints=ENDPOINTS) as store:
        yield store


def a_call(store: Store) -> Talk:
    """That has ended."""
    reader = Reader(store)
    talk = Talk(store).begin().say("hello").end()
    reader.until_ended()
    reader.leave()
    return talk


def test_each_endpoint_gets_what_it_wants_with_the_whole_event(store: Store) -> None:
    a_call(store)
    events = store.events_after(0)
    now = now_ms()
    due = store.due_deliveries("all", now)
    assert [delivery.event for delivery in due] == events
    assert [delivery.event.kind for delivery in store.due_deliveries("ends", now)] == ["call.ended"]
    assert store.due_deliveries("none", now) == []
    assert store.due_deliveries("unheard of", now) == []
    assert all(delivery.message_id.startswith("msg_") for delivery in due)
    assert len({delivery.message_id for delivery in store.deliveries().items}) == 4
    assert all(delivery.state is DeliveryState.PENDING and delivery.attempts == 0 for delivery in due)


def test_what_is_due_is_given_to_one_worker_only_until_its_lease_is_over(store: Store) -> None:
    a_call(store)
    now = now_ms()
    mine = store.due_deliveries("all", now, limit=2)
    others = store.due_deliveries("all", now)
    assert len(mine) == 2
    assert {delivery.id for delivery in mine}.isdisjoint(delivery.id for delivery in others)
    assert store.due_deliveries("all", now) == []
    assert store.next_delivery_at("all") == now + LEASE_MS
    again = store.due_deliveries("all", now + LEASE_MS)
    assert [delivery.message_id for delivery in again] == [delivery.message_id for delivery in (*mine, *others)]


def test_attempts_are_noted(store: Store) -> None:
    a_call(store)
    now = now_ms()
    delivered, later, given_up = store.due_deliveries("all", now)
    store.note_deliveries(
        [
            Attempt(delivered.id, delivered_at=now + 5, status=204),
            Attempt(later.id, next_at=now + 7000, status=503, error="it is busy"),
            Attempt(given_up.id, status=410, error="it is gone\0"),
        ]
    )
    found = {delivery.id: delivery for delivery in store.deliveries(endpoint="all").items}
    assert (found[delivered.id].state, found[delivered.id].delivered_at) == (DeliveryState.DELIVERED, now + 5)
    assert (found[later.id].state, found[later.id].next_at, found[later.id].last_status) == ("pending", now + 7000, 503)
    assert (found[given_up.id].state, found[given_up.id].last_error) == (DeliveryState.FAILED, "it is gone ")
    assert {delivery.attempts for delivery in found.values()} == {1}
    assert store.next_delivery_at("all") == now + 7000
    assert [delivery.id for delivery in store.due_deliveries("all", now + 7000)] == [later.id]
    assert found[later.id].as_json()["last_error"] == "it is busy"


def test_a_delivery_is_made_again_with_the_same_message_id(store: Store) -> None:
    a_call(store)
    now = now_ms()
    (delivery,) = store.due_deliveries("ends", now)
    store.note_deliveries([Attempt(delivery.id, delivered_at=now, status=200)])
    assert store.due_deliveries("ends", now + 2 * LEASE_MS) == []
    assert store.next_delivery_at("ends") is None
    assert store.replay_delivery(delivery.id)
    assert not store.replay_delivery(4711)
    (again,) = store.due_deliveries("ends", now_ms())
    assert (again.message_id, again.attempts, again.delivered_at) == (delivery.message_id, 0, None)


def test_deliveries_are_listed_page_by_page(store: Store) -> None:
    for _ in range(4):
        a_call(store)
    ids, cursor = [], None
    for _ in range(3):
        page = store.deliveries(endpoint="all", limit=5, cursor=cursor)
        ids += [delivery.id for delivery in page.items]
        cursor = page.next
    assert cursor is None
    assert len(ids) == 12
    assert ids == sorted(ids, reverse=True)
    assert len(store.deliveries().items) == 16
    assert len(store.deliveries(state="pending", endpoint="ends").items) == 4
    assert store.deliveries(state="delivered").items == ()


def test_a_deleted_calls_deliveries_are_gone(store: Store) -> None:
    talk = a_call(store)
    (leased,) = store.due_deliveries("ends", now_ms())
    store.delete(talk.sid)
    assert store.deliveries().items == ()
    store.note_deliveries([Attempt(leased.id, delivered_at=1)])
    assert store.deliveries().items == ()


def test_what_a_killed_process_was_about_to_send_is_due_at_the_next_start(store: Store, database: str) -> None:
    a_call(store)
    now = now_ms()
    mine, theirs = store.due_deliveries("all", now, limit=2), store.due_deliveries("all", now, limit=1)
    engine = create_engine(address(database))
    with engine.begin() as connection:
        killed = update(deliveries).where(deliveries.c.id == theirs[0].id)
        connection.execute(killed, {"lessee": dead_process()})
    engine.dispose()
    with opened(database) as other:
        due = other.due_deliveries("all", now_ms())
    assert {delivery.id for delivery in due} & {delivery.id for delivery in [*mine, *theirs]} == {theirs[0].id}
    assert due[0].message_id == theirs[0].message_id or due[-1].message_id == theirs[0].message_id


def test_what_is_for_an_endpoint_that_is_not_known_any_more_is_given_up_after_days(store: Store, database: str) -> None:
    a_call(store)
    first, *_ = store.due_deliveries("all", now_ms())
    engine = create_engine(address(database))
    with engine.begin() as connection:
        long_ago = {"next_at": now_ms() - UNSENT_MS - 60_000}
        connection.execute(update(deliveries).where(deliveries.c.endpoint == "ends"), long_ago)
        connection.execute(update(deliveries).where(deliveries.c.id == first.id), long_ago)
    engine.dispose()
    with opened(database, endpoints={"ends": ENDPOINTS["ends"]}):
        eventually(lambda: store.deliveries(state="failed").items)
    (given_up,) = store.deliveries(state="failed").items
    assert (given_up.id, given_up.endpoint, given_up.last_error) == (first.id, "all", UNKNOWN)
    assert store.waiting_deliveries() == {"all": 2, "ends": 1}
    assert store.replay_delivery(first.id)
    assert store.waiting_deliveries() == {"all": 3, "ends": 1}


def test_what_was_noted_is_nobodys_any_more(store: Store, database: str) -> None:
    a_call(store)
    later = now_ms() + 3_600_000
    due = store.due_deliveries("all", now_ms())
    store.note_deliveries([Attempt(delivery.id, next_at=later) for delivery in due])
    engine = create_engine(address(database))
    with engine.connect() as connection:
        assert set(connection.scalars(select(deliveries.c.lessee))) == {None}
    engine.dispose()
    assert store.next_delivery_at("all") == later

"""Tells endpoints what happens on calls: signed, at least once, and in order as far as they listen.

What is to be told waits in the store's outbox, put there together with what happened. Each endpoint has a sender of its
own, so that one which is slow or dead delays no other, and no call. Several processes may send: each is given others.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import gevent
import orjson
from gevent.event import Event as Bell
from gevent.pool import Group

from relay.endpoints import Endpoint, WebhookSettings
from relay.outward import Answer, Line, Outward, Unreached, is_any, is_public
from relay.signing import sign
from relay.store.records import Attempt, Delivery, DeliveryState, Event, as_time
from relay.store.store import Store, StoreError

log = logging.getLogger(__name__)

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
SCHEDULE: Final = (  # seconds before each attempt, as in the specification's example
    0,
    5,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
JITTER: Final = 0.2  # of a delay, which chance makes longer by up to so much
LONGEST_RETRY_AFTER: Final = 24 * _HOUR  # nobody may ask for more patience than the schedule has
REST: Final = 5.0  # seconds for which an endpoint is left alone that cannot be reached or has too much to do
TOO_BUSY: Final = (429, 502, 503, 504)  # statuses for which the specification recommends to send less
AT_ONCE: Final = 40  # deliveries held in memory
LINES: Final = 8  # connections at once; over one, an endpoint 100 ms away would be told less than 20 calls say
ALL_WITHIN: Final = 40.0  # seconds in which these are begun: they are ours for 60, and the last may take 16 of them
NOTE_WITHIN: Final = 1.0  # seconds until a success is noted, together with others
LOOK_EVERY: Final = 2.0  # seconds between looks into the outbox, for what falls due and what is sent again by hand
SAY_AGAIN: Final = _HOUR  # seconds in which the log does not repeat itself
LET_GO_WITHIN: Final = 2.0  # seconds a greenlet that was told to end may take

USER_AGENT: Final = "call-relay"


def next_attempt(failures: int, now: float, asked_for: float, chance: float) -> float | None:
    """When a delivery is tried again that has failed so often; None: never. `chance` is a number from 0 to 1."""
    if failures >= len(SCHEDULE):
        return None
    return now + max(SCHEDULE[failures] * (1 + JITTER * chance), asked_for)


def retry_after(answer: Answer, now: float) -> float:
    """For how many seconds an answer asks to be left alone: in seconds or by date (RFC 9110, 10.2.3)."""
    asked = answer.headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        seconds = float(asked[:10])
    else:
        try:
            date = parsedate_to_datetime(asked)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            seconds = 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def payload(event: Event) -> bytes:
    """What is posted. `sequence` tells the order of what happened on one call."""
    return orjson.dumps(
        {
            "type": event.kind.value,
            "timestamp": as_time(event.created_at),
            "data": {**event.data, "sequence": event.sequence},
        }
    )


def replay_failed(store: Store, endpoint: str | None = None) -> int:
    """Has all that was given up sent again, to one endpoint or to all, and tells how many. Raises StoreError."""
    count, cursor = 0, None
    while True:
        page = store.deliveries(endpoint=endpoint, state=DeliveryState.FAILED, cursor=cursor)
        count += sum(store.replay_delivery(delivery.id) for delivery in page.items)
        if (cursor := page.next) is None:
            return count


def lanes(due: Iterable[Delivery]) -> list[list[Delivery]]:
    """Deliveries shared among the lines: those of one call stay together, and in their order."""
    numbers: dict[str, int] = {}
    shared: defaultdict[int, list[Delivery]] = defaultdict(list)
    for delivery in due:
        number = numbers.setdefault(delivery.event.call_sid, len(numbers))
        shared[number % LINES].append(delivery)
    return list(shared.values())


class Sender:
    """Sends one endpoint what waits for it, each call's events one after the other."""

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Sequence[bytes],
        store: Store,
        outward: Outward,
        *,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.bell = Bell()  # something may have fallen due
        self._name = endpoint.name
        self._url = endpoint.url
        self._keys = keys
        self._store = store
        self._outward = outward
        self._now = now
        self._chance = chance
        self._is_over = False  # told to leave, or not to come again
        self._fails = False  # at the last attempt
        self._is_busy = False
        self._rests_until = 0.0
        self._said: dict[str, float] = {}  # what the log was told, and when

    def run(self) -> None:
        """Sends until it is over, whatever happens meanwhile: nobody would notice an endpoint that is told no more."""
        while not self._is_over:
            self.bell.clear()
            try:
                was_due = self.send_due()
            except Exception as failure:  # noqa: BLE001  # a message of its own might repeat what was said
                self._say("are held up by a fault of this program", f": {type(failure).__name__}; they are tried again")
                was_due = False
            if not was_due:
                self.bell.wait(LOOK_EVERY)

    def leave(self) -> None:
        """Ends `run` after the present attempt."""
        self._is_over = True
        self.bell.set()

    def send_due(self) -> bool:
        """Makes the attempts that are due, or the first of them, and tells whether there was one.

        One that fails does not keep those behind it from being sent.
        """
        began = self._now()
        if self._is_over or began < self._rests_until:
            return False
        due, sending = self._due(began), Group()
        self._is_busy = False
        try:
            for lane in lanes(due):
                sending.spawn(self._send, lane, began)
            sending.join(raise_error=True)
        finally:
            sending.kill()
        return bool(due)

    def _send(self, lane: Sequence[Delivery], began: float) -> None:
        """Sends these over one line, as far as there is time."""
        made, noted = list[Attempt](), began
        try:
            with closing(self._outward.line(self._url)) as line:
                for delivery in lane:
                    if self._is_over or self._is_busy or self._now() > began + ALL_WITHIN:
                        break
                    if self._is_kept(delivery.event):
                        made.append(self._attempt(line, delivery))
                    if self._now() > noted + NOTE_WITHIN:
                        self._note(made)
                        made, noted = [], self._now()
        finally:
            self._note(made)

    def _is_kept(self, event: Event) -> bool:
        """Whether the call is still there: of one that was deleted meanwhile nothing more is told."""
        try:
            return self._store.call(event.call_sid) is not None
        except StoreError:
            return False  # it falls due again

    def _due(self, now: float) -> list[Delivery]:
        """What is due; just the first of it where the last attempt failed."""
        try:
            return self._store.due_deliveries(self._name, _ms(now), 1 if self._fails else AT_ONCE)
        except StoreError:  # which the store tells by itself
            return []

    def _note(self, attempts: Sequence[Attempt]) -> None:
        """Waits for the store as long as it takes: what nobody notes would be sent over and over."""
        while attempts:
            try:
                return self._store.note_deliveries(attempts)
            except StoreError:
                if self._is_over:
                    return None
                gevent.sleep(LOOK_EVERY)
        return None

    def _attempt(self, line: Line, delivery: Delivery) -> Attempt:
        body, at_s = payload(delivery.event), int(self._now())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": sign(self._keys, delivery.message_id, at_s, body),
        }
        try:
            answer = line.post(body, headers)
        except Unreached as trouble:
            self._rests_until = self._now() + REST
            return self._failed(delivery, str(trouble))
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return self._arrived(delivery, answer)
        return self._refused(delivery, answer)

    def _arrived(self, delivery: Delivery, answer: Answer) -> Attempt:
        if self._fails:
            self._say("arrive again")
        self._fails = False
        self._answers()
        return Attempt(delivery.id, delivered_at=_ms(self._now()), status=answer.status)

    def _refused(self, delivery: Delivery, answer: Answer) -> Attempt:
        now = self._now()
        asked_for = retry_after(answer, now)
        if answer.status in TOO_BUSY:
            self._is_busy, self._rests_until = True, max(self._rests_until, now + asked_for, now + REST)
        self._answers()
        if answer.status == HTTPStatus.GONE:
            self._is_over = True
            self._say("are not wanted any more", " (status 410): none is sent until the program is started anew")
        return self._failed(delivery, f"answered with status {answer.status}", answer.status, asked_for)

    def _answers(self) -> None:
        """There is no reason to leave the endpoint alone, unless it has asked for that, perhaps on another line."""
        if not self._is_busy:
            self._rests_until = 0.0

    def _failed(self, delivery: Delivery, why: str, status: int | None = None, asked_for: float = 0.0) -> Attempt:
        self._fails = True
        failures = delivery.attempts + 1
        again = next_attempt(failures, self._now(), asked_for, self._chance())
        if again is None:
            self._say("are given up", f" after {failures} attempts; `python app.py webhooks` sends them again")
        elif not self._is_over:
            self._say("fail and are tried again", f": {why}")
        return Attempt(delivery.id, next_at=None if again is None else _ms(again), status=status, error=why)

    def _say(self, what: str, more: str = "") -> None:
        """Tells the log, though not the same over and over."""
        if self._now() > self._said.get(what, 0.0) + SAY_AGAIN:
            self._said[what] = self._now()
            log.warning("webhooks to %s %s%s", self._name, what, more)


class Webhooks:
    """The senders to all endpoints."""

    def __init__(self, settings: WebhookSettings, store: Store, *, outward: Outward | None = None) -> None:
        outward = outward or Outward(allows=is_any if settings.allow_private else is_public)
        self._kinds = frozenset(settings.events)
        self._store = store
        self._senders = [Sender(endpoint, settings.secrets, store, outward) for endpoint in settings.endpoints]
        self._greenlets: list[gevent.Greenlet[[], None]] = []
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begins to send; what has waited since another day, too."""
        self._unsubscribe = self._store.subscribe(self._hear)
        for sender in self._senders:
            self._greenlets.append(gevent.spawn(sender.run))

    def close(self, within: float) -> None:
        """Gives attempts that were begun so many seconds to end. What is not sent by then waits for the next start."""
        self._unsubscribe()
        for sender in self._senders:
            sender.leave()
        gevent.joinall(self._greenlets, timeout=within)
        gevent.killall(self._greenlets, timeout=LET_GO_WITHIN)

    def _hear(self, events: Sequence[Event]) -> None:
        if any(event.is_stored and event.kind in self._kinds for event in events):
            for sender in self._senders:
                sender.bell.set()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

"""Webhooks from the store to the receiver: signed, again and again until they arrive, and to nobody else."""

from __future__ import annotations

import logging
import re
import runpy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

import gevent
import pytest
from gevent import socket
from gevent.pywsgi import WSGIServer
from gevent.queue import Queue
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from relay import outward as outward_module
from relay import webhooks as webhooks_module
from relay.endpoints import Endpoint, WebhookSettings
from relay.errors import SettingsError
from relay.events import CallEvent, StreamBegun, StreamEnded, Track, Transcript
from relay.hub import Happened
from relay.outward import Answer, Outward, is_any
from relay.protocol import CallInfo
from relay.settings import read
from relay.signing import new_secret
from relay.store.records import PAGE, PAGE_MOST, Attempt, Delivery, DeliveryState, Event, Kind
from relay.store.store import Store, StoreError
from relay.webhooks import (
    AT_ONCE,
    REST,
    SCHEDULE,
    Sender,
    Webhooks,
    next_attempt,
    payload,
    replay_failed,
    retry_after,
)
from tests.program import ROOT
from tests.receiving import WITHIN, Receiver, client_tls, read_request, server_tls, serving

pytest_plugins = ("tests.databases",)

_NUMBERS: Final = count(1)
ENDED: Final = StreamEnded("stop", 60_000, 3_000, 0, 0, 0, 2, 0, 0, None, None)
SECRET: Final = new_secret()
HOUR: Final = 3600
DAY: Final = 24 * HOUR


class Clock:
    """Stands still unless it is moved; ahead of the store's own, so that whatever that has just written is due."""

    def __init__(self) -> None:
        self._now = float(int(time.time()) + 100)

    def __call__(self) -> float:
        return self._now

    def move(self, seconds: float) -> None:
        """Lets this time pass."""
        self._now += seconds


class Calls:
    """A store in which calls happen, one event after the other, each waited for until it is stored."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._call = CallInfo("", "", ())
        self._stored: Queue[Event] = Queue()
        self._said = 0
        self._unsubscribe = store.subscribe(self._hear)

    def close(self) -> None:
        """Hears no more."""
        self._unsubscribe()

    def begin(self) -> Event:
        """A call begins."""
        number = next(_NUMBERS)
        self._call = CallInfo(f"CA{number:032}", f"MZ{number:032}", (Track.INBOUND,))
        return self._happen(StreamBegun(services=("Deepgram",)), Kind.CALL_STARTED)

    def say(self, text: str = "so it is") -> Event:
        """Something is said on it."""
        self._said += 1
        start_ms = 1_000 * self._said
        final = Transcript(Track.INBOUND, text, start_ms, start_ms + 900, is_final=True)
        return self._happen(final, Kind.SEGMENT_FINAL)

    def end(self) -> Event:
        """The call ends."""
        return self._happen(ENDED, Kind.CALL_ENDED)

    def _hear(self, events: Sequence[Event]) -> None:
        for event in events:
            self._stored.put(event)

    def _happen(self, event: CallEvent, kind: Kind) -> Event:
        self.store.hear(Happened(self._call, event, "Deepgram"))
        while True:
            stored = self._stored.get(timeout=WITHIN)
            if stored.kind == kind and stored.call_sid == self._call.call_sid:
                return stored


def settings_for(*urls: str, **more: Any) -> WebhookSettings:
    environ = {"WEBHOOK_URLS": ",".join(urls), "WEBHOOK_SECRETS": SECRET, "WEBHOOK_ALLOW_PRIVATE": "true", **more}
    return read(WebhookSettings, environ)


@contextmanager
def calls_in(database: str, *urls: str, **more: Any) -> Iterator[Calls]:
    """A process that keeps deliveries for these endpoints."""
    store = Store(database, endpoints=settings_for(*urls, **more).wanted)
    store.open()
    calls = Calls(store)
    try:
        yield calls
    finally:
        calls.close()
        store.close(WITHIN)


def sender_to(url: str, store: Store, now: Callable[[], float], **more: Any) -> Sender:
    """A sender that knows no chance."""
    settings = settings_for(url, **more)
    outward = Outward(allows=is_any, tls=client_tls())
    return Sender(settings.endpoints[0], settings.secrets, store, outward, now=now, chance=lambda: 0.0)


@contextmanager
def sending(calls: Calls, *urls: str, close_within: float = WITHIN) -> Iterator[None]:
    """Webhooks as the program runs them."""
    webhooks = Webhooks(settings_for(*urls), calls.store, outward=Outward(allows=is_any, tls=client_tls()))
    webhooks.start()
    try:
        yield
    finally:
        webhooks.close(close_within)


def deliveries(store: Store) -> list[Delivery]:
    """All of them, oldest first."""
    return sorted(store.deliveries(limit=PAGE_MOST).items, key=lambda delivery: delivery.id)


# --- Settings -----------------------------------------------------------------------------------------------


def refusal_of(**environ: str) -> str:
    with pytest.raises(SettingsError) as refusal:
        read(WebhookSettings, environ)
    return str(refusal.value)


def test_nobody_is_told_unless_asked_to() -> None:
    settings = read(WebhookSettings, {})
    assert settings.endpoints == ()
    assert settings.wanted == {}


def test_a_secret_is_needed_and_the_refusal_says_how_to_make_one() -> None:
    assert "make one with: python -m relay.signing" in refusal_of(WEBHOOK_URLS="https://hooks.example/")


def test_plain_http_is_for_private_networks() -> None:
    assert "https://" in refusal_of(WEBHOOK_URLS="http://hooks.example/", WEBHOOK_SECRETS=SECRET)
    assert settings_for("http://hooks.example/").endpoints


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example?tell-no-one",
        "ftp://tell-no-one/",
        "https://",
        "https://x:0/",
        "https://x:y/",
        "https://ü/",
        "https://x/#y",
    ],
)
def test_what_is_no_url_is_refused_and_not_repeated(url: str) -> None:
    refusal = refusal_of(WEBHOOK_URLS=url, WEBHOOK_SECRETS=SECRET)
    assert refusal.startswith("WEBHOOK_URLS should be URLs that begin with https://")
    assert "tell-no-one" not in refusal


def test_an_unknown_kind_of_event_is_refused() -> None:
    assert "segment.final" in refusal_of(WEBHOOK_EVENTS="call.begun")


def test_one_endpoint_is_not_named_twice() -> None:
    urls = "https://hooks.example/a?key=1,https://hooks.example/a?key=2"
    assert "twice" in refusal_of(WEBHOOK_URLS=urls, WEBHOOK_SECRETS=SECRET)


def test_an_endpoint_s_name_tells_no_secret_and_outlives_its_change() -> None:
    names = [
        Endpoint(url).name
        for url in (
            "https://hooks.example/tell-no-one",
            "https://Hooks.Example/tell-no-one?token=one",
            "https://me:pa55word@hooks.example/tell-no-one",
            "https://hooks.example/another",
            "https://hooks.example:8443/tell-no-one",
        )
    ]
    assert names[0] == names[1] == names[2]
    assert len(set(names)) == 3
    for name in names:
        assert name.startswith("hooks.example-")
        assert not any(secret in name for secret in ("token", "one", "me:", "pa55word"))


def test_what_is_secret_is_in_no_repr() -> None:
    settings = settings_for("https://me:pa55word@hooks.example/tell-no-one")
    shown = repr(settings) + repr(settings.endpoints)
    assert "tell-no-one" not in shown
    assert "pa55word" not in shown
    assert repr(settings.secrets[0]) not in shown


# --- Times and payloads -------------------------------------------------------------------------------------


def test_the_schedule_is_the_specification_s() -> None:
    assert [next_attempt(failures, 0, 0, 0) for failures in range(11)] == [
        0,
        5,
        5 * 60,
        30 * 60,
        2 * HOUR,
        5 * HOUR,
        10 * HOUR,
        14 * HOUR,
        20 * HOUR,
        24 * HOUR,
        None,
    ]


def test_chance_makes_delays_longer_and_never_shorter() -> None:
    assert next_attempt(2, 1000, 0, 0.5) == 1000 + 330
    assert next_attempt(2, 1000, 0, 1.0) == 1000 + 360


def test_who_asks_for_more_patience_gets_it_and_nobody_is_asked_sooner() -> None:
    assert next_attempt(1, 1000, 60, 0) == 1060
    assert next_attempt(3, 1000, 60, 0) == 1000 + 30 * 60


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's clock on the wall is another one than that of dates in HTTP."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-3")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("9" * 5000, DAY),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", DAY),
        ("Thursday, 01-Jan-70 00:20:00 GMT", 200),  # forms that nobody writes any more and everybody reads
        ("Thu Jan  1 00:20:00 1970", 200),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("²", 0),
    ],
)
def test_retry_after(asked: str, seconds: float, far_from_greenwich: None) -> None:
    assert retry_after(Answer(503, {"retry-after": asked}), now=1000) == seconds


@given(st.text())
def test_whatever_is_asked_for_is_bounded(asked: str) -> None:
    assert 0 <= retry_after(Answer(503, {"retry-after": asked}), now=1000) <= DAY


def test_the_payload() -> None:
    event = Event(7, "CA1", 3, Kind.GAP, {"call_sid": "CA1", "gap": {"reason": "lost"}}, 1_700_000_000_123)
    assert payload(event) == (
        b'{"type":"gap","timestamp":"2023-11-14T22:13:20.123Z",'
        b'"data":{"call_sid":"CA1","gap":{"reason":"lost"},"sequence":3}}'
    )


# --- What arrives -------------------------------------------------------------------------------------------


def test_a_call_is_told_signed_and_in_order(database: str) -> None:
    with Receiver(tls=server_tls()) as receiver, calls_in(database, receiver.url()) as calls:
        with sending(calls, receiver.url()):
            call_sid = calls.begin().call_sid
            calls.say("good morning")
            calls.end()
            told = receiver.take(3)
    read_by_package = [Webhook(SECRET).verify(post.body, dict(post.headers)) for post in told]
    assert [message["type"] for message in read_by_package] == ["call.started", "segment.final", "call.ended"]
    sequences = [message["data"]["sequence"] for message in read_by_package]
    assert sequences == sorted(set(sequences))
    assert {message["data"]["call_sid"] for message in read_by_package} == {call_sid}
    assert read_by_package[1]["data"]["segment"]["text"] == "good morning"
    assert [segment["text"] for segment in read_by_package[2]["data"]["segments"]] == ["good morning"]
    assert len({post.message_id for post in told}) == 3
    assert {post.headers["content-type"] for post in told} == {"application/json"}
    assert all(datetime.fromisoformat(message["timestamp"]).tzinfo == UTC for message in read_by_package)


def test_the_readme_s_receiver_understands_what_it_is_told(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (receiver,) = re.findall(r"```python\n(from flask .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "receiver.py").write_text(receiver.replace("whsec_...", SECRET))
    app = runpy.run_path(str(tmp_path / "receiver.py"), run_name="__main__")["app"]
    server = WSGIServer(("127.0.0.1", 0), app, log=None, error_log=None)
    server.start()
    url = f"http://localhost:{server.server_port}/calls"
    with calls_in(database, url) as calls:
        calls.begin()
        calls.say("good morning")
        sender_to(url, calls.store, Clock()).send_due()
        assert {delivery.last_status for delivery in deliveries(calls.store)} == {204}
        calls.say("who is there")
        sender_to(url, calls.store, Clock(), WEBHOOK_SECRETS=new_secret()).send_due()
        assert deliveries(calls.store)[-1].last_status == 500
    server.stop(timeout=0)
    said = capsys.readouterr().out
    assert said.startswith("call.started {'call_sid': 'CA0")
    assert "good morning" in said
    assert "who is there" not in said


def test_what_happens_is_told_at_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_module, "LOOK_EVERY", 600)
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        look, found_nothing = calls.store.due_deliveries, gevent.event.Event()

        def look_and_tell(*where: Any) -> list[Delivery]:
            if not (due := look(*where)):
                found_nothing.set()
            return due

        monkeypatch.setattr(calls.store, "due_deliveries", look_and_tell)
        with sending(calls, receiver.url()):
            assert found_nothing.wait(WITHIN)
            calls.begin()
            assert receiver.next().document["type"] == "call.started"


def test_what_arrived_is_noted_and_not_sent_again(database: str) -> None:
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        clock = Clock()
        sender = sender_to(receiver.url(), calls.store, clock)
        assert sender.send_due()
        (delivery,) = deliveries(calls.store)
        assert delivery.state is DeliveryState.DELIVERED
        assert delivery.attempts == 1
        assert delivery.last_status == 204
        assert delivery.endpoint == Endpoint(receiver.url()).name
        clock.move(DAY)
        assert not sender.send_due()
        assert len(receiver.so_far()) == 1


def test_while_secrets_change_both_verify(database: str) -> None:
    new = new_secret()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        sender_to(receiver.url(), calls.store, Clock(), WEBHOOK_SECRETS=f"{new},{SECRET}").send_due()
        post = receiver.next()
    for secret in (new, SECRET):
        Webhook(secret).verify(post.body, dict(post.headers))


def test_only_what_was_asked_for_is_told(database: str) -> None:
    with Receiver() as receiver, calls_in(database, receiver.url(), WEBHOOK_EVENTS="call.ended") as calls:
        calls.begin()
        calls.say()
        calls.end()
        sender_to(receiver.url(), calls.store, Clock()).send_due()
        assert [post.document["type"] for post in receiver.so_far()] == ["call.ended"]


def test_the_whole_program_s_defaults_refuse_this_machine(database: str) -> None:
    with Receiver(tls=server_tls()) as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        settings = settings_for(receiver.url(), WEBHOOK_ALLOW_PRIVATE="false")
        webhooks = Webhooks(settings, calls.store)
        webhooks.start()
        with gevent.Timeout(WITHIN):
            while not (delivery := deliveries(calls.store)[0]).attempts:
                gevent.sleep(0.01)
        webhooks.close(WITHIN)
        assert "is no public address; WEBHOOK_ALLOW_PRIVATE=true would allow it" in (delivery.last_error or "")
        assert receiver.so_far() == []


# --- Endpoints that fail ------------------------------------------------------------------------------------


def test_what_fails_is_sent_ten_times_at_the_schedule_and_then_given_up(database: str) -> None:
    clock = Clock()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        receiver.reply = (500, {})
        calls.begin()
        sender = sender_to(receiver.url(), calls.store, clock)
        assert sender.send_due()
        for attempts, delay in enumerate(SCHEDULE[1:], 1):
            (delivery,) = deliveries(calls.store)
            assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, attempts)
            assert (delivery.last_status, delivery.last_error) == (500, "answered with status 500")
            assert delivery.next_at == round((clock() + delay) * 1000)
            clock.move(delay - 1)
            assert not sender.send_due()
            clock.move(1.1)
            assert sender.send_due()
        (delivery,) = deliveries(calls.store)
        assert (delivery.state, delivery.attempts) == (DeliveryState.FAILED, 10)
        clock.move(30 * DAY)
        assert not sender.send_due()

        posts = receiver.take(10)
        assert len({post.message_id for post in posts}) == 1
        assert len({post.body for post in posts}) == 1
        stamps = [int(post.headers["webhook-timestamp"]) for post in posts]
        assert stamps == sorted(set(stamps))
        assert stamps[-1] - stamps[0] >= sum(SCHEDULE)


def test_what_was_given_up_can_be_sent_again_with_the_same_id(database: str) -> None:
    clock = Clock()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        receiver.reply = (500, {})
        calls.begin()
        calls.say()
        sender = sender_to(receiver.url(), calls.store, clock)
        with gevent.Timeout(WITHIN):
            while {delivery.state for delivery in deliveries(calls.store)} != {DeliveryState.FAILED}:
                sender.send_due()
                clock.move(2 * DAY)
        ids = {post.message_id for post in receiver.so_far()}

        receiver.reply = (200, {})
        assert replay_failed(calls.store, "another") == 0
        assert replay_failed(calls.store) == 2
        while sender.send_due():
            pass
        assert {post.message_id for post in receiver.take(2)} == ids
        assert {delivery.state for delivery in deliveries(calls.store)} == {DeliveryState.DELIVERED}


def test_all_that_was_given_up_is_sent_again_however_much_it_is(database: str) -> None:
    clock = Clock()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        for _ in range(PAGE):
            calls.say()
        given_up = calls.store.due_deliveries(Endpoint(receiver.url()).name, round(clock() * 1000), 2 * PAGE)
        calls.store.note_deliveries([Attempt(delivery.id) for delivery in given_up])
        assert replay_failed(calls.store) == PAGE + 1
        sender = sender_to(receiver.url(), calls.store, clock)
        while sender.send_due():
            pass
        assert {post.message_id for post in receiver.so_far()} == {delivery.message_id for delivery in given_up}


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500])
def test_whatever_is_no_success_is_a_failure_and_redirects_are_not_followed(database: str, status: int) -> None:
    with Receiver() as receiver, Receiver() as elsewhere, calls_in(database, receiver.url()) as calls:
        receiver.reply = (status, {"Location": elsewhere.url()})
        calls.begin()
        sender_to(receiver.url(), calls.store, Clock()).send_due()
        (delivery,) = deliveries(calls.store)
        assert (delivery.state, delivery.last_status) == (DeliveryState.PENDING, status)
        assert elsewhere.so_far() == []


def test_one_that_fails_does_not_hold_up_those_behind_it(database: str) -> None:
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        events = [calls.begin(), calls.say(), calls.say()]
        receiver.replies = [(500, {})]
        sender_to(receiver.url(), calls.store, Clock()).send_due()
        told = [post.document["data"]["sequence"] for post in receiver.so_far()]
        assert told == [event.sequence for event in events]
        assert [delivery.state for delivery in deliveries(calls.store)] == ["pending", "delivered", "delivered"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_who_asks_for_patience_is_left_alone_for_so_long(database: str, status: int, as_date: bool) -> None:
    clock = Clock()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        calls.say()
        then = format_datetime(datetime.fromtimestamp(clock() + 1200, UTC), usegmt=True)
        receiver.replies = [(status, {"Retry-After": then if as_date else "1200"})]
        sender = sender_to(receiver.url(), calls.store, clock)
        sender.send_due()
        assert 1199 <= deliveries(calls.store)[0].next_at / 1000 - clock() <= 1200
        clock.move(1198)
        calls.say()
        assert not sender.send_due()
        assert len(receiver.so_far()) == 1

        clock.move(3)
        while sender.send_due():
            pass
        assert len(receiver.so_far()) == 3
        assert {delivery.state for delivery in deliveries(calls.store)} == {DeliveryState.DELIVERED}


def test_who_asks_for_patience_on_one_line_is_left_alone_on_all(database: str) -> None:
    """Also when what was under way on another one arrives after that."""
    together, asked, lines = gevent.event.Event(), gevent.event.Event(), list[socket.socket]()

    def ask_on_one_and_take_on_the_other(sock: socket.socket) -> None:
        lines.append(sock)
        is_first = len(lines) == 1
        read_request(sock)
        if is_first:
            assert together.wait(WITHIN)
            sock.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1200\r\nContent-Length: 0\r\n\r\n")
            while sock.recv(4096):  # until the sender has understood and lets go
                pass
            asked.set()
        else:
            together.set()
            assert asked.wait(WITHIN)
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    clock = Clock()
    with serving(ask_on_one_and_take_on_the_other) as url, calls_in(database, url) as calls:
        calls.begin()
        calls.begin()
        sender = sender_to(url, calls.store, clock)
        sender.send_due()
        assert {delivery.state for delivery in deliveries(calls.store)} == {"pending", "delivered"}
        clock.move(600)
        calls.say()
        assert not sender.send_due()
    assert len(lines) == 2


def test_nobody_can_ask_for_more_than_a_day(database: str) -> None:
    clock = Clock()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        receiver.replies = [(503, {"Retry-After": "99999999"})]
        sender = sender_to(receiver.url(), calls.store, clock)
        sender.send_due()
        clock.move(DAY + 1)
        assert sender.send_due()
        assert deliveries(calls.store)[0].state is DeliveryState.DELIVERED


def test_who_is_gone_is_not_asked_again_until_the_program_is_started_anew(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with Receiver() as receiver:
        receiver.replies = [(410, {})]
        with calls_in(database, receiver.url()) as calls:
            calls.begin()
            calls.say()
            sender = sender_to(receiver.url(), calls.store, clock)
            running = gevent.spawn(sender.run)
            running.join(WITHIN)
            assert running.successful()  # it has ended by itself
            clock.move(DAY)
            assert not sender.send_due()
            assert len(receiver.so_far()) == 1
            assert [delivery.state for delivery in deliveries(calls.store)] == ["pending", "pending"]
        assert len([record for record in caplog.records if "410" in record.getMessage()]) == 1

        with calls_in(database, receiver.url()) as calls:
            sender = sender_to(receiver.url(), calls.store, clock)
            while sender.send_due():
                pass
            assert len(receiver.so_far()) == 2


def test_an_endpoint_that_cannot_be_reached_is_tried_with_one_at_a_time(database: str) -> None:
    clock = Clock()
    with Receiver() as receiver:
        port = receiver.port
        url = receiver.url()
    with calls_in(database, url) as calls:
        calls.begin()
        sender = sender_to(url, calls.store, clock)
        sender.send_due()
        for _ in range(3):
            calls.say()
        assert not sender.send_due()  # it is left alone for a moment
        clock.move(REST + 0.1)
        assert sender.send_due()
        assert sum(delivery.attempts for delivery in deliveries(calls.store)) == 2
        assert deliveries(calls.store)[0].last_error == "localhost could not be talked to (Connection refused)"

        clock.move(2 * HOUR)
        with Receiver(port=port) as back:
            while sender.send_due():
                pass
            assert sorted(post.document["data"]["sequence"] for post in back.so_far()) == [1, 2, 3, 4]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_who_never_answers_is_given_up_in_time(database: str, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward_module, "ANSWER_WITHIN", 0.5)

    def drip(sock: socket.socket) -> None:
        read_request(sock)
        while True:
            sock.sendall(answer)
            gevent.sleep(0.05)

    with serving(drip) as url, calls_in(database, url) as calls:
        calls.begin()
        sender_to(url, calls.store, Clock()).send_due()
        (delivery,) = deliveries(calls.store)
        assert delivery.last_error == "localhost did not answer within 0.5 s"
        assert delivery.state is DeliveryState.PENDING


def test_a_dead_endpoint_delays_no_other(database: str) -> None:
    asked = gevent.event.Event()

    def never_answer(sock: socket.socket) -> None:
        read_request(sock)
        asked.set()
        gevent.sleep(60)

    with serving(never_answer) as dead, Receiver() as receiver, calls_in(database, dead, receiver.url()) as calls:
        with sending(calls, dead, receiver.url(), close_within=0.1):
            calls.begin()
            assert asked.wait(WITHIN)
            for _ in range(30):
                calls.say()
            assert len(receiver.take(31)) == 31


def test_a_distant_endpoint_is_told_of_several_calls_at_once_and_of_each_in_order(database: str) -> None:
    """One after the other would be ten a second where an answer takes 100 ms: less than thirty calls say."""
    arrived, together = Queue[bytes](), gevent.event.Event()

    def answer_when_two_have_come(sock: socket.socket) -> None:
        while request := read_request(sock):
            arrived.put(request)
            if arrived.qsize() == 2:
                together.set()
            assert together.wait(WITHIN)
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with serving(answer_when_two_have_come) as url, calls_in(database, url) as calls:
        events = [calls.begin(), calls.say(), calls.begin(), calls.say()]
        sender_to(url, calls.store, Clock()).send_due()
        assert {delivery.state for delivery in deliveries(calls.store)} == {DeliveryState.DELIVERED}
        in_order = {delivery.message_id: delivery.event.id for delivery in deliveries(calls.store)}
    told = [in_order[message_id(arrived.get()).split()[1].decode()] for _ in events]
    for begun, said in ((0, 1), (2, 3)):
        assert told.index(events[begun].id) < told.index(events[said].id)


def test_of_a_call_that_is_deleted_nothing_more_is_told(database: str) -> None:
    """What was said on it waits in memory by then, for an endpoint that takes its time."""
    with calls_in(database) as other:
        arrived: list[bytes] = []

        def delete_it_meanwhile(sock: socket.socket) -> None:
            while request := read_request(sock):
                arrived.append(request)
                if message_id(request).split()[1].decode() in of_the_call:  # the other one goes over another line
                    assert other.store.delete(call.call_sid)
                sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        with serving(delete_it_meanwhile) as url, calls_in(database, url) as calls:
            call = calls.begin()
            calls.say("my number is topsecret")
            calls.end()
            kept = calls.begin()
            waiting = deliveries(calls.store)
            of_the_call = {one.message_id for one in waiting if one.event.call_sid == call.call_sid}
            sender_to(url, calls.store, Clock()).send_due()
            assert [delivery.event.call_sid for delivery in deliveries(calls.store)] == [kept.call_sid]
    assert len(arrived) == 2
    assert not any(b"topsecret" in request for request in arrived)


def test_a_backlog_is_not_read_at_once(database: str) -> None:
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        for _ in range(2 * AT_ONCE):
            calls.say()
        sender = sender_to(receiver.url(), calls.store, Clock())
        counts = []
        while sender.send_due():
            posts = receiver.so_far()
            counts.append(len(posts))
            assert len({post.port for post in posts}) == 1  # over one connection
        assert counts == [AT_ONCE, AT_ONCE, 1]


def test_a_slow_endpoint_s_successes_are_noted_as_they_come_and_no_attempt_outlasts_our_hold_on_it(
    database: str,
) -> None:
    clock = Clock()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        receiver.reply = (200, {"Connection": "close"})  # so that each post looks the name up, which takes its time
        states = []

        def slow(_host: str, _port: int) -> list[str]:
            clock.move(25)
            states.append([delivery.state.value for delivery in deliveries(calls.store)])
            return ["127.0.0.1"]

        calls.begin()
        calls.say()
        calls.say()
        settings = settings_for(receiver.url())
        sender = Sender(
            settings.endpoints[0], settings.secrets, calls.store, Outward(allows=is_any, resolve=slow), now=clock
        )
        sender.send_due()
        assert states == [["pending", "pending", "pending"], ["delivered", "pending", "pending"]]
        clock.move(60)
        sender.send_due()
        assert [post.document["data"]["sequence"] for post in receiver.so_far()] == [1, 2, 3]


# --- Restarts, several processes, and troubles of our own ---------------------------------------------------


def test_after_a_restart_what_waits_goes_on_with_the_same_id(database: str) -> None:
    clock = Clock()
    with Receiver() as receiver:
        receiver.replies = [(500, {})]
        with calls_in(database, receiver.url()) as calls:
            calls.begin()
            sender_to(receiver.url(), calls.store, clock).send_due()
        clock.move(HOUR)
        with calls_in(database, receiver.url()) as calls:
            sender_to(receiver.url(), calls.store, clock).send_due()
            assert deliveries(calls.store)[0].state is DeliveryState.DELIVERED
        first, second = receiver.take(2)
        assert first.message_id == second.message_id
        assert first.body == second.body


def test_who_is_killed_while_it_sends_sends_again_with_the_same_id(database: str) -> None:
    clock = Clock()
    received = Queue[bytes]()

    def take_and_say_nothing(sock: socket.socket) -> None:
        received.put(read_request(sock))
        gevent.sleep(60)

    with serving(take_and_say_nothing) as url, calls_in(database, url) as calls:
        calls.begin()
        sender = gevent.spawn(sender_to(url, calls.store, clock).send_due)
        first = received.get(timeout=WITHIN)
        sender.kill()

        clock.move(2 * 60)
        again = gevent.spawn(sender_to(url, calls.store, clock).send_due)
        second = received.get(timeout=WITHIN)
        again.kill()
    assert message_id(first) == message_id(second)


def message_id(request: bytes) -> bytes:
    return next(line for line in request.split(b"\r\n") if line.startswith(b"webhook-id"))


def test_several_processes_send_each_delivery_once(database: str) -> None:
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls, calls_in(database) as others:
        for _ in range(2):
            calls.begin()
            for _ in range(AT_ONCE):
                calls.say()
            calls.end()
        clock = Clock()
        senders = [sender_to(receiver.url(), process.store, clock) for process in (calls, others)]

        def send_all(sender: Sender) -> None:
            while sender.send_due():
                pass

        gevent.joinall([gevent.spawn(send_all, sender) for sender in senders], raise_error=True)
        ids = [post.message_id for post in receiver.so_far()]
        assert len(ids) == len(set(ids)) == len(deliveries(calls.store))
        assert {delivery.state for delivery in deliveries(calls.store)} == {DeliveryState.DELIVERED}


def test_what_the_store_cannot_note_is_not_sent_over_and_over(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_module, "LOOK_EVERY", 0.01)
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        note, troubles = calls.store.note_deliveries, [StoreError("the disk is full")] * 5

        def note_in_the_end(attempts: Sequence[Attempt]) -> None:
            if troubles:
                raise troubles.pop()
            note(attempts)

        monkeypatch.setattr(calls.store, "note_deliveries", note_in_the_end)
        sender_to(receiver.url(), calls.store, Clock()).send_due()
        assert not troubles
        assert len(receiver.so_far()) == 1
        assert deliveries(calls.store)[0].state is DeliveryState.DELIVERED


def test_a_database_that_is_away_is_waited_for(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        calls.begin()
        sender = sender_to(receiver.url(), calls.store, Clock())
        with monkeypatch.context() as away:
            away.setattr(calls.store, "due_deliveries", _raise_trouble)
            assert not sender.send_due()
        assert sender.send_due()


def _raise_trouble(*_: object) -> list[Delivery]:
    raise StoreError("the database is away")


def test_whatever_fails_an_endpoint_is_told_on(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks_module, "LOOK_EVERY", 0.01)
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        due, failures = calls.store.due_deliveries, [RuntimeError("they said topsecret")]

        def fail_once(*where: Any) -> list[Delivery]:
            if failures:
                raise failures.pop()
            return due(*where)

        monkeypatch.setattr(calls.store, "due_deliveries", fail_once)
        calls.begin()
        with sending(calls, receiver.url()):
            assert receiver.next().document["type"] == "call.started"
    assert not failures
    assert "held up by a fault of this program: RuntimeError" in caplog.text
    assert "topsecret" not in caplog.text


def test_what_another_process_sends_again_is_found(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_module, "LOOK_EVERY", 0.05)
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls, calls_in(database) as others:
        calls.begin()
        with sending(calls, receiver.url()):
            first = receiver.next()
            with gevent.Timeout(WITHIN):
                while (delivery := deliveries(others.store)[0]).state is not DeliveryState.DELIVERED:
                    gevent.sleep(0.01)
            assert others.store.replay_delivery(delivery.id)
            assert receiver.next().message_id == first.message_id


def test_closing_does_not_wait_for_who_never_answers(database: str) -> None:
    asked, gone = gevent.event.Event(), gevent.event.Event()

    def never_answer(sock: socket.socket) -> None:
        read_request(sock)
        asked.set()
        while sock.recv(4096):
            pass
        gone.set()

    with serving(never_answer) as url, calls_in(database, url) as calls:
        calls.begin()
        with gevent.Timeout(WITHIN), sending(calls, url, close_within=0.1):
            assert asked.wait(WITHIN)
        assert gone.wait(WITHIN)


def test_the_log_does_not_repeat_itself(database: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Receiver() as receiver, calls_in(database, receiver.url()) as calls:
        sender = sender_to(receiver.url(), calls.store, clock)
        calls.begin()
        assert sender.send_due()
        receiver.replies = [(404, {}), (500, {}), (200, {}), (500, {}), (500, {})]
        for passes in (0, 0, 0, 0, 2 * HOUR):
            clock.move(passes)
            calls.say()
            sender.send_due()
    name = Endpoint(receiver.url()).name
    assert [record.getMessage() for record in caplog.records if record.name == "relay.webhooks"] == [
        f"webhooks to {name} fail and are tried again: answered with status 404",
        f"webhooks to {name} arrive again",
        f"webhooks to {name} fail and are tried again: answered with status 500",
    ]


def test_nothing_secret_is_logged_or_kept(database: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(sock: socket.socket) -> None:
        sock.sendall(read_request(sock))

    def refuse(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 500 tell-no-one\r\nodd\r\nContent-Length: 11\r\n\r\ntell-no-one")

    for handle in (echo, refuse):
        with serving(handle) as url:
            url = url.replace("localhost", "me:pa55word@localhost") + "?token=tell-no-one"
            with calls_in(database, url) as calls:
                calls.begin()
                calls.say("my number is topsecret")
                calls.end()
                sender_to(url, calls.store, Clock()).send_due()
                kept = repr([delivery.as_json() for delivery in deliveries(calls.store)]) + repr(
                    deliveries(calls.store)
                )
        key = SECRET.removeprefix("whsec_")
        for secret in ("tell-no-one", "pa55word", "topsecret", key):
            assert secret not in caplog.text
            assert secret not in kept
    assert "webhooks to localhost-" in caplog.text

"""Who may do what: every route of the whole server, asked with every kind of credentials that should not do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from socket import create_connection
from typing import Any, Final

import gevent
import pytest
from flask import Blueprint, Flask
from gevent.event import Event
from werkzeug.routing import Rule

import app as program
from relay.call import Switchboard
from relay.console import Console, Outlet
from relay.hub import Happened, Hub
from relay.listening import Listening
from relay.passes import Kind, Passes, Scope
from relay.settings import Settings, read
from relay.store.store import Store
from relay.web.access import DECLARED, HEADERS, OPEN, TWILIO, Needed, needs, open_to_all
from relay.web.entrance import AccessSettings
from relay.web.routes import create_app
from tests.browsing import HTML, Browser
from tests.serving import Answer, Serving, begun, call_info, ended, final, serving

ONE, OTHER = call_info(1).call_sid, call_info(2).call_sid
HOUR: Final = 3600
PASSWORD: Final = "correct horse"

# Whoever opens another route to all, or to Twilio, has to say so here as well.
OPEN_ON_PURPOSE: Final = {
    "/healthz",
    "/readyz",
    "/login",
    "/logout",
    "/enter/<token>",
    "/share/<text>",
    "/static/<name>",
}
FOR_TWILIO: Final = ("/media", "/twiml", "/stream-status")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/calls.db")
    opened.open()
    yield opened
    opened.close(10)


# --- The whole server ------------------------------------------------------------------------------------------


@dataclass
class Whole:
    """All that `python app.py` serves, and where its passes lie."""

    url: str
    app: Flask
    passes: Passes

    def routes(self) -> Iterator[tuple[Rule, str, Needed]]:
        """What needs a pass: rule and method."""
        for rule in self.app.url_map.iter_rules():
            declared = getattr(self.app.view_functions[rule.endpoint], DECLARED)
            if isinstance(declared, Needed):
                for method in sorted((rule.methods or set()) - {"OPTIONS"}):
                    yield rule, method, declared

    def status(self, path: str, method: str, headers: dict[str, str]) -> int:
        """That of the answer."""
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=20)
        try:
            connection.request(method, path, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def bearer(self, kind: Kind = Kind.TOKEN, scopes: Any = Scope, **more: Any) -> dict[str, str]:
        """A new pass, as programs send it."""
        return {"Authorization": f"Bearer {self.passes.issue(kind, scopes, **{'for_s': HOUR, **more})}"}

    def cookie(self, kind: Kind = Kind.SESSION, scopes: Any = Scope, **more: Any) -> dict[str, str]:
        """A new pass, as browsers send it."""
        text = self.passes.issue(kind, scopes, **{"for_s": HOUR, **more})
        return {"Cookie": f"session-{self.url.rpartition(':')[2]}={text}", "Origin": self.url}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    environ = {
        "PORT": "0",
        "ACCESS_FOLDER": str(folder / "access"),
        "DATABASE_URL": f"sqlite:///{folder}/calls.db",
        "RESULTS_FOLDER": str(folder / "results"),
        "VIEWER_PASSWORD": PASSWORD,
    }
    made: list[Flask] = []

    def noted(*parts: Any, **more: Any) -> Flask:
        made.append(create_app(*parts, **more))
        return made[0]

    with pytest.MonkeyPatch.context() as patch, (folder / "out").open("w") as out:
        console = Console(Outlet(out))
        patch.setattr(program, "create_app", noted)
        with program.serving(environ, read(Settings, environ), Listening(()), console, Event()) as (
            server,
            switchboard,
        ):
            for number in (1, 2):
                for event in (begun(), final("hello"), ended()):
                    switchboard.hub.publish(Happened(call_info(number), event, "Deepgram"))
            served = Whole(f"http://127.0.0.1:{server.port}", made[0], Passes(folder / "access"))
            with gevent.Timeout(20):
                while served.status(f"/api/calls/{OTHER}", "GET", served.bearer()) != 200:
                    gevent.sleep(0.01)
            yield served


def path_of(rule: Rule, sid: str = ONE) -> str:
    """A path that the rule answers; the live feed of one call."""
    path = re.sub(r"<any\(([a-z]+)[^>]*>", r"\1", rule.rule.replace("<sid>", sid))
    return re.sub(r"<[^>]*>", "x", path)


def asked_of(rule: Rule, declared: Needed, sid: str = ONE) -> str:
    """The same; where a parameter can name the call, with it."""
    return path_of(rule, sid) + (f"?{declared.call_parameter}={sid}" if declared.call_parameter else "")


def test_every_route_declares_who_may_ask_and_few_are_open(whole: Whole) -> None:
    by_access: dict[object, set[str]] = {OPEN: set(), TWILIO: set(), Needed: set()}
    for rule in whole.app.url_map.iter_rules():
        declared = getattr(whole.app.view_functions[rule.endpoint], DECLARED)
        by_access[Needed if isinstance(declared, Needed) else declared].add(rule.rule)
    assert by_access[OPEN] == OPEN_ON_PURPOSE
    assert {f"/{rule.split('/')[1]}" for rule in by_access[TWILIO]} == set(FOR_TWILIO)
    assert len(by_access[Needed]) > 8


def test_a_route_that_declares_nothing_stops_the_server() -> None:
    part = Blueprint("new", __name__)
    part.add_url_rule("/secrets", view_func=lambda: "all of them")
    with pytest.raises(LookupError, match="The route /secrets declares no access"):
        create_app(Switchboard(Settings(), Listening(()), Hub()), part)


def test_a_route_that_comes_later_and_declares_nothing_is_answered_to_nobody(store: Store) -> None:
    with serving(store) as running:
        running.app.add_url_rule("/secrets", view_func=lambda: "all of them")
        assert running.ask_as({}, "/secrets").status == 401
        assert running.ask("/secrets").status == 403


def test_a_new_route_is_covered_by_declaring(store: Store) -> None:
    part = Blueprint("new", __name__)

    @part.get("/new/<sid>")
    @needs(Scope.DELETE)
    def new(sid: str) -> str:
        return sid

    with serving(store, parts=[part]) as running:
        assert running.ask_as({}, "/new/CA1").status == 401
        assert running.ask("/new/CA1").body == b"CA1"
        only_one = running.passes.issue(Kind.TOKEN, {Scope.DELETE}, for_s=HOUR, call_sid="CA1")
        assert running.ask("/new/CA1", Authorization=f"Bearer {only_one}").status == 200
        assert running.ask("/new/CA2", Authorization=f"Bearer {only_one}").status == 403


def flipped(header: dict[str, str]) -> dict[str, str]:
    """The same with one bit of the signature changed."""
    name, text = next(iter(header.items()))
    return {**header, name: text[:-10] + chr(ord(text[-10]) ^ 1) + text[-9:]}


def finished(whole: Whole, header: dict[str, str]) -> dict[str, str]:
    """The same, ended."""
    (text,) = re.findall(r"([0-9a-f]{32})\.", str(header))
    assert whole.passes.end(text)
    return header


def expired(whole: Whole, make: Callable[..., dict[str, str]], kind: Kind) -> dict[str, str]:
    """A pass whose time is up."""
    return make(kind, Scope, for_s=0)


def worthless(whole: Whole, other: Path) -> dict[str, dict[str, str]]:
    """Credentials by which nobody should come in."""
    foreign = Passes(other).issue(Kind.TOKEN, Scope, for_s=HOUR)
    return {
        "none": {},
        "an empty token": {"Authorization": "Bearer "},
        "a wrong token": {"Authorization": "Bearer 1234"},
        "a token that is no text": {"Authorization": "Bearer \xe4\xff.\xfc"},
        "a very long token": {"Authorization": f"Bearer {'a' * 8000}"},
        "another server's token": {"Authorization": f"Bearer {foreign}"},
        "a forged token": flipped(whole.bearer()),
        "a token without its signature": {"Authorization": whole.bearer()["Authorization"].partition(".")[0]},
        "an expired token": whole.bearer(for_s=0),
        "an ended token": finished(whole, whole.bearer()),
        "a token in the wrong place": {"Authorization": f"Basic {whole.bearer()['Authorization'][7:]}"},
        "the password as a token": {"Authorization": f"Bearer {PASSWORD}"},
        "the password as basic credentials": {"Authorization": "Basic OmNvcnJlY3QgaG9yc2U="},
        "the stream key": {"Authorization": f"Bearer {whole.passes.stream_key}"},
        **{f"a {kind} as a token": whole.bearer(kind) for kind in Kind if kind is not Kind.TOKEN},
        "a forged session": flipped(whole.cookie()),
        "an expired session": whole.cookie(for_s=0),
        "an ended session": finished(whole, whole.cookie()),
        "a session under another name": {"Cookie": whole.cookie()["Cookie"].replace("session-", "token-")},
        "a token as a session": whole.cookie(Kind.TOKEN),
        "a stream's pass as a session": whole.cookie(Kind.STREAM),
        "an expired link": whole.cookie(Kind.SHARE, for_s=0),
    }


def test_no_route_is_answered_to_who_shows_nothing_of_worth(whole: Whole, tmp_path: Path) -> None:
    for how, headers in worthless(whole, tmp_path).items():
        for rule, method, declared in whole.routes():
            status = whole.status(asked_of(rule, declared), method, headers)
            assert status == 401, f"{method} {rule} was answered by {status} to {how}"


def test_no_route_is_answered_to_who_may_do_something_else(whole: Whole) -> None:
    for rule, method, declared in whole.routes():
        for other in set(Scope) - {declared.scope}:
            for made in (whole.bearer(scopes={other}), whole.cookie(scopes={other})):
                status = whole.status(asked_of(rule, declared), method, made)
                assert status == 403, f"{method} {rule} was answered by {status} to one who may {other}"
        all_others = whole.bearer(scopes=set(Scope) - {declared.scope})
        assert whole.status(asked_of(rule, declared), method, all_others) == 403


def test_no_route_is_answered_to_who_may_see_another_call(whole: Whole) -> None:
    for rule, method, declared in whole.routes():
        for made in (whole.bearer(call_sid=OTHER), whole.cookie(Kind.SHARE, call_sid=OTHER)):
            for path in (path_of(rule), asked_of(rule, declared)):
                status = whole.status(path, method, made)
                assert status == 403, f"{method} {path} was answered by {status} to one of another call"


def test_who_may_see_one_call_sees_what_names_it_and_nothing_else(whole: Whole) -> None:
    one = whole.bearer(call_sid=ONE)
    for rule, method, declared in whole.routes():
        if method == "DELETE":
            continue
        names_it = "<sid>" in rule.rule
        assert (whole.status(path_of(rule), "OPTIONS", one) == 200) == names_it, rule
        assert (whole.status(asked_of(rule, declared), "OPTIONS", one) == 200) == bool(
            names_it or declared.call_parameter
        ), rule


def test_who_has_just_what_is_needed_is_let_in(whole: Whole) -> None:
    for rule, method, declared in whole.routes():
        if method == "DELETE":  # at whose path OPTIONS is answered by the GET route
            continue
        for made in (whole.bearer(scopes={declared.scope}), whole.cookie(scopes={declared.scope})):
            assert whole.status(path_of(rule), "OPTIONS", made) == 200, rule
    assert whole.status(f"/api/calls/{ONE}", "GET", whole.bearer()) == 200
    assert whole.status("/metrics", "GET", whole.bearer(scopes={Scope.METRICS})) == 200
    assert whole.status("/api/calls/CA5", "DELETE", whole.bearer(scopes={Scope.DELETE})) == 404


@pytest.mark.parametrize(
    "way",
    [
        "/api/calls/{other}%2f..%2f{one}",
        "/api/calls/{one}/../{other}",
        "/api/calls/{one}%00",
        "/api/calls/{one}%20",
        "/api/calls/{other}?sid={one}",
        "/api/live?call={other}&call={one}",
        "/api/live?call={one}%00",
        "/api/live?call=%20{other}",
        "/api/live?Call={one}",
        "/api/search?q=hello&call={one}",
        "/api/calls?number={one}",
        "//api/calls",
        "/api//calls",
    ],
)
def test_no_way_round_leads_from_one_call_to_another(way: str, whole: Whole) -> None:
    path = way.format(one=ONE, other=OTHER)
    assert whole.status(path, "GET", whole.bearer(call_sid=ONE)) in (400, 403, 404, 308)


# --- What is said to whom --------------------------------------------------------------------------------------


def test_programs_are_told_how_to_come_in_and_browsers_are_led_there(store: Store) -> None:
    with serving(store) as running:
        program_asks = running.ask_as({}, "/api/calls")
        assert program_asks.status == 401
        assert program_asks.headers["www-authenticate"] == "Bearer"
        assert program_asks.document["detail"].startswith("Log in, or send a token")
        assert running.ask_as(HTML, "/metrics").headers["location"] == "/login?next=%2Fmetrics"
        assert running.ask_as(HTML, "/api/calls").status == 401
        assert running.ask_as({"Accept": "*/*"}, "/metrics").status == 401


def test_nobody_learns_whether_a_call_exists(store: Store) -> None:
    with serving(store) as running:
        kept(running)
        one, none = running.ask_as({}, f"/api/calls/{ONE}"), running.ask_as({}, "/api/calls/CA5")
        assert (one.status, one.body) == (none.status, none.body)
        other = running.passes.issue(Kind.TOKEN, Scope, for_s=HOUR, call_sid=OTHER)
        headers = {"Authorization": f"Bearer {other}"}
        one, none = running.ask_as(headers, f"/api/calls/{ONE}"), running.ask_as(headers, "/api/calls/CA5")
        assert (one.status, one.body) == (none.status, none.body) == (403, one.body)


def failing() -> Blueprint:
    part = Blueprint("failing", __name__)

    @part.get("/fails/<text>")
    @open_to_all
    def fails(text: str) -> str:
        raise RuntimeError("it failed")

    return part


def test_every_answer_has_the_headers_that_protect_it(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with serving(store, parts=[failing()], access=AccessSettings(password=PASSWORD)) as running:
        browser = Browser(running.url)
        assert browser.log_in(PASSWORD).status == 303
        answers: list[tuple[int, Answer]] = [
            (200, running.ask("/api/calls")),
            (200, running.ask_as({}, "/healthz")),
            (200, running.ask_as({}, "/login")),
            (400, running.ask("/api/calls?limit=x")),
            (401, running.ask_as({}, "/api/calls")),
            (303, running.ask_as(HTML, "/metrics")),
            (403, running.ask("/api/calls", Origin="https://evil.example")),
            (404, running.ask("/api/calls/CA5")),
            (404, running.ask("/nothing")),
            (405, running.ask("/api/calls", "PUT")),
            (500, running.ask("/fails/with-a-secret")),
            (403, browser.log_in("wrong password")),
            (303, browser.post("/logout")),
        ]
        feed = running.watch()
        answers.append((200, Answer(feed.response.status, {k.lower(): v for k, v in feed.response.getheaders()}, b"")))
        feed.close()
    for status, answer in answers:
        assert answer.status == status
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert "a failure in answering GET /fails/<text>" in caplog.text
    assert "with-a-secret" not in caplog.text


def test_what_is_not_for_all_is_kept_by_no_cache(whole: Whole) -> None:
    for rule, _, declared in whole.routes():
        connection = HTTPConnection(whole.url.removeprefix("http://"), timeout=20)
        connection.request("OPTIONS", asked_of(rule, declared), headers=whole.bearer())
        assert connection.getresponse().getheader("Cache-Control") == "no-store", rule
        connection.close()


def test_the_answer_to_head_ends_with_its_head(whole: Whole) -> None:
    """What came behind it would be taken, by a proxy too, for the next answer's beginning."""
    host = whole.url.removeprefix("http://")
    (bearer,) = whole.bearer().values()
    for rule, method, declared in whole.routes():
        if method == "HEAD":
            asked = f"HEAD {asked_of(rule, declared)} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\n"
            with create_connection((host.partition(":")[0], int(host.rpartition(":")[2])), timeout=20) as client:
                client.sendall(f"{asked}\r\n{asked}Connection: close\r\n\r\n".encode())
                said = client.makefile("rb").read()
            assert [answer[:9] for answer in said.split(b"\r\n\r\n")] == [b"HTTP/1.1 ", b"HTTP/1.1 ", b""], rule


# --- Whose page asks -------------------------------------------------------------------------------------------


@pytest.fixture
def owned(store: Store) -> Iterator[tuple[Serving, Browser]]:
    """A server with a call, and the browser of somebody who has logged in."""
    with serving(store, access=AccessSettings(password=PASSWORD)) as running:
        kept(running)
        browser = Browser(running.url)
        assert browser.log_in(PASSWORD).status == 303
        yield running, browser


def kept(running: Serving) -> None:
    """A call has been, and is in the store."""
    running.happens(call_info(1), begun(), final("hello"), ended())
    with gevent.Timeout(20):
        while running.store.waiting:
            gevent.sleep(0.005)


FOREIGN: Final = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1.evil.example:{port}"},
    {"Origin": "http://user@127.0.0.1:{port}"},
    {"Origin": "http://[127.0.0.1:{port}"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "nonsense"},
]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/calls/{ONE}"),
        ("GET", "/api/live"),
        ("DELETE", f"/api/calls/{ONE}"),
        ("POST", f"/api/calls/{ONE}/share"),
        ("POST", "/logout"),
    ],
)
def test_a_page_of_another_site_gets_and_changes_nothing(
    method: str, path: str, owned: tuple[Serving, Browser]
) -> None:
    running, browser = owned
    port = running.url.rpartition(":")[2]
    for headers in FOREIGN:
        answer = browser.ask(path, method, None, {name: text.format(port=port) for name, text in headers.items()})
        assert answer.status == 403, headers
    assert browser.get("/api/calls").document["items"][0]["call_sid"] == ONE


def test_what_changes_something_with_a_cookie_has_to_say_whose_page_it_is(owned: tuple[Serving, Browser]) -> None:
    running, browser = owned
    assert browser.ask(f"/api/calls/{ONE}", "DELETE", None, {}).status == 403
    assert browser.ask("/logout", "POST", None, {}).status == 403
    assert browser.ask(f"/api/calls/{ONE}/share", "POST", None, {"Sec-Fetch-Site": "same-origin"}).status == 201
    assert browser.ask(f"/api/calls/{ONE}/share", "POST", None, {"Origin": running.url}).status == 201
    assert running.ask(f"/api/calls/{ONE}", "DELETE").status == 204, "a token says enough"


def test_a_link_from_elsewhere_may_lead_here(owned: tuple[Serving, Browser]) -> None:
    _, browser = owned
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert browser.get("/api/calls", **link).status == 200
    assert browser.ask("/logout", "POST", None, link).status == 403


def test_a_login_from_a_foreign_page_is_refused(store: Store) -> None:
    with serving(store, access=AccessSettings(password=PASSWORD)) as running:
        browser = Browser(running.url)
        assert browser.post("/login", {"password": PASSWORD}, Origin="https://evil.example").status == 403
        assert browser.cookies == {}


def test_behind_a_proxy_that_names_another_host_the_public_url_is_ours(store: Store) -> None:
    chosen = AccessSettings(password=PASSWORD)
    with serving(store, access=chosen, public_url="https://calls.example.com") as running:
        browser = Browser(running.url)
        form = {"password": PASSWORD}
        assert browser.post("/login", form, Origin="https://calls.example.com").status == 303
        assert browser.post("/login", form, Origin="https://calls.example.com.evil.example").status == 403


@pytest.mark.parametrize("public_url", ["https://calls.example.com", "https://Calls.example.com:443"])
def test_under_its_public_https_address_the_cookie_is_for_https_only(store: Store, public_url: str) -> None:
    chosen = AccessSettings(password=PASSWORD)
    with serving(store, access=chosen, public_url=public_url) as running:
        assert secure_after_login(running, Host="calls.example.com", Origin="https://calls.example.com")
        assert not secure_after_login(running)


# --- Proxies ---------------------------------------------------------------------------------------------------


def secure_after_login(running: Serving, **headers: str) -> bool:
    """Whether a login's cookie is for https only."""
    browser = Browser(running.url)
    assert browser.post("/login", {"password": PASSWORD}, **headers).status == 303
    ((name, cookie),) = browser.cookies.items()
    assert name.startswith("__Host-") == bool(cookie["secure"])
    return bool(cookie["secure"])


def test_a_proxys_word_counts_only_when_it_is_trusted(store: Store) -> None:
    chosen = AccessSettings(password=PASSWORD)
    with serving(store, access=chosen) as running:
        assert not secure_after_login(running)
        assert not secure_after_login(running, X_Forwarded_Proto="https")
        assert not secure_after_login(running, Forwarded="proto=https")
    with serving(store, access=chosen, trusted_proxies=1) as running:
        assert not secure_after_login(running)
        assert secure_after_login(running, X_Forwarded_Proto="https")
        assert not secure_after_login(running, X_Forwarded_Proto="https, http"), "what the client said itself"
        behind = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "calls.example.com"}
        assert secure_after_login(running, **behind, Origin="https://calls.example.com")


def test_asked_under_its_public_name_the_cookie_is_for_https(store: Store) -> None:
    chosen = AccessSettings(password=PASSWORD)
    with serving(store, access=chosen, public_url="https://calls.example.com") as running:
        host = {"Host": "calls.example.com", "Origin": "https://calls.example.com"}
        assert secure_after_login(running, **host)
        assert not secure_after_login(running)


def addresses_told(running: Serving, caplog: pytest.LogCaptureFixture, **headers: str) -> str:
    """Who gave a wrong password, as the log has it."""
    caplog.clear()
    Browser(running.url).post("/login", {"password": "wrong"}, **headers)
    (line,) = [line for line in caplog.messages if "wrong password" in line]
    return line.rpartition(" ")[2]


def test_who_asks_is_who_the_last_trusted_proxy_names(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    chosen = AccessSettings(password=PASSWORD)
    with serving(store, access=chosen) as running:
        assert addresses_told(running, caplog, X_Forwarded_For="192.0.2.1") == "127.0.0.1"
        assert addresses_told(running, caplog, X_Real_Ip="192.0.2.1", Forwarded="for=192.0.2.1") == "127.0.0.1"
    with serving(store, access=chosen, trusted_proxies=1) as running:
        assert addresses_told(running, caplog, X_Forwarded_For="192.0.2.1") == "192.0.2.1"
        assert addresses_told(running, caplog, X_Forwarded_For="203.0.113.9, 192.0.2.1") == "192.0.2.1"
    with serving(store, access=chosen, trusted_proxies=2) as running:
        assert addresses_told(running, caplog, X_Forwarded_For="203.0.113.9, 192.0.2.1, 10.0.0.1") == "192.0.2.1"


def test_what_a_proxy_passes_on_moves_no_cursor(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with serving(store, access=AccessSettings(password=PASSWORD), trusted_proxies=1) as running:
        assert addresses_told(running, caplog, X_Forwarded_For="\x9b31m192.0.2.1") == "31m192.0.2.1"

"""The entrance: how one comes in and goes out, and links to one call."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import gevent
import pytest

from relay.passes import Kind, Passes, Scope
from relay.settings import read
from relay.store.store import Store
from relay.web import entrance, live
from relay.web.entrance import AccessSettings, Tries, household, with_access_link
from tests.browsing import Browser
from tests.program import program
from tests.serving import Serving, begun, call_info, ended, final, serving

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases",)

ONE, OTHER = call_info(1).call_sid, call_info(2).call_sid
PASSWORD: Final = "correct horse"
TOKEN: Final = "a-token-that-nobody-guesses"
WITH_PASSWORD: Final = AccessSettings(password=PASSWORD)
WITH_LINK: Final = AccessSettings(token=TOKEN)
ENDS_WITHIN: Final = 20.0  # seconds, on a busy machine


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path}/calls.db")
    opened.open()
    yield opened
    opened.close(10)


def kept(running: Serving, *numbers: int) -> None:
    """These calls have been, and are in the store."""
    for number in numbers:
        running.happens(call_info(number), begun(), final("hello"), ended())
    with gevent.Timeout(20):
        while running.store.waiting:
            gevent.sleep(0.005)


def sees_calls(browser: Browser) -> bool:
    """Whether it is shown all calls."""
    return browser.get("/api/calls").status == 200


def logged_in(running: Serving, password: str = PASSWORD) -> Browser:
    """Somebody's browser, after the log-in."""
    browser = Browser(running.url)
    assert browser.log_in(password).status == 303
    assert sees_calls(browser)
    return browser


def session(browser: Browser) -> str:
    """The text of its cookie."""
    ((_, cookie),) = browser.cookies.items()
    return cookie.value


# --- Logging in ------------------------------------------------------------------------------------------------


def test_who_knows_the_password_comes_in(store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        browser = Browser(running.url)
        page = browser.get("/login")
        assert page.status == 200
        assert b'<label for="password">Password</label>' in page.body
        assert not sees_calls(browser)
        for wrong in ("", "wrong", PASSWORD + "x", PASSWORD[:-1], PASSWORD.upper(), "\xe4\0", "x" * 9_000):
            refused = browser.log_in(wrong)
            assert (refused.status, browser.cookies) == (403, {}), wrong
            assert b"That is not the password." in refused.body
        answer = browser.log_in(PASSWORD, next=f"/calls/{ONE}?a=b")
        assert (answer.status, answer.headers["location"]) == (303, f"/calls/{ONE}?a=b")
        assert sees_calls(browser)
        assert browser.get("/login?next=/metrics").headers["location"] == "/metrics", "is in already"


def test_the_cookie_is_for_this_server_alone(store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        ((name, cookie),) = logged_in(running).cookies.items()
    assert name == f"session-{urlsplit(running.url).port}", "browsers show a cookie to all ports of a host"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (True, "Lax", "/", "")
    assert cookie["max-age"] == str(entrance.SESSION_S)


def test_a_session_known_before_the_login_is_none_after_it(store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        browser = Browser(running.url)
        planted = f"session-{urlsplit(running.url).port}={'0' * 32}.{'a' * 43}"
        assert browser.post("/login", {"password": PASSWORD}, Cookie=planted).status == 303
        first = session(browser)
        assert first not in planted
        assert browser.log_in(PASSWORD).status == 303
        assert session(browser) != first
        assert running.passes.look(first, Kind.SESSION) is None, "the one before has ended"


def test_who_logs_out_is_out_on_the_server_too(store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        mine, others = logged_in(running), logged_in(running)
        stolen = Browser(running.url, dict(mine.cookies))
        answer = mine.post("/logout")
        assert (answer.status, answer.headers["location"], mine.cookies) == (303, "/login", {})
        assert not sees_calls(mine)
        assert not sees_calls(stolen)
        assert sees_calls(others)


def test_a_session_holds_for_all_processes_and_restarts_until_one_ends_it(store: Store, tmp_path: Path) -> None:
    with serving(store, access=WITH_PASSWORD, folder=tmp_path / "access") as one:
        browser = logged_in(one)
    text = session(browser)
    with (
        serving(store, access=WITH_PASSWORD, folder=tmp_path / "access") as again,
        serving(store, access=WITH_PASSWORD, folder=tmp_path / "access") as other,
    ):
        assert [sees_calls(as_in(running, text)) for running in (again, other)] == [True, True]
        assert as_in(other, text).post("/logout").status == 303
        assert [sees_calls(as_in(running, text)) for running in (again, other)] == [False, False]


def as_in(running: Serving, text: str) -> Browser:
    """A browser that has this session's cookie for the server."""
    cookie: SimpleCookie = SimpleCookie({f"session-{urlsplit(running.url).port}": text})
    return Browser(running.url, dict(cookie))


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/%0d%0aSet-Cookie: a=b".replace("%0d%0a", "\r\n"),
        "/\t/evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "evil.example",
        "/a\\..\\..\\evil.example",
        "/caf\xe9",
        "/" + "a" * 3_000,
        "",
    ],
)
def test_one_is_led_to_no_other_place(elsewhere: str, store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        answer = Browser(running.url).log_in(PASSWORD, next=elsewhere)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        assert "a=b" not in answer.headers["set-cookie"]


def test_the_page_shows_what_it_was_given_as_text(store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        page = Browser(running.url).get("/login?next=%22%3E%3Cscript%3E")
    assert b"<script>" not in page.body


# --- The access link -------------------------------------------------------------------------------------------


def test_who_has_the_access_link_comes_in(store: Store) -> None:
    with serving(store, access=WITH_LINK) as running:
        browser = Browser(running.url)
        for wrong in (TOKEN[:-1], TOKEN + "x", "x", "\xe4".encode().hex(), "%00"):
            assert browser.get(f"/enter/{wrong}").status == 403
        assert browser.cookies == {}
        answer = browser.get(f"/enter/{TOKEN}")
        assert (answer.status, answer.headers["location"]) == (303, "/")
        assert sees_calls(browser)
        assert TOKEN not in session(browser)
        again = Browser(running.url)
        assert again.get(f"/enter/{TOKEN}?next=//evil.example").headers["location"] == "/"
        assert sees_calls(again), "it can be used more than once"
        assert sees_calls(logged_in(running, TOKEN)), "it can be typed, too"
        assert b"That is not the token." in Browser(running.url).log_in("wrong").body


def test_without_a_token_there_is_no_link_and_without_a_password_none_is_right(store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        assert Browser(running.url).get("/enter/None").status == 403
        assert Browser(running.url).get(f"/enter/{PASSWORD.replace(' ', '%20')}").status == 403
    with serving(store) as running:
        for nothing in ("", "None", "null"):
            assert Browser(running.url).log_in(nothing).status == 403


def test_a_link_is_made_at_each_start_unless_something_else_is_set() -> None:
    first, token = with_access_link({"PORT": "1"})
    again, other = with_access_link({"PORT": "1"})
    assert token is not None
    assert len(token) == 32
    assert token != other
    assert read(AccessSettings, first).token == token
    assert first == {"PORT": "1", "VIEWER_TOKEN": token}
    for environ in ({"VIEWER_PASSWORD": PASSWORD}, {"VIEWER_TOKEN": TOKEN}):
        assert with_access_link(environ) == (environ, None)
    assert PASSWORD not in repr(read(AccessSettings, {"VIEWER_PASSWORD": PASSWORD, "VIEWER_TOKEN": TOKEN}))
    assert again["VIEWER_TOKEN"] not in repr(read(AccessSettings, again))


# --- Trying passwords ------------------------------------------------------------------------------------------


def test_who_tries_passwords_has_to_wait_and_nobody_else(store: Store) -> None:
    both = AccessSettings(password=PASSWORD, token=TOKEN)
    with serving(store, access=both, trusted_proxies=1) as running:
        was_in = logged_in(running)
        guesser, owner = {"X_Forwarded_For": "192.0.2.1"}, {"X_Forwarded_For": "192.0.2.2"}

        def tried(password: str, whose: dict[str, str]) -> int:
            return Browser(running.url).post("/login", {"password": password}, **whose).status

        assert [tried(f"guess {number}", guesser) for number in range(10)] == [403] * 10
        refused = Browser(running.url).post("/login", {"password": PASSWORD}, **guesser)
        assert refused.status == 429
        assert 0 < int(refused.headers["retry-after"]) <= 300
        assert tried(PASSWORD, owner) == 303
        assert sees_calls(was_in)
        assert Browser(running.url).get(f"/enter/{TOKEN}", **guesser).status == 303, (
            "the access link is locked for nobody"
        )


def test_a_flood_from_everywhere_is_held_up_and_fills_no_memory(store: Store) -> None:
    both = AccessSettings(password=PASSWORD, token=TOKEN)
    with serving(store, access=both, trusted_proxies=1) as running:
        statuses = []
        for number in range(130):
            address = {"X_Forwarded_For": f"192.0.2.{number}"}
            statuses.append(Browser(running.url).post("/login", {"password": "guess"}, **address).status)
        assert statuses == [403] * 100 + [429] * 30
        browser = Browser(running.url)
        assert browser.get(f"/enter/{TOKEN}").status == 303
        assert sees_calls(browser)


def test_of_each_address_no_more_is_kept_than_tries_are_counted() -> None:
    tries = Tries()
    for number in range(1000):
        address = f"198.51.{number // 250}.{number % 250}"
        if not tries.wait_s(address):
            tries.failed(address)
    storage = tries._limiter.storage
    assert len(storage.storage) == 101  # type: ignore[attr-defined]
    assert len(storage.locks) <= 101  # type: ignore[attr-defined]


def test_who_has_one_address_of_a_network_has_them_all() -> None:
    assert household("2001:db8:1:2::1") == household("2001:db8:1:2:ffff::9") != household("2001:db8:1:3::1")
    assert household("::ffff:192.0.2.1") == household("192.0.2.1") != household("192.0.2.2")
    assert household("") == household("nonsense") == "unknown"


# --- Links to one call -----------------------------------------------------------------------------------------


def link_to(running: Serving, sid: str, **asked: int) -> str:
    """A new link's path."""
    body = "".join(f'{{"hours": {hours}}}' for hours in asked.values())
    answer = running.ask(f"/api/calls/{sid}/share", "POST", body)
    assert answer.status == 201, answer.body
    url: str = answer.document["url"]
    assert url.startswith(f"{running.url}/share/")
    return url.removeprefix(running.url)


def visitor_of(running: Serving, path: str) -> Browser:
    """A browser that has opened a link."""
    browser = Browser(running.url)
    answer = browser.get(path)
    assert (answer.status, answer.headers["location"]) == (303, f"/calls/{ONE}")
    return browser


def test_a_link_shows_one_call_and_nothing_else(store: Store) -> None:
    with serving(store) as running:
        kept(running, 1, 2)
        visitor = visitor_of(running, link_to(running, ONE))
        for form in ("txt", "json", "srt", "vtt"):
            assert visitor.get(f"/api/calls/{ONE}/transcript.{form}").status == 200
            assert visitor.get(f"/api/calls/{OTHER}/transcript.{form}").status == 403
        assert visitor.get(f"/api/calls/{ONE}").status == 200
        hidden = [
            "/api/calls",
            "/api/search?q=hello",
            f"/api/search?q=hello&call={ONE}",
            "/api/live",
            "/metrics",
            "/api/openapi.json",
        ]
        hidden += [f"/api/calls/{OTHER}", f"/api/live?call={OTHER}", "/api/calls/none"]
        assert [path for path in hidden if visitor.get(path).status != 403] == []
        ours = {"Origin": running.url}
        assert visitor.ask(f"/api/calls/{ONE}", "DELETE", None, dict(ours)).status == 403
        assert visitor.post(f"/api/calls/{ONE}/share").status == 403


def test_a_visitor_watches_the_call_until_the_link_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STILL_ALLOWED_EVERY", 0.05)
    with serving(store) as running:
        running.happens(call_info(1), begun())
        kept(running)
        path = link_to(running, ONE)
        visitor = visitor_of(running, path)
        feed = running.watch(ONE, cookie=cookie_header(visitor))
        running.happens(call_info(2), begun(), final("not for you"))
        running.happens(call_info(1), final("for you"))
        feed.wait_for_kind("segment.final")
        assert feed.texts() == ["for you"]
        running.passes.end(path.removeprefix("/share/").partition(".")[0])
        feed.wait_for(lambda: feed.over, ENDS_WITHIN)
        running.happens(call_info(1), final("too late", 5_000), ended())
        assert visitor.get(f"/api/calls/{ONE}").status == 401
        assert Browser(running.url).get(path).status == 403
        assert feed.texts() == ["for you"]
        assert running.live.viewers == 0


def cookie_header(browser: Browser) -> str:
    """Its cookies, as it sends them."""
    return "; ".join(f"{name}={cookie.value}" for name, cookie in browser.cookies.items())


def test_a_link_expires(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(store) as running:
        kept(running, 1)
        said = running.ask(f"/api/calls/{ONE}/share", "POST").document
        assert re.fullmatch(r"20..-..-..T..:..:.*Z", said["expires_at"])
        path = said["url"].removeprefix(running.url)
        found = running.passes.look(path.removeprefix("/share/"), Kind.SHARE)
        assert found is not None
        assert found.expires_at - found.created_at == 24 * 3600
        visitor = visitor_of(running, path)
        assert int(visitor.cookies.popitem()[1]["max-age"]) <= 24 * 3600
        visitor = visitor_of(running, path)
        monkeypatch.setattr(running.passes, "_now", lambda: time.time() + 24 * 3600)
        assert visitor.get(f"/api/calls/{ONE}").status == 401
        assert Browser(running.url).get(path).status == 403


def test_how_long_a_link_is_good_is_asked_for_within_bounds(store: Store) -> None:
    with serving(store) as running:
        kept(running, 1)
        for body, status in {
            '{"hours": 1}': 201,
            '{"hours": 720}': 201,
            "{}": 201,
            "": 201,
            '{"hours": 0}': 400,
            '{"hours": 721}': 400,
            '{"hours": -1}': 400,
            '{"hours": 1.5}': 400,
            '{"hours": true}': 400,
            '{"hours": "2"}': 400,
            '{"hours": null}': 400,
            '{"hours": 1e400}': 400,
            '{"days": 1}': 400,
            "[1]": 400,
            "hours=1": 400,
            "\xff": 400,
        }.items():
            assert running.ask(f"/api/calls/{ONE}/share", "POST", body.encode("latin-1")).status == status, body
        assert running.ask("/api/calls/CA5/share", "POST").status == 404
        assert running.ask(f"/api/calls/{ONE}%00/share", "POST").status == 404


def test_a_link_names_the_public_url_where_there_is_one(store: Store) -> None:
    with serving(store, public_url="https://calls.example.com") as running:
        kept(running, 1)
        url = running.ask(f"/api/calls/{ONE}/share", "POST").document["url"]
        assert url.startswith("https://calls.example.com/share/")


def test_the_owner_who_opens_a_link_goes_on_seeing_all_calls(store: Store) -> None:
    with serving(store, access=WITH_PASSWORD) as running:
        kept(running, 1, 2)
        owner = logged_in(running)
        mine = session(owner)
        assert owner.get(link_to(running, ONE)).headers["location"] == f"/calls/{ONE}"
        assert session(owner) == mine
        assert sees_calls(owner)


def test_a_visitor_who_leaves_takes_the_link_from_nobody(store: Store) -> None:
    with serving(store) as running:
        kept(running, 1, 2)
        path = link_to(running, ONE)
        one, other = visitor_of(running, path), visitor_of(running, path)
        assert one.post("/logout").status == 303
        assert one.cookies == {}
        assert other.get(f"/api/calls/{ONE}").status == 200
        newer = link_to(running, OTHER)
        assert other.get(newer).headers["location"] == f"/calls/{OTHER}"
        assert other.get(f"/api/calls/{OTHER}").status == 200


# --- Feeds that are open when a pass ends ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["logout", "ended elsewhere", "expired"])
def test_a_feed_ends_with_the_pass_that_opened_it(
    how: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STILL_ALLOWED_EVERY", 0.05)
    with serving(store, access=WITH_PASSWORD, folder=tmp_path / "access") as running:
        browser = logged_in(running)
        feed = running.watch(cookie=cookie_header(browser))
        other = running.watch()
        feed.wait_for(lambda: feed.retry_ms)
        if how == "logout":
            assert browser.post("/logout").status == 303
        elif how == "expired":
            day = entrance.SESSION_S
            lasts_longer = running.passes.issue(Kind.TOKEN, {Scope.READ}, for_s=2 * day)
            other = running.watch(token=lasts_longer)
            monkeypatch.setattr(running.passes, "_now", lambda: time.time() + day)
        else:
            Passes(tmp_path / "access").end(session(browser).partition(".")[0])
        feed.wait_for(lambda: feed.over, ENDS_WITHIN)
        running.happens(call_info(1), begun(), final("hello"), ended())
        other.wait_for_kind("segment.final")
        assert feed.told == []
        other.close()


# --- The database away; several processes; the program ---------------------------------------------------------


def test_people_log_in_while_the_database_is_away(postgresql: Server) -> None:
    store = Store(postgresql.new_database())
    store.open()
    with serving(store, access=WITH_PASSWORD) as running:
        before = logged_in(running)
        postgresql.stop()
        try:
            browser = Browser(running.url)
            assert browser.log_in(PASSWORD).status == 303
            for one in (before, browser):
                assert one.get("/api/calls").status == 503
                assert one.get("/api/openapi.json").status == 200
            assert before.post("/logout").status == 303
            assert before.get("/api/openapi.json").status == 401
            shared = running.ask(f"/api/calls/{ONE}/share", "POST")
            assert (shared.status, shared.headers["content-type"]) == (503, "application/problem+json")
            assert "retry-after" in shared.headers
        finally:
            postgresql.start()
        assert running.ask_as({}, "/api/calls").status == 401
    store.close(10)


def test_a_folder_that_cannot_be_written_is_said_and_lets_nobody_in(store: Store, tmp_path: Path) -> None:
    with serving(store, access=WITH_PASSWORD, folder=tmp_path / "access") as running:
        (tmp_path / "access" / "passes").rename(tmp_path / "access" / "gone")
        browser = Browser(running.url)
        assert browser.log_in(PASSWORD).status == 503
        assert not sees_calls(browser)


@pytest.mark.once
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_program_prints_a_link_that_leads_in(workers: str, tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0", WORKERS=workers) as server:
        url, token = server.line(r"See your calls at: (http://localhost:\d+)/enter/(\S+)$").groups()
        browser = Browser(url)
        for _ in range(6):  # by whichever worker
            assert browser.get(f"/enter/{token}").status == 303
            assert browser.get("/").status == 200
            assert browser.get("/", Cookie="").status == 303
        server.tell()
        assert server.end() == 0
    assert sum(token in line for line in server.out) == 1
    assert not any(token in line for line in server.err)
    with program(folder=tmp_path, PORT="0") as again:
        newer = again.line(r"/enter/(\S+)$")[1]
        assert newer != token


@pytest.mark.once
def test_what_has_expired_is_swept_away_at_the_start(tmp_path: Path) -> None:
    passes = Passes(tmp_path / "data" / "access")
    for seconds in (0, 60):
        passes.issue(Kind.TOKEN, {Scope.READ}, for_s=seconds)
    folder = tmp_path / "data" / "access" / "passes"
    assert len(list(folder.iterdir())) == 2
    with program(folder=tmp_path, PORT="0") as server:
        server.line("Server listening on")
        with gevent.Timeout(20):
            while len(list(folder.iterdir())) > 1:
                gevent.sleep(0.05)
    assert len(list(passes.all())) == 1


@pytest.mark.once
def test_with_a_password_the_program_prints_no_link(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0", VIEWER_PASSWORD=PASSWORD) as server:
        url = server.line(r"See your calls at: (http://localhost:\d+)/login$")[1]
        browser = Browser(url)
        assert browser.log_in(PASSWORD).status == 303
        assert browser.get("/").status == 200
        session_text = session(browser)
        issued = run(
            tmp_path, "token", "issue", "--scope", "metrics", "--scope", "delete", "--days", "1", "--name", "one"
        )
        (token,) = issued
        metrics = {"Authorization": f"Bearer {token}"}
        assert browser.ask("/metrics", "GET", None, dict(metrics)).status == 200
        assert browser.ask("/api/calls", "GET", None, dict(metrics)).status == 403
        listed = "\n".join(run(tmp_path, "token", "list"))
        assert token[:12] in listed
        assert token not in listed
        assert "metrics" in listed
        assert session_text[:12] in listed
        assert run(tmp_path, "token", "end", token[:12]) == ["1 ended."]
        assert browser.ask("/metrics", "GET", None, dict(metrics)).status == 401
        assert browser.get("/").status == 200
        assert run(tmp_path, "token", "end", "--all-sessions") == ["1 ended."]
        assert browser.get("/").headers["location"] == "/login?next=%2F"
        assert run(tmp_path, "token", "list") == ["There is no token. `python app.py token issue` makes one."]
        assert run(tmp_path, "token", "end", "--all-sessions") == ["0 ended."]
    assert not any(PASSWORD in line or token in line for line in [*server.out, *server.err])


def run(folder: Path, *arguments: str) -> list[str]:
    """The lines that a command prints."""
    with program(*arguments, folder=folder) as command:
        assert command.end() == 0, command
    return command.out


@pytest.mark.once
def test_a_command_that_is_wrong_is_told_what_to_do(tmp_path: Path) -> None:
    for arguments, said in (
        (("token", "end", "abc"), "there is nothing with the ID abc"),
        (("token", "end"), "Name an ID, or --all-sessions."),
        (("token", "issue", "--call", "CA5"), "No call was kept yet"),
        (("token", "issue", "--days", "0"), "0 is not in the range"),
    ):
        with program(*arguments, folder=tmp_path) as command:
            assert command.end() != 0
        assert said in " ".join(command.err), command


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("VIEWER_PASSWORD", "short", "VIEWER_PASSWORD should be 8 to 200 characters on one line."),
        ("VIEWER_PASSWORD", "x" * 201, "VIEWER_PASSWORD should be"),
        ("VIEWER_TOKEN", "x" * 19, "VIEWER_TOKEN should be 20 to 200 characters on one line."),
        (
            "VIEWER_TOKEN",
            "with a blank, and so no part of a link",
            "VIEWER_TOKEN should be 20 to 200 letters, digits, - and _.",
        ),
    ],
)
def test_a_secret_that_is_none_is_refused_without_repeating_it(variable: str, value: str, said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)) as raised:
        read(AccessSettings, {variable: value})
    assert value not in str(raised.value)

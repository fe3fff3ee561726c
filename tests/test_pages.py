"""Tests of what the page is made of: HTML, its headers, and files; what a browser makes of it is in tests/browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from typing import Final
from urllib.parse import quote

import gevent
import pytest

from relay.call import Switchboard
from relay.hub import Hub
from relay.listening import Listening
from relay.passes import Kind, Passes, Scope
from relay.settings import Settings
from relay.store.store import Store
from relay.web.pages import FOLDER, MEDIA_TYPES, pages
from relay.web.routes import create_app
from tests.serving import Answer, NoCall, Serving, begun, call_info, ended, final, serving

pytest_plugins = ("tests.databases", "tests.stores")

AS_A_BROWSER: Final = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
HOSTILE: Final = '"><script>alert(1)</script>'
SID: Final = call_info(1).call_sid
FILES: Final = sorted(path.name for path in FOLDER.iterdir())
SCRIPTS: Final = [name for name in FILES if name.endswith(".js")]


@pytest.fixture
def running(store: Store) -> Iterator[Serving]:
    """A server that has kept one call."""
    with serving(store) as started:
        started.happens(call_info(1), begun(caller=HOSTILE), final(HOSTILE), ended())
        settle(store)
        yield started


def settle(store: Store) -> None:
    """Returns when all that has happened is kept."""
    with gevent.Timeout(20):
        while store.waiting:
            gevent.sleep(0.005)


def guest(running: Serving) -> dict[str, str]:
    """What is sent by the browser of somebody who came by a link to the one call."""
    text = running.passes.issue(Kind.SHARE, {Scope.READ}, for_s=60, call_sid=SID)
    return AS_A_BROWSER | {"Cookie": f"session-{running.url.rpartition(':')[2]}={text}"}


def html(answer: Answer, status: int = 200) -> str:
    """The page that was answered."""
    assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.body
    return answer.body.decode()


# --- Pages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", f"/calls/{SID}"])
def test_a_page_holds_nothing_that_the_policy_would_keep_from_running(running: Serving, path: str) -> None:
    shown = html(running.ask(path, **AS_A_BROWSER))
    assert re.findall(r"<script(?! type=\"module\" src=\"/static/[a-z_]+\.js\"></script>)", shown) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", shown) == []


@pytest.mark.parametrize("path", ["/", f"/calls/{SID}", "/login"])
def test_a_page_refers_only_to_files_that_there_are(running: Serving, path: str) -> None:
    shown = html(running.ask(path, **AS_A_BROWSER))
    referred = re.findall(r'(?:src|href)="(/static/[^"]+)"', shown)
    assert "/static/style.css" in referred
    for address in referred:
        assert running.ask_as({}, address).status == 200, address


def test_nothing_that_was_said_or_sent_is_in_the_page_itself(running: Serving) -> None:
    for path in ("/", f"/calls/{SID}"):
        assert "alert(1)" not in html(running.ask(path, **AS_A_BROWSER))


def test_a_call_of_a_hostile_name_is_shown_by_it_as_text(running: Serving) -> None:
    sid = '"><img src=x onerror=alert(1)>'
    running.happens(replace(call_info(2), call_sid=sid), begun(), ended())
    settle(running.store)
    shown = html(running.ask(f"/calls/{quote(sid)}", **AS_A_BROWSER))
    assert f'data-call-sid="{escape(sid).replace("&quot;", "&#34;")}"' in shown
    assert "<img" not in shown


def test_a_call_that_there_is_not_has_no_page(running: Serving) -> None:
    assert "it may have been deleted" in html(running.ask("/calls/CA0", **AS_A_BROWSER), 404)
    assert running.ask("/calls/%00", **AS_A_BROWSER).status == 404


def test_who_came_for_one_call_sees_its_page_without_the_way_to_others(running: Serving) -> None:
    shown = html(running.ask_as(guest(running), f"/calls/{SID}"))
    assert f'data-call-sid="{SID}"' in shown
    for what in ('href="/"', 'action="/logout"', 'id="share"', 'id="delete"', 'id="search"'):
        assert what not in shown
        assert what in html(running.ask(f"/calls/{SID}", **AS_A_BROWSER)) or what == 'id="search"'


def test_who_came_for_one_call_is_led_back_to_it(running: Serving) -> None:
    for path in ("/", f"/calls/{call_info(7).call_sid}"):
        assert f'href="/calls/{SID}"' in html(running.ask_as(guest(running), path), 403)


def test_a_stranger_is_asked_to_log_in(running: Serving) -> None:
    for path in ("/", f"/calls/{SID}"):
        answer = running.ask_as(AS_A_BROWSER, path)
        assert (answer.status, answer.headers["location"][:12]) == (303, "/login?next=")


def test_what_is_wrong_is_said_as_a_page_to_people_and_as_a_problem_to_programs(running: Serving) -> None:
    assert "<h1>Nothing here</h1>" in html(running.ask_as(AS_A_BROWSER, "/nothing"), 404)
    assert running.ask("/api/nothing", **AS_A_BROWSER).headers["content-type"] == "application/problem+json"
    not_allowed = running.ask("/", "POST", **AS_A_BROWSER)
    assert (not_allowed.status, "GET" in not_allowed.headers["allow"]) == (405, True)


def test_a_header_that_the_answer_to_a_wrong_request_needs_is_kept(running: Serving) -> None:
    answer = running.ask("/demo-call", **AS_A_BROWSER)
    assert "POST" in answer.headers["allow"]
    assert "<h1>Not like this</h1>" in html(answer, 405)


def test_without_a_database_the_page_says_that_calls_are_not_kept(tmp_path: Path) -> None:
    passes, settings = Passes(tmp_path), Settings()
    switchboard = Switchboard(settings, Listening((), (), (), "nobody listens"), Hub())
    client = create_app(switchboard, pages(settings, passes, None), passes=passes).test_client()
    token = passes.issue(Kind.TOKEN, Scope, for_s=60)
    answer = client.get("/", headers=AS_A_BROWSER | {"Authorization": f"Bearer {token}"})
    assert "DATABASE_URL=none" in answer.text
    assert client.get(f"/calls/{SID}", headers={"Authorization": f"Bearer {token}"}).status_code == 404


# --- The first call -------------------------------------------------------------------------------------------------


def test_the_twiml_to_copy_has_the_public_address_and_the_stream_key(store: Store) -> None:
    with serving(store, public_url="https://calls.example") as running:
        shown = unescape(html(running.ask("/", **AS_A_BROWSER)))
        assert f'<Stream url="wss://calls.example/media/{running.passes.stream_key}" track="both_tracks"/>' in shown


def test_without_a_public_address_the_page_says_what_to_set(running: Serving) -> None:
    shown = html(running.ask("/", **AS_A_BROWSER))
    assert "PUBLIC_URL" in shown
    assert running.passes.stream_key not in shown


def test_why_there_is_no_demo_call_is_said_in_its_place(store: Store) -> None:
    class Never(NoCall):
        why_not = "pocketsphinx <is> not installed."

    with serving(store, demo=Never()) as running:
        shown = html(running.ask("/", **AS_A_BROWSER))
        assert escape(Never.why_not) in shown
        assert 'id="demo-call"' not in shown


# --- Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_open_to_all_and_asked_for_anew_only_when_it_has_changed(running: Serving, name: str) -> None:
    answer = running.ask_as({}, f"/static/{name}")
    assert answer.body == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].partition(";")[0] == MEDIA_TYPES[f".{name.rpartition('.')[2]}"]
    assert answer.headers["cache-control"] == "no-cache"
    again = running.ask_as({"If-None-Match": answer.headers["etag"]}, f"/static/{name}")
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["", "..%2fpages.py", "../pages.py", "%2e%2e/pages.py", "nothing.js", "a/style.css"])
def test_there_are_no_other_files(running: Serving, name: str) -> None:
    assert running.ask_as({}, f"/static/{name}").status == 404


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_imports_what_there_is_and_writes_no_html(name: str) -> None:
    text = (FOLDER / name).read_text()
    for imported in re.findall(r'from "([^"]*)"', text):
        assert imported.startswith("./")
        assert imported.removeprefix("./") in FILES
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)

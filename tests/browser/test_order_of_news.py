"""News that come in another order than they happened in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from playwright.sync_api import APIResponse, Route, expect

from tests.browser.calling import Call
from tests.browser.serving import Server
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers


@contextmanager
def nothing_can_be_kept(server: Server) -> Iterator[None]:
    """Somebody else writes to the database all the time."""
    with closing(sqlite3.connect(server.folder / "calls.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def test_the_next_words_stay_when_they_come_before_the_final(server: Server, speech: Speech, viewer: Viewer) -> None:
    """A final is told when it is kept, an interim at once."""
    call = Call(server.media_url)
    with call.stream():
        speech.seems_to_hear("inbound", "one")
        viewer.opens_call(call.sid)
        expect(viewer.interims).to_have_text(["one"])
        with nothing_can_be_kept(server):
            speech.hears("inbound", "One.")
            speech.seems_to_hear("inbound", "and two")
            expect(viewer.interims).to_have_text(["and two"])
        expect(viewer.finals).to_have_text(["One."])
        expect(viewer.interims).to_have_text(["and two"])


def test_a_call_that_ends_while_the_list_is_on_its_way_is_shown_as_ended(
    server: Server, speech: Speech, viewers: Viewers
) -> None:
    viewer, other, call = viewers.comes_in(), viewers.comes_in(), Call(server.media_url)
    held: list[tuple[Route, APIResponse]] = []
    with call.stream():
        expect(other.call(call.sid)).to_have_attribute("data-state", "live")
        viewer.page.route("**/api/calls?*", lambda route: held.append((route, route.fetch())))
        viewer.opens()
        expect(viewer.connection).to_have_text("Live")
        while not held:
            viewer.page.wait_for_timeout(10)
    expect(other.call(call.sid)).to_have_attribute("data-state", "ended")
    for route, answer in held:
        route.fulfill(response=answer)
    expect(viewer.call(call.sid)).to_have_attribute("data-state", "ended")

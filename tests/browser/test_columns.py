"""Where things stand beside each other."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Locator, expect

from standins.gladia import GladiaServer
from tests.browser.calling import Call
from tests.browser.kept import Kept, Missed, Said, keep
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer, Viewers

ABOUT: Final = 2.0  # pixels
HOUR_MS: Final = 3_600_000


def middle_of(shown: Locator) -> float:
    """Where its middle is, from left to right."""
    box = shown.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2


def height_of(shown: Locator) -> float:
    """How high it is."""
    box = shown.bounding_box()
    assert box is not None
    return box["height"]


def shown(viewer: Viewer) -> list[str]:
    """What was said and what happened, column by column."""
    return viewer.conversation.locator("article .text, [data-notice]").all_text_contents()


def outlast(call: dict[str, Any]) -> None:
    """Waits until more time has passed on its clock than it has audio, which may have come a little early."""
    heard_until = datetime.fromisoformat(call["started_at"]).timestamp() + call["duration_ms"] / 1000
    time.sleep(max(0.0, heard_until - time.time()) + 0.1)


def test_the_end_of_a_call_stands_across_the_columns_of_several_services(server: Server, viewer: Viewer) -> None:
    said = [
        Said("inbound", "Good morning.", at_ms, at_ms + 900, service)
        for at_ms in (1000, 30_000)
        for service in ("Deepgram", "Gladia")
    ]
    keep(server.database_url, Kept(f"CA{'2' * 32}", said, services=["Deepgram", "Gladia"]))
    viewer.opens_call(f"CA{'2' * 32}")
    expect(viewer.finals).to_have_count(4)
    ended = viewer.notice("call.ended")
    assert abs(middle_of(ended) - middle_of(viewer.conversation)) < ABOUT
    assert viewer.conversation.evaluate("one => one.innerText").strip().endswith("The call ended after 0:30.")


def test_a_gap_stands_in_the_column_of_the_service_that_has_it(server: Server, viewer: Viewer) -> None:
    both = [Said("inbound", "Good morning.", 1000, 1900, service) for service in ("Deepgram", "Gladia")]
    missed = [Missed("inbound", 2000, 3000, "Gladia was away", "Gladia"), Missed("inbound", 4000, 5000, "Nobody", "")]
    keep(server.database_url, Kept(f"CA{'4' * 32}", both, missed, services=["Deepgram", "Gladia"]))
    viewer.opens_call(f"CA{'4' * 32}")
    of_gladia, of_nobody = viewer.notice("gap").all()
    assert middle_of(of_gladia) > middle_of(viewer.conversation) + ABOUT
    assert abs(middle_of(of_nobody) - middle_of(viewer.conversation)) < ABOUT


def test_what_happens_live_stands_where_it_stands_later(tmp_path: Path, speech: Speech, browser: Browser) -> None:
    """Gladia will not have the call, which goes on in another stream."""
    with GladiaServer(ear=speech.ear, key="another") as gladia:
        both = {"SPEECH_SERVICES": "deepgram,gladia", "GLADIA_URL": gladia.url, "GLADIA_API_KEY": "key"}
        with serving(tmp_path, **speech.settings, **both) as server, Viewers(browser, server) as viewers:
            viewer, call = viewers.comes_in(), Call(server.media_url)
            with call.stream():
                viewer.opens_call(call.sid)
                expect(viewer.page.locator('[data-service="Gladia"][data-state="refused"]')).to_be_visible()
                speech.hears("inbound", "Before.")
                expect(viewer.finals).to_have_text(["Before."])
            expect(viewer.notice("gap")).to_have_count(2)
            for of_gladia in (viewer.notice("error"), *viewer.notice("gap").all()):
                assert middle_of(of_gladia) > middle_of(viewer.conversation) + ABOUT
            speech.forget()
            expect(viewer.connection).to_have_text("Call ended")
            outlast(viewer.asks(f"/api/calls/{call.sid}"))
            with call.stream():
                expect(viewer.notice("gap")).to_have_count(4)
                for of_all in (viewer.notice("call.resumed"), *viewer.notice("gap").filter(has_text="no stream").all()):
                    assert abs(middle_of(of_all) - middle_of(viewer.conversation)) < ABOUT
                speech.hears("inbound", "After.")
                expect(viewer.finals).to_have_text(["Before.", "After."])
            expect(viewer.notice("call.ended")).to_have_count(2)
            stood = shown(viewer)
            viewer.opens_call(call.sid)
            assert shown(viewer) == stood


def test_a_time_after_the_first_hour_stands_on_one_line(server: Server, viewer: Viewer) -> None:
    said = [Said("inbound", "Early.", 1000, 2000), Said("inbound", "Late.", 2 * HOUR_MS, 2 * HOUR_MS + 1000)]
    keep(server.database_url, Kept(f"CA{'3' * 32}", said))
    viewer.opens_call(f"CA{'3' * 32}")
    times = viewer.conversation.locator("a.time")
    expect(times).to_have_text(["0:01", "2:00:00"])
    assert height_of(times.last) == height_of(times.first)

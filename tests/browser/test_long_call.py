"""A call of three hours and 5,000 segments is no more work to scroll and to update than a short one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.calling import Call
from tests.browser.kept import keep, long_call
from tests.browser.measuring import COUNT_NODES, Work, frame_times, weight, work
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import Viewer

LONG: Final = f"CA{'a' * 32}"
SHORT: Final = f"CA{'b' * 32}"
SEGMENTS: Final = 5000
UPDATES: Final = 20
HEAP_MOST: Final = 80_000_000  # bytes
NODES_EACH: Final = 25  # of a segment
NODES_OF_UPDATE: Final = 60  # that come or go when somebody says something


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server with a long call and a short one."""
    with serving(tmp_path_factory.mktemp("server"), **speech.settings) as started:
        keep(
            started.database_url,
            long_call(LONG, segments=SEGMENTS),
            long_call(SHORT, segments=50, length_ms=3 * 3600 * 10),
        )
        yield started


def updates(viewer: Viewer, speech: Speech, *, prefix: str) -> None:
    """Somebody talks, as people do: words grow, and become final."""
    for number in range(UPDATES):
        text = f"{prefix} {number}"
        speech.seems_to_hear("inbound", text)
        expect(viewer.interims).to_have_text([text])
        speech.hears("inbound", f"{text}.")
        expect(viewer.interims).to_have_count(0)


def work_of_updates(browser: Browser, server: Server, speech: Speech, viewer: Viewer, sid: str) -> Work:
    """What twenty utterances on a call that was resumed are for the browser."""
    speech.forget()
    call = Call(server.media_url, sid=sid)
    with call.stream():
        viewer.opens_call(sid)
        expect(viewer.connection).to_have_text("Live")
        updates(viewer, speech, prefix="before")  # so that all scripts are compiled
        viewer.page.evaluate(COUNT_NODES)
        done = work(browser, viewer.page, lambda: updates(viewer, speech, prefix="measured"))
        changed = viewer.page.evaluate("() => window.changedNodes")
    assert changed <= UPDATES * 2 * NODES_OF_UPDATE, f"{changed} nodes came and went"
    print(f"{sid[:3]}: {done}, {changed} nodes came and went in {UPDATES} utterances")
    return done


def test_an_update_of_a_long_call_is_as_little_work_as_of_a_short_one(
    browser: Browser, server: Server, speech: Speech, viewer: Viewer
) -> None:
    short = work_of_updates(browser, server, speech, viewer, SHORT)
    long = work_of_updates(browser, server, speech, viewer, LONG)
    for few, many in ((short.styled, long.styled), (short.laid_out, long.laid_out)):
        assert many < 3 * few + 10 * UPDATES, f"{short} became {long}"


def test_all_of_a_long_call_can_be_read(viewer: Viewer) -> None:
    viewer.opens_call(LONG)
    page = viewer.page
    at_first = weight(page)
    assert at_first.nodes < SEGMENTS * NODES_EACH
    assert at_first.heap_bytes < HEAP_MOST
    times = frame_times(page, steps=200, by=4000)
    times += frame_times(page, steps=200, by=-4000)
    after = weight(page)
    print(f"{at_first}, after scrolling {after}; frames: {sorted(times)[len(times) // 2]:.1f} ms, {max(times):.1f} ms")
    assert after.heap_bytes < HEAP_MOST
    assert after.nodes < SEGMENTS * NODES_EACH
    expect(viewer.conversation.get_by_text("Sentence number 0 of")).to_be_visible()
    page.keyboard.press("End")
    expect(viewer.finals.last).to_be_in_viewport()


def test_only_what_is_near_is_laid_out_anew(browser: Browser, viewer: Viewer) -> None:
    """As when a phone is turned."""
    viewer.opens_call(LONG)
    turned = work(browser, viewer.page, lambda: turn(viewer))
    print(f"turned: {turned}")
    assert 0 < turned.within_reach < SEGMENTS


def turn(viewer: Viewer) -> None:
    """Gives the window another width, and waits for a frame in it."""
    viewer.page.set_viewport_size({"width": 800, "height": 1280})
    viewer.page.wait_for_function("() => innerWidth === 800")
    viewer.page.evaluate("() => new Promise((shown) => requestAnimationFrame(() => setTimeout(shown)))")


def test_a_second_in_the_middle_of_a_long_call_is_found_at_once(viewer: Viewer) -> None:
    viewer.opens_call(LONG, "#t=5400.5")
    current = viewer.conversation.locator("article[aria-current='true']")
    expect(current).to_contain_text("Sentence number 2500 of")
    expect(current).to_be_in_viewport()
    viewer.page.evaluate("() => { location.hash = 't=10000'; }")
    expect(current).to_contain_text("Sentence number 4629 of")
    expect(current).to_be_in_viewport()


def test_the_browsers_own_search_finds_all_of_it(viewer: Viewer) -> None:
    """As Ctrl-F does, which looks for what is in the document."""
    viewer.opens_call(LONG)
    found = viewer.page.evaluate("() => window.find('Sentence number 4321 of')")
    assert found

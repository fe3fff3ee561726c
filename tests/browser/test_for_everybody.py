"""The page for people who see, hear or move otherwise than its makers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import expect

from tests.browser.axe import obstacles
from tests.browser.calling import Call
from tests.browser.kept import Kept, Missed, Replaced, Said, keep, sample_call
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech
from tests.browser.viewing import DESK, PHONE, Viewer, Viewers

RECORDED: Final = f"CA{'1' * 32}"
EVENTFUL: Final = f"CA{'2' * 32}"
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"viewport": DESK, "color_scheme": "light"},
    "dark": {"viewport": DESK, "color_scheme": "dark"},
    "phone": {**PHONE, "color_scheme": "dark"},
    "more contrast": {"viewport": DESK, "contrast": "more"},
    "forced colours": {"viewport": DESK, "forced_colors": "active", "color_scheme": "dark"},
}

HAS_OUTLINE: Final = """(one) => [one, ...one.querySelectorAll("*")].some(
  (each) => getComputedStyle(each).outlineStyle !== "none"
)"""


def eventful_call() -> Kept:
    """Two services beside one another, doubtful words, a gap, a change of service."""
    said = [
        Said(track, f"{text} {service}", start_ms, start_ms + 900, service=service, confidence=confidence)
        for service in ("Deepgram", "Gladia")
        for track, text, start_ms, confidence in (
            ("inbound", "Sure words heard by", 1000, 0.99),
            ("outbound", "Less sure words heard by", 2000, 0.7),
            ("inbound", "Hardly understood words heard by", 3000, 0.3),
        )
    ]
    return Kept(
        EVENTFUL,
        said,
        missed=[Missed("inbound", 4000, 9000)],
        replaced=[Replaced("Gladia", "AssemblyAI", "Gladia's connection broke.", 9000)],
        services=["Deepgram", "Gladia"],
        duration_ms=12_000,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """A server with two calls that were kept."""
    with serving(tmp_path_factory.mktemp("server"), **speech.settings) as started:
        keep(started.database_url, sample_call(RECORDED, recording=str(started.sample_recording())), eventful_call())
        yield started


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_is_in_the_way(server: Server, speech: Speech, viewers: Viewers, look: str) -> None:
    viewer = viewers.comes_in(**LOOKS[look])
    found = {"calls": calls(viewer), "login": login(viewers, look), "call": recorded_call(viewer)}
    found |= {"eventful": eventful(viewer), "live": live_call(server, speech, viewer), "found": places(viewer)}
    assert {where: what for where, what in found.items() if what} == {}


def calls(viewer: Viewer) -> list[str]:
    expect(viewer.call(RECORDED)).to_be_visible()
    return obstacles(viewer.page)


def login(viewers: Viewers, look: str) -> list[str]:
    stranger = viewers.stranger(**LOOKS[look])
    stranger.opens("/")
    expect(stranger.page.get_by_role("heading", name="Log in")).to_be_visible()
    return obstacles(stranger.page)


def recorded_call(viewer: Viewer) -> list[str]:
    viewer.opens_call(RECORDED, "#t=25")
    expect(viewer.page.get_by_role("region", name="Recording")).to_be_visible()
    found = obstacles(viewer.page)
    for name, title in (("Share", "Share this call"), ("Delete", "Delete this call")):
        viewer.page.get_by_role("button", name=name).click()
        expect(viewer.page.get_by_role("dialog", name=title)).to_be_visible()
        found += obstacles(viewer.page)
        viewer.page.keyboard.press("Escape")
    return found


def eventful(viewer: Viewer) -> list[str]:
    viewer.opens_call(EVENTFUL)
    expect(viewer.notice("gap")).to_be_visible()
    return obstacles(viewer.page)


def live_call(server: Server, speech: Speech, viewer: Viewer) -> list[str]:
    call = Call(server.media_url)
    speech.forget()
    with call.stream():
        viewer.opens_call(call.sid)
        speech.hears("inbound", "This is for good.", confidence=0.6)
        speech.seems_to_hear("outbound", "this is not")
        expect(viewer.interims).to_have_text(["this is not"])
        return obstacles(viewer.page)


def places(viewer: Viewer) -> list[str]:
    viewer.opens("/")
    viewer.page.get_by_role("searchbox", name="Search what was said").fill("park")
    viewer.page.keyboard.press("Enter")
    expect(viewer.page.get_by_role("region", name="Found").locator("mark").first).to_be_visible()
    return obstacles(viewer.page)


def test_several_services_are_shown_side_by_side(viewers: Viewers) -> None:
    viewer = viewers.comes_in()
    viewer.opens_call(EVENTFUL)
    for service in ("Deepgram", "Gladia"):
        column = viewer.conversation.get_by_role("group", name=service)
        expect(column.first).to_be_visible()
        expect(column.locator("article[data-id] .text")).to_have_count(3)
        for text in column.locator("article[data-id] .text").all_text_contents():
            assert text.endswith(service)
    left = viewer.conversation.get_by_role("group", name="Deepgram").first.bounding_box()
    right = viewer.conversation.get_by_role("group", name="Gladia").first.bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"], "they are not side by side"


def test_doubtful_words_are_told_otherwise_than_by_shade_alone(viewer: Viewer) -> None:
    viewer.opens_call(EVENTFUL)
    article = viewer.conversation.locator("article").filter(has_text="Hardly understood").first
    expect(article.locator(".very-unsure").first).to_be_visible()
    expect(article.locator(".uncertain")).to_contain_text("Hardly")
    sure = viewer.conversation.locator("article").filter(has_text="Sure words").first
    expect(sure.locator(".unsure, .very-unsure")).to_have_count(0)


def test_forced_colours_leave_nothing_that_only_a_background_tells(viewers: Viewers) -> None:
    viewer = viewers.comes_in(**LOOKS["forced colours"])
    viewer.opens_call(EVENTFUL, "#t=3")
    line_of = "(one) => [getComputedStyle(one).textDecorationLine, getComputedStyle(one).borderBottomStyle]"
    assert viewer.conversation.locator(".very-unsure").first.evaluate(line_of) != ["none", "none"]
    current = viewer.conversation.locator("article[aria-current='true']").first
    assert current.evaluate(HAS_OUTLINE), "the second that was linked to looks like any other"


def test_who_wants_no_motion_gets_none(server: Server, speech: Speech, viewers: Viewers) -> None:
    viewer = viewers.comes_in(reduced_motion="reduce")
    call = Call(server.media_url)
    speech.forget()
    with call.stream():
        viewer.opens_call(call.sid)
        speech.seems_to_hear("inbound", "is anything moving")
        expect(viewer.interims).to_have_count(1)
        moving = viewer.page.evaluate(
            "() => document.getAnimations().filter((one) => one.effect.getComputedTiming().duration > 1).length"
        )
        assert moving == 0
        assert viewer.page.evaluate("() => getComputedStyle(document.documentElement).scrollBehavior") == "auto"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_has_to_be_scrolled_sideways(viewers: Viewers, width: int) -> None:
    viewer = viewers.comes_in(viewport={"width": width, "height": 700})
    for path in ("/", f"/calls/{RECORDED}", f"/calls/{EVENTFUL}"):
        viewer.opens(path)
        expect(viewer.page.get_by_role("article").first).to_be_visible()
        wide = viewer.page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} wide in a window of {width}"


def test_letters_twice_as_large_are_no_trouble(viewers: Viewers) -> None:
    """WCAG 1.4.4; by the root's font size, as a browser's own setting does it."""
    viewer = viewers.comes_in(**PHONE)
    viewer.opens_call(RECORDED)
    expect(viewer.page.get_by_role("region", name="Recording")).to_be_visible()
    viewer.page.evaluate("() => { document.documentElement.style.fontSize = '200%'; }")
    wide, window = viewer.page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window

"""Whatever is said on a call, or said to be: on the page it is text, and nothing but text."""

from __future__ import annotations

from typing import Any, Final

import pytest
from playwright.sync_api import expect

from tests.browser.calling import Call
from tests.browser.kept import Kept, Missed, Replaced, Said, keep
from tests.browser.serving import Server
from tests.browser.speech import Speech
from tests.browser.viewing import DESK, PHONE, Viewer, Viewers

HOSTILE: Final = {
    "script": "<script>window.isHacked = true;</script>",
    "img": "<img src=x onerror=window.isHacked=true>",
    "svg": "\"><svg/onload=window.isHacked=true>'`${window.isHacked=true}`{{7*7}}",
    "link": "javascript:window.isHacked=true https://example.org/ &lt;b&gt; &#x0; &amp;",
    "right-to-left": "שלום \u202eevil\u202c and \u2067\u202dthe rest\u2066 שוב \u200f(a)[b]",
    "unclosed": "\u202e\u2066\u2067\u2068 nobody closes these",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 e\u0301\u0323\u0324" + "\u0301" * 200,
    "controls": "bell\x07 escape\x1b[31m backspace\x08\x08 tab\x0b line\u2028separator\ufeff\ufffe\u200b\u00ad end",
    "one long word": "w" * 10_000,
    "long": "ten thousand characters " * 417,
    "wide": "﷽" * 200,
}


def sizes(viewer: Viewer) -> tuple[int, int]:
    """How wide the page is, and the window."""
    wide: list[int] = viewer.page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    return wide[0], wide[1]


def is_inert(viewer: Viewer) -> None:
    """Nothing of it ran, nothing of it became an element, and nothing has to be scrolled sideways."""
    assert not viewer.page.evaluate("() => Boolean(window.isHacked)")
    inside = "script, img, svg, iframe, a[href^='javascript'], a[href*='example.org'], b"
    assert (
        viewer.page.locator("main")
        .locator(inside)
        .evaluate_all("(all) => all.filter((one) => !one.closest('button')).map((one) => one.outerHTML)")
        == []
    ), "something that was said became an element"
    wide, window = sizes(viewer)
    assert wide <= window, f"{wide} wide in a window of {window}"


@pytest.mark.parametrize("how", [{"viewport": DESK}, PHONE], ids=["desk", "phone"])
def test_hostile_words_come_live_as_text(server: Server, speech: Speech, viewers: Viewers, how: dict[str, Any]) -> None:
    viewer = viewers.comes_in(**how)
    call = Call(server.media_url, **{"from": HOSTILE["script"], "to": HOSTILE["right-to-left"]})
    with call.stream():
        viewer.opens_call(call.sid)
        for number, text in enumerate(HOSTILE.values(), 1):
            track = ("inbound", "outbound")[number % 2]
            speech.seems_to_hear(track, text)
            expect(viewer.interims.first).to_be_visible()
            speech.hears(track, text)
            expect(viewer.finals).to_have_count(number)
        is_inert(viewer)
    assert viewer.said == viewer.kept(call.sid)
    viewer.opens_call(call.sid)  # anew, as it was kept
    assert viewer.said == viewer.kept(call.sid)
    is_inert(viewer)
    viewer.opens("/")
    expect(viewer.call(call.sid)).to_be_visible()
    is_inert(viewer)


def test_hostile_names_and_reasons_are_text_too(server: Server, viewers: Viewers) -> None:
    viewer = viewers.comes_in(**PHONE)
    bad = HOSTILE["img"]
    call = Kept(
        f"CA{'6' * 32}",
        [Said("inbound", f"a harmless word {bad}", 0, 900, service=bad), Said("outbound", "another", 1000, 2000)],
        missed=[Missed("inbound", 2000, 3000, HOSTILE["script"])],
        replaced=[Replaced(bad, "w" * 500, HOSTILE["one long word"][:1000], 2000)],
        services=[bad],
        caller=bad,
        called="w" * 64,
    )
    keep(server.database_url, call)
    viewer.opens_call(call.sid)
    expect(viewer.notice("gap")).to_contain_text(HOSTILE["script"])
    is_inert(viewer)
    viewer.opens("/")
    expect(viewer.call(call.sid)).to_be_visible()
    viewer.page.get_by_role("searchbox", name="Search what was said").fill("harmless")
    viewer.page.get_by_role("button", name="Search", exact=True).click()
    expect(viewer.page.get_by_role("region", name="Found").locator("mark")).to_have_text(["harmless"])
    is_inert(viewer)


def test_a_sid_made_up_by_somebody_is_no_more_than_a_name(server: Server, viewer: Viewer) -> None:
    for sid in ("<img src=x onerror=window.isHacked=true>", "../../x", "%2e%2e%2f", "a'\"b", "CA" + "x" * 200):
        viewer.may_lose_network = True  # a 404 is told on the console
        viewer.page.goto(f"{viewer.url}/calls/{sid}")
        is_inert(viewer)

"""Somebody who looks at the page: a browser of their own, and what they see there."""

from __future__ import annotations

import time
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Locator, expect

from tests.browser.serving import PATIENCE, Server

WATCHING: Final = Path(__file__).with_name("watching.js")
DESK: Final = {"width": 1280, "height": 800}
PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
NETWORK_TROUBLE: Final = "Failed to load resource"
ANOTHER_LOOK_MS: Final = 20.0

# A shift is noted when a frame is painted, and told later: once two have begun, all of the first is noted.
SHIFT: Final = """async () => {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
  window.noticed.take();
  return window.noticed.shift;
}"""


class Viewer:
    """One page in a browser that shares nothing with others."""

    def __init__(self, context: BrowserContext, server: Server, url: str) -> None:
        self.context = context
        self.server = server
        self.url = url
        self.troubles: list[str] = []
        self.may_lose_network = False
        context.add_init_script(path=WATCHING)
        self.page = context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))

    def comes_in(self) -> None:
        """Opens the access link."""
        self.page.goto(self.url + self.server.access_path)

    def opens(self, path: str = "/") -> None:
        """Goes to a page of ours."""
        self.page.goto(self.url + path)

    def opens_call(self, sid: str, fragment: str = "") -> None:
        """Goes to a call's page, once it is kept, and waits for what was said on it."""
        deadline = time.monotonic() + PATIENCE
        while self.context.request.get(f"{self.url}/api/calls/{sid}").status == HTTPStatus.NOT_FOUND:
            assert time.monotonic() < deadline, f"there is no call {sid}"
            self.page.wait_for_timeout(ANOTHER_LOOK_MS)
        self.opens(f"/calls/{sid}{fragment}")
        expect(self.conversation).to_have_attribute("data-ready", "true")

    # --- What is shown ---

    @property
    def connection(self) -> Locator:
        """How the page stands with the server."""
        return self.page.get_by_role("status", name="Connection")

    @property
    def conversation(self) -> Locator:
        """What was said on a call, on its page."""
        return self.page.get_by_role("log", name="Conversation")

    @property
    def finals(self) -> Locator:
        """The texts of what was said for good."""
        return self.conversation.locator("article[data-id] .text")

    @property
    def interims(self) -> Locator:
        """The texts of what somebody seems to be saying."""
        return self.conversation.locator("article[data-interim] .text")

    @property
    def said(self) -> list[str]:
        """What was said for good, as the page shows it."""
        return self.finals.all_text_contents()

    def notice(self, kind: str) -> Locator:
        """What is told between the lines."""
        return self.conversation.locator(f'[data-notice="{kind}"]')

    def call(self, sid: str) -> Locator:
        """A call in the list of calls."""
        return self.page.locator(f'article[data-call-sid="{sid}"]')

    # --- What is asked beside the page ---

    def asks(self, path: str) -> Any:
        """What the API says to this viewer."""
        answer = self.context.request.get(self.url + path)
        assert answer.ok, f"{path}: {answer.status} {answer.text()}"
        return answer.json()

    def kept(self, sid: str) -> list[str]:
        """What was said on a call for good, as the API has it."""
        return [segment["text"] for segment in self.asks(f"/api/calls/{sid}/transcript.json")["segments"]]

    def waits_until_kept(self, sid: str, texts: list[str]) -> None:
        """Returns when the API has these as what was said on a call for good."""
        deadline = time.monotonic() + PATIENCE
        while (kept := self.kept(sid)) != texts:
            assert time.monotonic() < deadline, f"kept are {kept}"
            self.page.wait_for_timeout(ANOTHER_LOOK_MS)

    @property
    def layout_shift(self) -> float:
        """By how much things jumped that nobody had touched, up to what is shown now (https://web.dev/articles/cls)."""
        shift: float = self.page.evaluate(SHIFT)
        return shift

    def leave(self) -> list[str]:
        """Closes the browser; gives what went wrong in it."""
        try:
            self.troubles += self.page.evaluate("() => window.noticed.violations")
        except Error:
            self.troubles.append("the page did not answer at the end")
        self.context.close()
        return self.troubles

    def _note(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        if not (self.may_lose_network and message.text.startswith(NETWORK_TROUBLE)):
            self.troubles.append(f"{message.type}: {message.text} {message.location['url']}")


class Viewers:
    """Makes viewers, and looks after them all at the end."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self._browser = browser
        self._server = server
        self._made: list[Viewer] = []

    def stranger(self, *, url: str | None = None, **how: Any) -> Viewer:
        """Somebody who has not come in."""
        context = self._browser.new_context(**{"viewport": DESK, "locale": "en-GB", "timezone_id": "UTC", **how})
        viewer = Viewer(context, self._server, url or self._server.url)
        self._made.append(viewer)
        return viewer

    def comes_in(self, *, url: str | None = None, **how: Any) -> Viewer:
        """Somebody who came by the access link."""
        viewer = self.stranger(url=url, **how)
        viewer.comes_in()
        return viewer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        troubles = [trouble for viewer in self._made for trouble in viewer.leave()]
        assert troubles == [] or error is not None, "\n".join(troubles)

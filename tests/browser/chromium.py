"""The system's browser, driven by Playwright, which brings none of its own here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, expect, sync_playwright

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
INSTALL: Final = "These tests need the browser Chromium: sudo apt-get install chromium"
SHOWN_WITHIN: Final = 45.0  # seconds for anything a page shows: it may wait for 30 before it tries again


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window, until the end of the block."""
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert path is not None, INSTALL
    expect.set_options(timeout=SHOWN_WITHIN * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            chromium_sandbox=os.geteuid() != 0,  # as root it has none
        )
        yield browser
        browser.close()

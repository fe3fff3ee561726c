"""A browser, a server and a speech service for each file of tests.

Playwright and gevent both want to be the one who switches greenlets, so these tests run in processes that gevent has
not patched: without tests/conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gevent.monkey import is_module_patched
from playwright.sync_api import Browser

from tests.browser.chromium import chromium
from tests.browser.serving import Server, serving
from tests.browser.speech import Speech, speech_service
from tests.browser.viewing import Viewer, Viewers

if is_module_patched("socket"):
    raise pytest.UsageError("Without gevent's patches, please: pytest --confcutdir=tests/browser tests/browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's browser."""
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def speech() -> Iterator[Speech]:
    """The service that listens to the server's calls."""
    with speech_service() as service:
        yield service
        assert service.server.violations == []


@pytest.fixture(autouse=True)
def nothing_was_said(speech: Speech) -> None:
    """What a test says is said on a call of its own: the end of an earlier one may not have come to the service yet."""
    speech.forget()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> Iterator[Server]:
    """The program, and nothing in its database."""
    with serving(tmp_path_factory.mktemp("server"), **speech.settings) as started:
        yield started


@pytest.fixture
def viewers(browser: Browser, server: Server) -> Iterator[Viewers]:
    """Makes people who look at the page. At the end nothing may have gone wrong in any of their browsers."""
    with Viewers(browser, server) as made:
        yield made


@pytest.fixture
def viewer(viewers: Viewers) -> Viewer:
    """Somebody at a desk who came by the access link."""
    return viewers.comes_in()

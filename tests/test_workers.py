"""Looking after workers: those that cannot start are not started again, and nobody is left behind at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from typing import Any, Final

import gevent
import pytest
from gevent.event import Event

from relay.errors import SettingsError
from relay.settings import Settings
from relay.web.server import allow_many_files, reached_by, shared_listener
from relay.web.workers import Workers, reserved, run_workers

STAYS: Final = [sys.executable, "-c", "import time; time.sleep(60)"]  # until it is told to leave
FAILS: Final = [sys.executable, "-c", "raise SystemExit(1)"]
WITHIN: Final = 30.0  # seconds

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes share a port on Linux only")


@on_linux
def test_workers_that_cannot_start_are_not_started_again_and_again() -> None:
    announced: list[int] = []
    with gevent.Timeout(WITHIN), pytest.raises(SettingsError, match="No worker could start"):
        run_workers(Settings(port=0, workers=2), FAILS, dict(os.environ), announced.append)
    assert not announced


@on_linux
def test_several_workers_share_an_address_of_ipv6_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    settings = Settings(host="::1", port=0, workers=2)
    with reserved(settings) as one, shared_listener(replace(settings, port=one.getsockname()[1])) as other:
        assert one.getsockname()[:2] == other.getsockname()[:2]
    assert reached_by(settings) == "[::1]"


@on_linux
def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        allow_many_files()
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised[0] > 512
        allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no several workers on Windows")
def test_a_worker_that_is_just_being_started_is_told_to_leave_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process lets others have their turn, and so a signal may come in the middle of it."""
    in_the_middle, goes_on = Event(), Event()

    class SlowlyStarted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            in_the_middle.set()
            goes_on.wait()

    monkeypatch.setattr(subprocess, "Popen", SlowlyStarted)
    workers = Workers(STAYS, dict(os.environ), 1)
    try:
        assert in_the_middle.wait(WITHIN)
        workers.tell(signal.SIGTERM)
        goes_on.set()
        with gevent.Timeout(WITHIN):
            workers.wait()
    finally:
        workers.tell(signal.SIGKILL)

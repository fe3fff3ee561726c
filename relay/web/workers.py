"""Several processes that serve one port, since one Python uses one core; and the one that looks after them.

Each worker listens by itself with SO_REUSEPORT: the kernel then deals connections out by chance. Of 200 calls on 4
workers each got 41 to 58; with one listener that all share, whoever is awake takes more, and they got 3 to 134.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import gevent

from relay.errors import SettingsError
from relay.settings import Settings
from relay.web.neighbours import Lines
from relay.web.server import family, shared_listener, why_not

log = logging.getLogger(__name__)

READY_WITHIN: Final = 10.0  # seconds the first worker has to listen
LOOK_EVERY: Final = 0.05  # seconds between two tries to reach it
RESTART_AFTER: Final = 1.0  # seconds from a worker's death to its successor's start, should it die at once again
STEADY_AFTER: Final = 10.0  # seconds after which a death is taken for an accident


class Workers:
    """Keeps so many workers running until it is told to leave, and then waits for their calls."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], count: int) -> None:
        self._command = command
        self._environ = environ
        self.leaving = False
        self.has_begun = False  # somebody is told that we listen
        self.has_failed = False  # before that
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lines = Lines(count)
        self._keepers = [gevent.spawn(self._keep, place) for place in range(count)]

    def tell(self, number: int) -> None:
        """Passes a signal on. The first one ends the keeping, too."""
        self.leaving = True
        for worker in self._running:
            worker.send_signal(number)

    def wait(self) -> None:
        """Until every worker has left."""
        gevent.joinall(self._keepers)
        self._lines.close()

    def _keep(self, place: int) -> None:
        lines = self._lines.of(place)
        while not self.leaving:
            started = monotonic()
            worker = subprocess.Popen(  # noqa: S603  # our own program again
                [*self._command, str(place), *map(str, lines)],
                pass_fds=lines,
                env=self._environ,
                stdin=subprocess.PIPE,  # which ends when we do, however that happens
                start_new_session=True,  # so that Ctrl-C reaches it only through us
            )
            self._running.add(worker)
            if self.leaving:  # all were told while this one was being started
                worker.terminate()
            status = worker.wait()
            self._running.discard(worker)
            if self.leaving:
                return
            if not self.has_begun:  # what keeps one from starting, and it has said what, would keep its successor, too
                self.has_failed = True
                self.tell(signal.SIGTERM)
                return
            log.error("a worker ended with status %d and is replaced", status)
            if monotonic() - started < STEADY_AFTER:
                gevent.sleep(RESTART_AFTER)


def run_workers(
    settings: Settings, command: Sequence[str], environ: dict[str, str], announce: Callable[[int], None]
) -> None:
    """Serves with several workers until SIGINT or SIGTERM, then until their calls are over, or a second signal.

    Raises SettingsError if they cannot start.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise SettingsError("WORKERS should be 1 here: this system does not let processes share a port.")
    with reserved(settings) as reservation:
        port = reservation.getsockname()[1]
        workers = Workers(command, environ | {"PORT": str(port), "WORKERS": str(settings.workers)}, settings.workers)
        watchers = [gevent.signal_handler(number, workers.tell, number) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            _await_answer((settings.host, port), workers)
            if not workers.leaving:
                workers.has_begun = True
                announce(port)
            workers.wait()
            if workers.has_failed:
                raise SettingsError("No worker could start; each has said why.")
        finally:
            for watcher in watchers:
                watcher.cancel()


def reserved(settings: Settings) -> socket.socket:
    """Keeps the port for the workers; as it does not listen, it gets no calls. Raises SettingsError."""
    try:
        # Others who share their port would let us in.
        socket.create_server((settings.host, settings.port), family=family(settings.host)).close()
        return shared_listener(settings)
    except OSError as trouble:
        raise SettingsError(why_not(trouble, settings)) from None


def _await_answer(address: tuple[str, int], workers: Workers) -> None:
    """Returns when a worker listens, or none will; or at last, when there is nothing better to do than to wait."""
    with gevent.Timeout(READY_WITHIN, False):  # type: ignore[arg-type]  # False: it ends in silence
        while not workers.leaving:
            try:
                socket.create_connection(address).close()
            except ConnectionRefusedError:
                gevent.sleep(LOOK_EVERY)
            else:
                return


def when_alone(act: Callable[[], None]) -> None:
    """Acts once the process that looks after us is gone, which our standard input's end tells."""

    def watch() -> None:
        gevent.get_hub().threadpool.apply(_read_to_the_end, (sys.stdin.fileno(),))
        act()

    gevent.spawn(watch)


def _read_to_the_end(descriptor: int) -> None:
    while os.read(descriptor, 1024):
        pass

"""The server: listens, answers, and leaves when it is asked to, the running calls finished."""

from __future__ import annotations

import errno
import logging
import signal
from collections.abc import Callable
from typing import Final

import gevent
from flask import Flask
from gevent.event import Event
from gevent.pywsgi import LoggingLogAdapter, WSGIServer

from relay.call import Switchboard
from relay.errors import SettingsError
from relay.mediasocket import MediaSocketHandler
from relay.settings import Settings

log = logging.getLogger(__name__)

BACKLOG: Final = 1024  # connections that may wait to be accepted: a busy minute's calls begin together


class Server:
    """gevent's WSGI server with the media socket's handler."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        """Listens. Raises SettingsError when that cannot be."""
        requests = logging.getLogger("relay.web.requests")
        self._wsgi = WSGIServer(
            (settings.host, settings.port),
            app,
            backlog=BACKLOG,
            handler_class=MediaSocketHandler,
            log=LoggingLogAdapter(requests, logging.DEBUG),
            error_log=LoggingLogAdapter(requests, logging.ERROR),
        )
        try:
            self._wsgi.start()
        except OSError as trouble:
            raise SettingsError(_why_not(trouble, settings)) from None

    @property
    def port(self) -> int:
        """Where it really listens."""
        return self._wsgi.server_port or 0

    def close(self) -> None:
        """Takes no new connections; those that are open go on."""
        self._wsgi.close()


def run_until_told(server: Server, switchboard: Switchboard, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM, then until the running calls are over; or until a second signal."""
    leave, now = Event(), Event()

    def told() -> None:
        (now if leave.is_set() else leave).set()

    watchers = [gevent.signal_handler(signum, told) for signum in (signal.SIGINT, signal.SIGTERM)]
    try:
        leave.wait()
        switchboard.answers = False
        server.close()
        if switchboard.live:
            say(f"No new streams; {switchboard.live} still running. Press Ctrl-C again to leave at once.")
        gevent.wait([switchboard.quiet, now], count=1)
        if switchboard.live:
            say(f"Left with {switchboard.live} streams still running.")
    finally:
        for watcher in watchers:
            watcher.cancel()


def _why_not(trouble: OSError, settings: Settings) -> str:
    if trouble.errno == errno.EADDRINUSE:
        return f"Port {settings.port} is taken; set PORT to another one."
    if trouble.errno == errno.EACCES:
        return f"Port {settings.port} may not be used by you; set PORT to one from 1024 on."
    return f"LISTEN_ON={settings.host} cannot be listened on ({trouble.strerror})."

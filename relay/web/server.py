"""The server: listens, answers, and leaves when it is asked to, the running calls finished."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import gevent
from flask import Flask
from gevent.event import Event
from gevent.pywsgi import LoggingLogAdapter

from relay.call import Switchboard
from relay.errors import SettingsError
from relay.settings import Settings
from relay.web.handler import HTTPServer, RequestHandler
from relay.web.routes import ADMISSION

FILES_MOST: Final = 1 << 15  # open at once, sockets too: a call takes two and more, a viewer one
BACKLOG: Final = 1024  # connections that may wait to be accepted: a busy minute's calls begin together


class Server:
    """gevent's WSGI server with a handler of our own, which asks the app's admission before it opens a WebSocket."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        """Listens. Raises SettingsError when that cannot be."""
        try:
            shared = settings.workers > 1
            self._wsgi = HTTPServer(
                _listening(settings) if shared else (settings.host, settings.port),
                app,
                backlog=None if shared else BACKLOG,
                handler_class=RequestHandler,
                error_log=LoggingLogAdapter(logging.getLogger("relay.web.requests"), logging.ERROR),
                admission=app.extensions.get(ADMISSION),
            )
            self._wsgi.start()
            # The head and the body of an answer are two writes: the second would wait for the first one's ACK, 40 ms.
            # Connections have this from the socket that accepts them.
            self._wsgi.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as trouble:
            raise SettingsError(why_not(trouble, settings)) from None

    @property
    def port(self) -> int:
        """Where it really listens."""
        return self._wsgi.server_port or 0

    def close(self) -> None:
        """Takes no new connections; those that are open go on."""
        self._wsgi.close()


def allow_many_files() -> None:
    """Raises the limit on open files as far as we may: at the usual 1024, it is reached by fewer than 500 calls."""
    if sys.platform == "win32":
        return
    import resource  # there is none on Windows

    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if 0 <= most < FILES_MOST else FILES_MOST  # endless is less than 0, or very much
    if 0 <= now < wanted:
        with suppress(ValueError, OSError):  # a system may have a bound of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def reached_by(settings: Settings) -> str:
    """The host in a URL by which this machine reaches what listens so."""
    if settings.host in ("127.0.0.1", "0.0.0.0", "::"):  # noqa: S104  # of which localhost is one
        return "localhost"
    return f"[{settings.host}]" if ":" in settings.host else settings.host


def family(host: str) -> socket.AddressFamily:
    """Of which kind an address is; a name is taken for one of IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def shared_listener(settings: Settings) -> socket.socket:
    """A socket bound to our port, as others in other processes are too. Raises OSError."""
    listener = socket.socket(family(settings.host), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError:
        listener.close()
        raise
    return listener


def _listening(settings: Settings) -> socket.socket:
    listener = shared_listener(settings)
    listener.listen(BACKLOG)
    return listener


def run_until_told(
    server: Server, switchboard: Switchboard, say: Callable[[str], None], leave: Event | None = None
) -> None:
    """Serves until SIGINT, SIGTERM or `leave`, then until the running calls are over; or until a second signal."""
    leave, now = leave or Event(), Event()

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


def why_not(trouble: OSError, settings: Settings) -> str:
    """What keeps us from listening, and what to set."""
    if trouble.errno == errno.EADDRINUSE:
        return f"Port {settings.port} is taken; set PORT to another one."
    if trouble.errno == errno.EACCES:
        return f"Port {settings.port} may not be used by you; set PORT to one from 1024 on."
    return f"LISTEN_ON={settings.host} cannot be listened on ({trouble.strerror})."

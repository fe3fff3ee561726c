from gevent import monkey

monkey.patch_all()  # as app.py does, before anything that opens a socket is imported

import threading
from contextlib import suppress

from hypothesis import HealthCheck, settings
from websockets.sync.connection import Connection

settings.register_profile(  # no test depends on the machine's speed; fixtures are made anew for a test, not an example
    "ours", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("ours")

collect_ignore = ["browser"]  # whose tests want processes without gevent's patches: see tests/browser/conftest.py

_close_socket = Connection.close_socket


def _close_socket_on_its_own_thread(self: Connection) -> None:
    """gevent aborts the process when a socket is closed that a selector still waits for, as a reading thread's does.

    So whoever closes a client of that library, a vendor's SDK too, wakes the reading thread, which then closes.
    """
    if threading.current_thread() is self.recv_events_thread or not self.recv_events_thread.is_alive():
        _close_socket(self)
        return
    with suppress(OSError):
        self.shutdown_notifier.send(b"x")
    self.recv_messages.close()  # frees a reader that waits for messages to be taken
    self.recv_events_thread.join()


Connection.close_socket = _close_socket_on_its_own_thread  # type: ignore[method-assign]

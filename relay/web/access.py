"""Who may see: so far, programs and people on this machine."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from flask import request
from werkzeug.exceptions import Forbidden

OPEN_PATHS: Final = ("/readyz",)  # which says nothing of calls
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
_PORT: Final = re.compile(r":[0-9]+$")
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via", "Cf-Connecting-Ip")


def only_this_machine() -> None:
    """Raises Forbidden for a request that came from elsewhere.

    A tunnel's requests come from this machine too. They are known by the name they ask for, which is the tunnel's, and
    by what tunnels and proxies add. A page from elsewhere that asks through somebody's browser is known by it, too.
    """
    if request.path in OPEN_PATHS:
        return
    came_through = any(header in request.headers for header in _FORWARDED)
    asked_for = _PORT.sub("", request.host)
    if came_through or asked_for not in _LOCAL_NAMES or not _is_loopback(request.remote_addr):
        raise Forbidden("What was said on calls is shown to this machine only: ask http://localhost here.")


def _is_loopback(address: str | None) -> bool:
    try:
        return ip_address(address or "").is_loopback
    except ValueError:
        return False

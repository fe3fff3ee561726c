"""One connection's conversation: when it takes the other side for gone, and when it does not."""

from __future__ import annotations

from dataclasses import replace

import gevent
import pytest

from relay.events import ServiceConnected, ServiceLost, Track
from tests.talking import HASTE, Heard, client_for, listening


@pytest.mark.parametrize("ping_after", [0.01, 0.02, 0.05])
def test_a_ping_that_was_answered_at_once_is_answered_although_nothing_came_after(ping_after: float) -> None:
    """The answer may be as old as a ping may be by the time it is looked for."""
    patience = replace(HASTE, ping_after=ping_after, pong=0.3)
    heard = Heard()
    with listening() as server:
        client = client_for(server, heard, (Track.INBOUND,), patience=patience)
        heard.wait_for(ServiceConnected)
        gevent.sleep(1.0)  # many pings, and nothing else
        client.close()
    assert not heard.of(ServiceLost)

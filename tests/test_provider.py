"""How much of a service is in use, whether it is well, and who finds out when it is again."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import NoReturn

import gevent
import pytest
from gevent.queue import Queue

from deepgram_client import Deepgram, DeepgramSettings
from relay.errors import Denied, Full, Lost, Misspoke, Refused, ServiceError, Stalled, Unavailable
from relay.events import ServiceBack, ServiceDown, Track
from relay.protocol import CallInfo, Limits
from relay.provider import A_MINUTE, PROBE_MS, Provider
from standins.deepgram import Drop, Fault, ListenServer, Refusal
from tests.talking import HASTE, Hasty, deepgram, listening
from tests.test_connection import serving
from tests.vendors import VENDORS

BUSY = Fault(refuse=Refusal(503, "BUSY", "Later."))
ROOMY = 10.0  # seconds; nothing here takes nearly so long

Changes = Queue[ServiceDown | ServiceBack]


def provider_of(server: ListenServer, limits: Limits | None = None) -> tuple[Provider, Changes]:
    provider = Provider(Hasty(deepgram(server)._service, limits), patience=HASTE)
    changes: Changes = Queue()
    provider.on_change = changes.put
    return provider, changes


def limited(connections: int = 100, sessions_per_minute: int | None = None) -> Provider:
    """A provider that connects to nobody."""
    with listening() as server:
        return provider_of(server, Limits(connections, sessions_per_minute))[0]


@pytest.fixture(autouse=True)
def _probes_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.provider.PROBE_FIRST", 0.02)
    monkeypatch.setattr("relay.provider.PROBE_MOST", 0.05)


# --- Room --------------------------------------------------------------------------------------------------------


def test_a_connection_takes_room_while_it_lasts() -> None:
    provider = limited(connections=2)
    with provider.connection(True):
        assert (provider.open, provider.has_room) == (1, True)
        with provider.connection(True):
            assert (provider.open, provider.has_room) == (2, False)
            with pytest.raises(Full, match="DEEPGRAM_CONNECTIONS"), provider.connection(True):
                pass
            assert provider.open == 2
    assert (provider.open, provider.has_room) == (0, True)


def test_a_connection_that_fails_gives_its_room_back() -> None:
    provider = limited(connections=1)
    with pytest.raises(Lost), provider.connection(True):
        raise Lost("it broke")
    assert (provider.open, provider.has_room) == (0, True)


def test_a_session_that_is_resumed_needs_no_room() -> None:
    provider = limited(connections=1, sessions_per_minute=1)
    with provider.connection(True), provider.connection(False):
        assert provider.open == 2


def test_sessions_are_counted_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("relay.provider.monotonic", lambda: now)
    provider = limited(sessions_per_minute=2)
    for is_new in (True, False, False, True):
        with provider.connection(is_new):
            pass
    with pytest.raises(Full, match="DEEPGRAM_SESSIONS_PER_MINUTE"), provider.connection(True):
        pass
    now += A_MINUTE
    assert not provider.has_room
    now += 0.1
    assert provider.has_room


# --- Whose fault it was ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [Denied("key"), Unavailable("busy"), Lost("gone"), Stalled("stands")], ids=repr)
def test_what_the_service_did_counts_against_it(failure: ServiceError) -> None:
    with listening() as server:
        provider, changes = provider_of(server)
        provider.failed(failure)
        assert not provider.well
        assert changes.get(timeout=ROOMY) == ServiceDown("Deepgram", str(failure))
        assert changes.get(timeout=ROOMY) == ServiceBack("Deepgram")
        assert provider.well


@pytest.mark.parametrize("failure", [Refused("request"), Misspoke("rule"), Full("limit")], ids=repr)
def test_what_we_did_does_not(failure: ServiceError) -> None:
    provider = limited()
    provider.on_change = lambda change: pytest.fail(f"told {change}")
    provider.failed(failure)
    assert provider.well


# --- Probes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VENDORS)
def test_a_probe_is_a_short_silent_session_of_its_own(name: str) -> None:
    vendor = VENDORS[name]
    with vendor.listening() as server:
        provider = Provider(vendor.at(server), patience=HASTE)
        provider.probe()
        (connection,) = server.connections
        server.wait_for(lambda: connection.is_over, within=ROOMY)
        assert PROBE_MS <= connection.audio_ms < 2 * PROBE_MS
        assert set(connection.audio) == {0xFF}
        assert connection.close_code == 1000
    assert (provider.open, provider.well) == (0, True)


def test_a_service_is_probed_until_it_is_well_and_by_one_probe_at_a_time() -> None:
    with listening(*[BUSY] * 4) as server:
        provider, changes = provider_of(server)
        for _ in range(5):
            provider.failed(Lost("gone"))
        told = [changes.get(timeout=ROOMY) for _ in range(2)]
        assert told == [ServiceDown("Deepgram", "gone"), ServiceBack("Deepgram")]
        assert len(server.connections) == 5
        assert (provider.well, provider.open) == (True, 0)
        provider.failed(Lost("gone again"))
        assert changes.get(timeout=ROOMY) == ServiceDown("Deepgram", "gone again")
        assert changes.get(timeout=ROOMY) == ServiceBack("Deepgram")
    assert changes.empty()


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize("how", ["mute", "abandon", "reset"])
def test_a_service_that_takes_a_probe_and_says_nothing_is_not_well(name: str, how: str) -> None:
    vendor = VENDORS[name]
    began = monotonic()
    with vendor.listening(Fault(drop=Drop(100, how))) as server:  # type: ignore[arg-type]
        provider = Provider(vendor.at(server), patience=replace(HASTE, answer=0.2, connect=0.5, drain=0.5))
        with pytest.raises(ServiceError):
            provider.probe()
        assert provider.open == 0
    assert monotonic() - began < ROOMY


@pytest.mark.parametrize("name", VENDORS)
def test_a_service_that_accepts_and_never_answers_is_not_well(name: str) -> None:
    with serving(lambda _sock: gevent.sleep(60)) as host:
        scheme = "http" if name == "gladia" else "ws"
        service = VENDORS[name].make("key", f"{scheme}://{host}")
        provider = Provider(service, patience=replace(HASTE, connect=0.2))
        with pytest.raises(Lost, match=r"did not answer within 0\.2 s"):
            provider.probe()
    assert provider.open == 0


class Broken(Deepgram):
    """A service with a mistake in it."""

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> NoReturn:
        raise RuntimeError("a mistake")


def test_a_mistake_in_a_probe_leaves_no_service_down_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider(Broken(DeepgramSettings(api_key="key")))
    provider.failed(Lost("gone"))
    with gevent.Timeout(ROOMY):
        while not provider.well:
            gevent.sleep(0.01)
    assert "the probe of Deepgram failed" in caplog.text

"""What a service has said and nobody has heard: it comes late, or there was nothing to say."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import gevent
import pytest

from relay.events import Gap, ServiceConnected, ServiceLost
from standins.ear import Ear, EarFactory, EarOptions
from standins.ear import Heard as HeardByEar
from standins.faults import CloseFrame, Drop, Fault
from standins.gladia import GladiaServer, Rules
from standins.twilio import SimulatedCall
from tests.calling import answered, hang_up, in_time, relay
from tests.numbered import number_ears
from tests.talking import BOTH, HASTE, SPEED, whole
from tests.vendors import VENDORS, Vendor

SILENCE = b"\xff" * 160
LAG_S = 0.05  # 2.5 s of the hurried clock


class LaggingEar:
    """Hears everything a while later, whoever is still there by then."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear
        self._audio: queue.Queue[tuple[float, list[bytes]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def hear(self, channels: list[bytes]) -> None:
        self._audio.put((time.monotonic() + LAG_S, channels))

    def flush(self, channel: int | None = None) -> None: ...

    def finish(self) -> None:
        self.close()
        self._thread.join()

    def close(self) -> None:
        self._audio.put(None)

    def _listen(self) -> None:
        while (audio := self._audio.get()) is not None:
            due, channels = audio
            time.sleep(max(0.0, due - time.monotonic()))
            self._ear.hear(channels)
        self._ear.finish()


def lagging(ears: EarFactory) -> EarFactory:
    def ear(options: EarOptions, emit: Callable[[HeardByEar], None]) -> Ear:
        return LaggingEar(ears(options, emit))

    return ear


def stay_silent(call: SimulatedCall, length_ms: int, *, at_ms: int) -> None:
    """Silence on every track, at the hurried clock's real time."""
    for ms in range(at_ms, at_ms + length_ms, 20):
        for track in call.tracks:
            call.say(track, SILENCE, at_ms=ms)
        gevent.sleep(0.02 / SPEED)


@pytest.mark.parametrize("ms", [400, 1_700, 4_980])
@pytest.mark.parametrize("how", ["reset", "abandon"])
def test_finals_that_were_lost_with_their_connection_come_when_the_session_is_over(ms: int, how: str) -> None:
    """Answers that are late by more than the connection lasts never arrive, although their audio did."""
    lossy = Fault(drop=Drop(ms, how), answer_late_s=1.0)  # type: ignore[arg-type]
    gladia = VENDORS["gladia"]
    with gladia.listening(lossy, ear=number_ears(final_ms=300)) as server:
        with relay(gladia.at(server), patience=HASTE) as running:
            call = answered(running.url)
            in_time(call, 6_000)
            running.of(call).wait_for(ServiceLost)
            in_time(call, 6_000, at_ms=6_000)
            hang_up(call)
            running.ended(call)
        assert isinstance(server, GladiaServer)
        assert (len(server.connections), len(server.sessions)) == (2, 1)
    for track in BOTH:
        assert sorted(running.of(call).frames(track)) == whole(12_000)
    assert not running.of(call).of(Gap)


@pytest.mark.parametrize("holds_answers", [True, False])
def test_what_is_said_while_nobody_is_connected_is_heard_once(holds_answers: bool) -> None:
    """Whether Gladia keeps it for whoever comes back is not documented."""
    patience = replace(HASTE, retry_first=8 * LAG_S)
    drop = Fault(drop=Drop(4_000, "reset"))
    ears = lagging(number_ears(final_ms=300))
    with GladiaServer(ear=ears, rules=Rules(holds_answers=holds_answers), faults=[drop]) as server:
        with relay(VENDORS["gladia"].at(server), patience=patience) as running:
            call = answered(running.url)
            in_time(call, 6_000)
            running.of(call).wait_for(ServiceLost)
            in_time(call, 6_000, at_ms=6_000)
            hang_up(call)
            running.ended(call)
        assert (len(server.connections), len(server.sessions)) == (2, 1)
        assert server.violations == []
    for track in BOTH:
        assert sorted(running.of(call).frames(track)) == whole(12_000)
    assert not running.of(call).of(Gap)


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS.keys())
def test_a_pause_is_no_loss_even_if_it_is_longer_than_what_is_kept(vendor: Vendor) -> None:
    given_up = Fault(drop=Drop(10_000, CloseFrame(4404, "no such session")))
    with vendor.listening(given_up, given_up) as server:
        with relay(vendor.at(server, catches_up=True), replay_s=5) as running:  # all of the pause is sent
            call = answered(running.url)
            running.of(call).wait_for(ServiceConnected)  # five seconds of the hurried clock are soon over
            in_time(call, 2_000)
            stay_silent(call, 8_000, at_ms=2_000)
            running.of(call).wait_for(ServiceLost)
            in_time(call, 2_000, at_ms=10_000)
            hang_up(call)
            running.ended(call)
    for track in BOTH:
        assert running.of(call).frames(track) == [*whole(2_000), *(500 + n for n in whole(2_000))]
    assert not running.of(call).of(Gap)

"""For tests that talk to the stand-in for Deepgram: a client in a hurry, numbered audio, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import gevent
from gevent.event import Event

from deepgram_client import TRAITS, Deepgram, DeepgramSettings
from relay.audio import SAMPLES_PER_MS, Piece
from relay.connection import Patience
from relay.events import CallEvent, Gap, Track, Transcript
from relay.protocol import Abilities, CallInfo, Limits, SpeechProtocol, SpeechService, Traits
from relay.replay import ReplayBuffer
from relay.speech import SpeechClient
from standins.deepgram import Fault, ListenServer, Rules
from standins.ear import EarFactory
from tests.numbered import frame_of, number_ears, numbered

SPEED: Final = 50.0  # times real time, for both sides alike: a second of audio takes 20 ms
BOTH: Final = (Track.INBOUND, Track.OUTBOUND)
CALL: Final = CallInfo("CA00000000000000000000000000000001", "MZ00000000000000000000000000000001", BOTH)
FRAME_MS: Final = 20

HASTE: Final = Patience(
    connect=10,
    send=5,
    answer=5,
    ping_after=0.5,
    pong=5,
    drain=10,
    ask_again=0.01,
    retry_first=0.01,
    retry_most=0.05,
)


class Hasty:
    """A service as we speak to it, but with its pace multiplied; everything else is the real thing, unless a test says
    otherwise of its traits or its limits."""

    def __init__(self, service: SpeechService, limits: Limits | None = None, **traits: Any) -> None:
        self._service = service
        self._limits = limits
        self._traits = traits

    @property
    def traits(self) -> Traits:
        """The real ones, in a hurry."""
        traits = self._service.traits
        in_a_hurry = replace(traits, pace=traits.pace * SPEED, makes_up_s=traits.makes_up_s / SPEED)
        return replace(in_a_hurry, **self._traits)

    @property
    def abilities(self) -> Abilities:
        """The real ones."""
        return self._service.abilities

    @property
    def limits(self) -> Limits:
        """The real ones, if a test has none of its own."""
        return self._limits or self._service.limits

    def tailored(self, language: str | None, keyterms: tuple[str, ...]) -> Hasty:
        """The real one, tailored."""
        return Hasty(self._service.tailored(language, keyterms), self._limits, **self._traits)

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> SpeechProtocol:
        """The real one."""
        return self._service.protocol(call, tracks)


def deepgram(server: ListenServer, **settings: object) -> Hasty:
    """The service as a user configures it, at the stand-in's address."""
    return Hasty(Deepgram(DeepgramSettings(api_key="key", url=server.url, **settings)))  # type: ignore[arg-type]


@contextmanager
def listening(
    *faults: Fault | None, ear: EarFactory | None = None, rules: Rules | None = None, key: str | None = None
) -> Iterator[ListenServer]:
    """The stand-in, as strict as the real one but for its speed; at the end nobody may have broken a rule."""
    rules = rules or Rules(pace=TRAITS.pace * SPEED)
    with ListenServer(ear=ear or number_ears(), rules=rules, faults=faults, key=key) as server:
        yield server
    assert server.violations == []


@dataclass
class Heard:
    """What a client told. Shows the finals' frames, and checks each word's time against its number."""

    events: list[CallEvent] = field(default_factory=list)
    changed: Event = field(default_factory=Event)

    def __call__(self, event: CallEvent) -> None:
        self.events.append(event)
        self.changed.set()

    def of(self, *kinds: type) -> list[CallEvent]:
        """The events of these kinds."""
        return [event for event in self.events if isinstance(event, kinds)]

    def finals(self, track: Track) -> list[Transcript]:
        """The finals of one track."""
        return [
            event for event in self.events if isinstance(event, Transcript) and event.is_final and event.track is track
        ]

    def frames(self, track: Track) -> list[int]:
        """The numbers of the frames in the finals of one track, in the order they were told."""
        numbers = []
        for word in (word for final in self.finals(track) for word in final.words):
            of_track, number = frame_of(word.text)
            assert of_track is track, f"{word.text} was heard on {track}"
            assert abs(word.start_ms - number * FRAME_MS) <= FRAME_MS, f"{word.text} at {word.start_ms} ms"
            assert abs(word.end_ms - (number + 1) * FRAME_MS) <= FRAME_MS
            numbers.append(number)
        return numbers

    def missing(self, track: Track) -> set[int]:
        """The numbers of the frames that were told to be lost, wholly or in part."""
        return {
            number
            for gap in self.events
            if isinstance(gap, Gap) and gap.track is track
            for number in range(gap.start_ms // FRAME_MS, -(-gap.end_ms // FRAME_MS))
        }

    def wait_for(self, *kinds: type, within: float = 30) -> CallEvent:
        """The first event of these kinds, when it has come."""
        with gevent.Timeout(within):
            while not self.of(*kinds):
                self.changed.wait()
                self.changed.clear()
        return self.of(*kinds)[0]


def client_for(
    server: ListenServer,
    heard: Heard,
    tracks: tuple[Track, ...] = BOTH,
    *,
    patience: Patience = HASTE,
    replay_s: float = 60,
    **settings: object,
) -> SpeechClient:
    """A client that is connecting already."""
    return client_of(deepgram(server, **settings), heard, tracks, patience=patience, replay_s=replay_s)


def client_of(
    service: SpeechService,
    heard: Heard,
    tracks: tuple[Track, ...] = BOTH,
    *,
    patience: Patience = HASTE,
    replay_s: float = 60,
) -> SpeechClient:
    """A client of any service that is connecting already."""
    buffer = ReplayBuffer(len(tracks), round(replay_s * 1000) * SAMPLES_PER_MS)
    client = SpeechClient(service, CALL, tracks, heard, buffer=buffer, patience=patience)
    client.start()
    return client


def pieces(tracks: Sequence[Track], start_ms: int, length_ms: int) -> list[Piece]:
    """Numbered audio as a client takes it, a piece for each frame."""
    if len(tracks) == 1:
        return [
            Piece(ms * SAMPLES_PER_MS, numbered(tracks[0], ms, FRAME_MS))
            for ms in range(start_ms, start_ms + length_ms, FRAME_MS)
        ]
    made = []
    for ms in range(start_ms, start_ms + length_ms, FRAME_MS):
        audio = bytearray(2 * FRAME_MS * SAMPLES_PER_MS)
        for side, track in enumerate(tracks):
            audio[side::2] = numbered(track, ms, FRAME_MS)
        made.append(Piece(ms * SAMPLES_PER_MS, bytes(audio)))
    return made


def speak(client: SpeechClient, tracks: Sequence[Track], length_ms: int, *, start_ms: int = 0) -> None:
    """Gives the client numbered audio at the hurried clock's real time."""
    for piece in pieces(tracks, start_ms, length_ms):
        client.send(piece)
        gevent.sleep(FRAME_MS / 1000 / SPEED)


def whole(length_ms: int) -> list[int]:
    """The frames of so much audio."""
    return list(range(length_ms // FRAME_MS))

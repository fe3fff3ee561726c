"""A share of a stream's tracks on its way to whichever service hears it, and from one that fails to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import gevent

from relay.audio import SAMPLES_PER_MS, Interleaver, Piece
from relay.connection import Patience
from relay.conversation import Tally
from relay.errors import Full, Refused, ServiceError
from relay.events import ServiceReplaced, SpeechEvent, Track
from relay.listening import Choice, first_choice
from relay.protocol import CallInfo
from relay.replay import ReplayBuffer
from relay.speech import SpeechClient

TAKEOVERS_AT_MOST: Final = 20  # on one call; beyond that the present service is kept, come what may

Tell = Callable[[str, SpeechEvent], None]  # takes the name of the service that an event is about


class Feed:
    """Clients for one track as it is, or for two in step: together or, where a service takes one track, apart.

    Audio comes in through `ear`. When a service is lost to this call the next one takes over its buffer, and so goes on
    from the last final.
    """

    def __init__(
        self,
        call: CallInfo,
        tracks: tuple[Track, ...],
        choices: Sequence[Choice],
        tell: Tell,
        *,
        chunk_ms: int,
        replay_s: int,
        patience: Patience,
    ) -> None:
        self.tracks = tracks
        self._call = call
        self._choices = choices
        self._tell = tell
        self._chunk_ms = chunk_ms
        self._patience = patience
        self._interleaver = Interleaver() if len(tracks) == 2 else None
        self._refused: set[str] = set()  # services that will not have this call
        self._takeovers = 0
        self._last_chances: set[tuple[Track, str]] = set()  # who took over after the last audio; each may once
        self._finished = False
        self._clients: list[SpeechClient] = []  # all there ever were
        self._listening: list[SpeechClient] = []  # those that take the audio now
        self._listen(first_choice(choices), tracks, ReplayBuffer(len(tracks), replay_s * 1000 * SAMPLES_PER_MS))

    @property
    def tallies(self) -> list[Tally]:
        """What its clients have to say of their work."""
        return [client.tally for client in self._clients]

    @property
    def cut_ms(self) -> int:
        """Audio that came too late to be put in its place."""
        return self._interleaver.cut // SAMPLES_PER_MS if self._interleaver else 0

    @property
    def missing_ms(self) -> float:
        """How much audio has still to come until there is one more chunk to send."""
        return min(client.missing_ms for client in self._listening)

    @property
    def unsent_ms(self) -> int:
        """How much audio waits to be sent on."""
        return max(client.unsent_ms for client in self._listening)

    def ear(self, track: Track) -> Callable[[Piece], None]:
        """What takes the audio of one of its tracks."""
        if self._interleaver is None:
            return self._send
        return partial(self._interleaver.add, self.tracks.index(track))

    def pass_on(self) -> None:
        """Gives the clients what is ready: of two tracks, what both have."""
        if self._interleaver is not None:
            self._send_all(self._interleaver.ready())

    def finish(self) -> None:
        """No more audio will come."""
        if self._interleaver is not None:
            self._send_all(self._interleaver.flush())
        self._finished = True
        for client in self._listening:
            client.finish()

    def close(self) -> None:
        """Waits for the last words, whoever says them, and for what a service says only after a call."""
        self.finish()
        closed = 0
        while closed < len(self._clients):  # there may be more of them by the time these are closed
            closing, closed = self._clients[closed:], len(self._clients)
            gevent.joinall([gevent.spawn(client.close) for client in closing])
        gevent.joinall([gevent.spawn(client.ask_afterwards) for client in self._clients])

    def _send_all(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._send(piece)

    def _send(self, piece: Piece) -> None:
        if len(self._listening) == 1:
            self._listening[0].send(piece)
        else:
            for side, client in enumerate(self._listening):
                client.send(Piece(piece.start, piece.audio[side :: len(self.tracks)]))

    # --- Who listens ----------------------------------------------------------------------------------------

    def _listen(self, choice: Choice, tracks: tuple[Track, ...], buffer: ReplayBuffer) -> None:
        """Begins with a service: one client, or one for each track where it takes no more."""
        if len(tracks) <= choice.service.traits.tracks:
            clients = [self._client(choice, tracks, buffer)]
        else:
            shares = zip(tracks, buffer.split(), strict=True)
            clients = [self._client(choice, (track,), share) for track, share in shares]
        self._clients += clients
        self._listening += clients
        self._listening.sort(key=lambda client: self.tracks.index(client.tracks[0]))
        for client in clients:
            client.start()

    def _client(self, choice: Choice, tracks: tuple[Track, ...], buffer: ReplayBuffer) -> SpeechClient:
        return SpeechClient(
            choice.service,
            self._call,
            tracks,
            partial(self._tell, choice.service.traits.name),
            buffer=buffer,
            chunk_ms=self._chunk_ms,
            patience=self._patience,
            connection=choice.provider.connection,
            hand_over=partial(self._hand_over, choice),
        )

    def _hand_over(self, failed: Choice, client: SpeechClient, why: ServiceError) -> bool:
        """Lets the next service take over, if there is one that will have the call."""
        name = failed.service.traits.name
        if isinstance(why, Refused):
            self._refused.add(name)
        if len(self._choices) > 1:
            failed.provider.failed(why)
        if (choice := self._next(client.tracks, name, why)) is None:
            return False
        self._takeovers += 1
        if self._finished:
            self._last_chances.update((track, choice.service.traits.name) for track in client.tracks)
        client.give_up(str(why))
        from_ms = client.buffer.unheard_from // SAMPLES_PER_MS
        self._tell(name, ServiceReplaced(name, choice.service.traits.name, str(why), from_ms))
        self._listening.remove(client)
        self._listen(choice, client.tracks, client.buffer)
        return True

    def _next(self, tracks: tuple[Track, ...], failed: str, why: ServiceError) -> Choice | None:
        late = {name for track, name in self._last_chances if track in tracks}
        spent = self._refused | late | {failed}
        others = [choice for choice in self._choices if choice.service.traits.name not in spent]
        well = [choice for choice in others if choice.provider.well]
        if isinstance(why, Refused):  # better one that may come back than none
            well = well or others
        if isinstance(why, Full):  # to wait for room here is as good as to wait elsewhere
            well = [choice for choice in well if choice.provider.has_room]
        if not well or self._takeovers >= TAKEOVERS_AT_MOST:
            return None
        return first_choice(well)

"""Audio held until the service has heard it, so that a lost connection loses no word. Pure.

Positions count samples on the call's clock; a sample of several interleaved tracks is one byte of each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

from relay.audio import SAMPLES_PER_MS, SILENCE, Piece, is_quiet

PAUSE_STEP: Final = 100 * SAMPLES_PER_MS  # samples in which pauses are forgotten
PAUSE_KEPT: Final = 300 * SAMPLES_PER_MS  # samples of quiet that are kept before speech
RISKS_APART: Final = 1000 * SAMPLES_PER_MS  # samples between two losses that may be told as one
STRETCHES_AT_MOST: Final = 500  # of audio with holes between; whoever makes more in a minute is no phone call


@dataclass(frozen=True, slots=True)
class Loss:
    """Samples of one track (by its place in the interleaving) that no service will hear."""

    side: int
    start: int
    end: int


class Clock:
    """From a session's time, which starts with its first audio, to the call's.

    Services count the audio they are sent. Where it does not continue what was sent before (a replay begins, a long
    gap is left out, silence of our own keeps the line open) the two clocks part, and an anchor is set.
    """

    def __init__(self) -> None:
        self.sent = 0  # samples of this session so far
        self._sent: list[int] = []
        self._positions: list[int] = []
        self._paces: list[int] = []  # of the call's clock from this anchor on: 1, or 0 where it stands still

    def send(self, position: int, samples: int) -> None:
        """So many samples from this position of the call's clock go out now."""
        if not self._sent or not self._paces[-1] or position - self._positions[-1] != self.sent - self._sent[-1]:
            self._anchor(position, 1)
        self.sent += samples

    def stand_still(self, position: int, samples: int) -> None:
        """So many samples that are not the call's go out now, where the call's go on at this position."""
        self._anchor(position, 0)
        self.sent += samples

    def rewind(self, sent: int) -> None:
        """Of what was sent, only so many samples have arrived."""
        self.sent = min(sent, self.sent)
        kept = bisect_right(self._sent, self.sent)
        for anchors in (self._sent, self._positions, self._paces):
            del anchors[max(1, kept) :]

    @property
    def is_the_calls(self) -> bool:
        """Whether both clocks have told the same time so far."""
        return not self._sent or (self._positions, self._paces) == ([0], [1])

    def start(self, sent: int) -> int:
        """Where on the call's clock the sample lies that was sent after so many others."""
        return self._at(sent, 0)

    def end(self, sent: int) -> int:
        """Where the sample before it ends; at a hole the two differ."""
        return self._at(sent - 1, 1)

    def _anchor(self, position: int, pace: int) -> None:
        self._sent.append(self.sent)
        self._positions.append(position)
        self._paces.append(pace)

    def _at(self, sent: int, after: int) -> int:
        if not self._sent:
            return sent + after
        anchor = max(0, bisect_right(self._sent, sent) - 1)
        return self._positions[anchor] + self._paces[anchor] * (sent + after - self._sent[anchor])


class _Stretch:
    """Audio without a hole, from `start` on."""

    __slots__ = ("audio", "start", "tracks")

    def __init__(self, start: int, audio: bytes, tracks: int) -> None:
        self.start = start
        self.audio = bytearray(audio)
        self.tracks = tracks

    def __len__(self) -> int:
        return len(self.audio) // self.tracks

    @property
    def end(self) -> int:
        return self.start + len(self)

    def cut(self, start: int, samples: int) -> Piece:
        first = (start - self.start) * self.tracks
        return Piece(start, bytes(self.audio[first : first + samples * self.tracks]))

    def forget(self, samples: int) -> None:
        del self.audio[: samples * self.tracks]
        self.start += samples

    def side(self, side: int, start: int, end: int) -> bytes:
        """One track's audio between two positions within it."""
        first, last = (start - self.start) * self.tracks, (end - self.start) * self.tracks
        return bytes(self.audio[first + side : last : self.tracks])

    def silence(self, side: int, until: int) -> None:
        samples = min(until - self.start, len(self))
        if samples > 0:
            self.audio[side : samples * self.tracks : self.tracks] = bytes((SILENCE,)) * samples


class ReplayBuffer:
    """What has not been heard yet, and how much of it has been sent on the present connection.

    Kept from the end of the last final of the track that is furthest behind, since what was sent but not finalised dies
    with its connection. Bounded: beyond `most` samples the oldest goes, and what is thereby lost is named.
    """

    def __init__(self, tracks: int, most: int) -> None:
        self.finished = False  # no more audio will come
        self.forgets_pauses = False  # for a service that says nothing of pauses, and so never has heard one
        self._tracks = tracks
        self._most = most
        self._stretches: deque[_Stretch] = deque()
        self._held = 0  # samples in all stretches
        self._waiting = 0  # of those, the ones not yet sent on the present connection
        self._end = 0  # where the newest audio ends
        self._next = 0  # where sending goes on
        # Of each track: sent, not heard, and dropped for want of room: from, to.
        self._unsafe: list[deque[tuple[int, int]]] = [deque() for _ in range(tracks)]
        self._abandoned = False
        self._heard = [0] * tracks
        self._losses: list[list[Loss]] = [[] for _ in range(tracks)]

    @property
    def most(self) -> int:
        """How many samples are kept at most."""
        return self._most

    @property
    def unheard(self) -> int:
        """How many samples are held."""
        return self._held

    @property
    def unheard_from(self) -> int:
        """Where the oldest audio begins that may still be heard."""
        return self._stretches[0].start if self._stretches else self._end

    @property
    def next(self) -> int:
        """Where sending goes on."""
        return self._next

    @property
    def waiting(self) -> int:
        """How many samples have not been sent on the present connection."""
        return self._waiting

    @property
    def progress(self) -> int:
        """How much was heard for good, summed over the tracks."""
        return sum(self._heard)

    def add(self, piece: Piece) -> None:
        """Keeps new audio, which follows all that came before."""
        joins = self._stretches and piece.start == self._end
        self._end = piece.start + len(piece.audio) // self._tracks
        if self._abandoned:
            for side in range(self._tracks):
                self._lose(side, piece.start, self._end)
            return
        if joins:
            self._stretches[-1].audio += piece.audio
        else:
            self._stretches.append(_Stretch(piece.start, piece.audio, self._tracks))
        self._held += self._end - piece.start
        self._waiting += self._end - piece.start
        self._drop_oldest(self._held - self._most)
        if len(self._stretches) > STRETCHES_AT_MOST:
            self._drop_oldest(len(self._stretches[0]))

    def take(self, chunk: int, *, partial: bool = False) -> Piece | None:
        """The next chunk to send, in samples. Less than that at a hole, at the end, or where `partial` is enough."""
        for stretch in self._stretches:
            if stretch.end <= self._next:
                continue
            start = max(stretch.start, self._next)
            samples = min(chunk, stretch.end - start)
            more_may_come = stretch is self._stretches[-1] and not (self.finished or partial)
            if samples < chunk and more_may_come:
                return None
            self._next = start + samples
            self._waiting -= samples
            return stretch.cut(start, samples)
        return None

    def peek(self, samples: int) -> bytes:
        """What will be taken next: so many samples, or fewer up to a hole or the end."""
        for stretch in self._stretches:
            if stretch.end > self._next:
                start = max(stretch.start, self._next)
                return stretch.cut(start, min(samples, stretch.end - start)).audio
        return b""

    def heard(self, side: int, until: int) -> None:
        """This track will not be needed again up to here."""
        self._heard[side] = max(self._heard[side], min(until, self._next))
        self._forget(min(self._heard))
        unsafe = self._unsafe[side]
        while unsafe and unsafe[0][1] <= self._heard[side]:
            unsafe.popleft()

    def heard_all(self) -> None:
        """The service has said all it will about what was sent."""
        for side in range(self._tracks):
            self.heard(side, self._next)

    def rewind(self) -> None:
        """The connection is gone: send again from what was not heard.

        A track that was heard further than another is replayed as silence up to there, so that none of its words can be
        recognised twice. Pauses at the beginning are not replayed where the service would say nothing of them.
        """
        self._lose_unsafe()
        for side, heard in enumerate(self._heard):
            for stretch in self._stretches:
                stretch.silence(side, heard)
        if self.forgets_pauses:
            self._forget_pause()
        self._next = min(self._heard)
        self._waiting = self._held

    def resume(self, position: int) -> None:
        """The connection is gone, and its session is not: send again from where the service says it stands."""
        self._next = min(self._end, position)
        self._lose_unsafe(since=self._next)
        self._waiting = sum(stretch.end - max(stretch.start, self._next) for stretch in self._unsent())

    def split(self) -> list[ReplayBuffer]:
        """The same for each track alone, for a service that takes one at a time."""
        return [self._alone(side) for side in range(self._tracks)]

    def abandon(self) -> None:
        """No service will hear what is left, nor what is still to come."""
        self._abandoned = True
        self._lose_unsafe()
        for stretch in self._stretches:
            for side, heard in enumerate(self._heard):
                self._lose(side, max(heard, stretch.start), stretch.end)
        self._stretches.clear()
        self._held = self._waiting = 0

    def losses(self) -> list[Loss]:
        """The losses that were not told before, track by track, neighbours joined."""
        told = [loss for losses in self._losses for loss in losses]
        self._losses = [[] for _ in range(self._tracks)]
        return told

    def _forget_pause(self) -> None:
        """Counts the quiet with which the audio begins as heard, but for a moment before speech."""
        while self._stretches:
            first = self._stretches[0]
            more_may_come = len(self._stretches) == 1 and not self.finished
            ahead = min(len(first), PAUSE_STEP + PAUSE_KEPT)
            if ahead < PAUSE_STEP + PAUSE_KEPT and more_may_come:
                return
            until = first.start + (PAUSE_STEP if ahead < len(first) or more_may_come else ahead)
            if not all(is_quiet(first.side(side, first.start, first.start + ahead)) for side in range(self._tracks)):
                return
            self._heard = [max(heard, until) for heard in self._heard]
            self._forget(until)

    def _unsent(self) -> list[_Stretch]:
        return [stretch for stretch in self._stretches if stretch.end > self._next]

    def _alone(self, side: int) -> ReplayBuffer:
        alone = ReplayBuffer(1, self._most)
        alone.finished = self.finished
        for stretch in self._stretches:
            start = max(stretch.start, self._heard[side])
            if start < stretch.end:
                alone.add(Piece(start, stretch.side(side, start, stretch.end)))
        alone._end = self._end
        alone._heard = [self._heard[side]]
        alone._unsafe = [self._unsafe[side].copy()]
        alone._losses = [[Loss(0, loss.start, loss.end) for loss in self._losses[side]]]
        alone._next = self._next
        return alone

    def _forget(self, position: int) -> None:
        while self._stretches and self._stretches[0].start < position:
            oldest = self._stretches[0]
            samples = min(position - oldest.start, len(oldest))
            oldest.forget(samples)
            self._held -= samples
            if oldest.audio:
                return
            self._stretches.popleft()

    def _drop_oldest(self, samples: int) -> None:
        """Makes room. Audio already sent is lost only if the connection is; audio not yet sent is lost now."""
        while samples > 0:
            oldest = self._stretches[0]
            start, end = oldest.start, oldest.start + min(samples, len(oldest))
            if start < self._next:
                self._risk(oldest, start, min(end, self._next))
            if end > self._next:
                for side, heard in enumerate(self._heard):
                    self._lose(side, max(heard, self._next, start), end)
                self._waiting -= end - max(self._next, start)
                self._next = end
            self._forget(end)
            samples -= end - start

    def _risk(self, stretch: _Stretch, start: int, end: int) -> None:
        """Notes audio that is lost if the connection is; where nobody speaks there is nothing to lose."""
        for side, unsafe in enumerate(self._unsafe):
            if self.forgets_pauses and is_quiet(stretch.side(side, start, end)):
                continue
            joins = unsafe and start - unsafe[-1][1] <= (RISKS_APART if self.forgets_pauses else 0)
            since = unsafe.pop()[0] if joins else start
            unsafe.append((since, end))

    def _lose_unsafe(self, since: int = 0) -> None:
        for side, unsafe in enumerate(self._unsafe):
            for start, end in unsafe:
                self._lose(side, max(self._heard[side], start, since), end)
            self._unsafe[side] = deque((start, min(end, since)) for start, end in unsafe if start < since)

    def _lose(self, side: int, start: int, end: int) -> None:
        if end <= start:
            return
        losses = self._losses[side]
        if losses and losses[-1].end == start:
            start = losses.pop().start
        losses.append(Loss(side, start, end))

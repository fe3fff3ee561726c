"""Audio held until the service has heard it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.audio import SILENCE, Piece
from relay.replay import STRETCHES_AT_MOST, Clock, Loss, ReplayBuffer


def test_a_whole_chunk_is_taken_or_none() -> None:
    buffer = ReplayBuffer(1, 1000)
    buffer.add(Piece(0, b"abc"))
    assert buffer.take(4) is None
    buffer.add(Piece(3, b"de"))
    assert buffer.take(4) == Piece(0, b"abcd")
    assert buffer.take(4) is None
    assert buffer.take(4, partial=True) == Piece(4, b"e")


def test_the_rest_is_taken_when_no_more_will_come() -> None:
    buffer = ReplayBuffer(1, 1000)
    buffer.add(Piece(0, b"abc"))
    buffer.finished = True
    assert buffer.take(4) == Piece(0, b"abc")
    assert buffer.take(4) is None


def test_a_chunk_does_not_reach_over_a_hole() -> None:
    buffer = ReplayBuffer(1, 1000)
    buffer.add(Piece(0, b"abc"))
    buffer.add(Piece(100, b"defg"))
    assert buffer.take(4) == Piece(0, b"abc")
    assert buffer.take(4) == Piece(100, b"defg")


def test_what_was_sent_but_not_heard_is_sent_again() -> None:
    buffer = ReplayBuffer(1, 1000)
    buffer.add(Piece(0, b"abcdef"))
    buffer.take(4)
    buffer.heard(0, 2)
    buffer.rewind()
    assert buffer.unheard_from == 2
    assert buffer.take(4) == Piece(2, b"cdef")
    assert buffer.losses() == []


def test_a_track_heard_further_than_the_other_is_replayed_as_silence() -> None:
    buffer = ReplayBuffer(2, 1000)
    buffer.add(Piece(0, b"aAbBcCdD"))
    buffer.take(4)
    buffer.heard(0, 3)
    buffer.heard(1, 1)
    buffer.rewind()
    assert buffer.take(4, partial=True) == Piece(1, b"\xffB\xffCdD")


def test_beyond_the_bound_the_oldest_goes_and_is_named_once() -> None:
    buffer = ReplayBuffer(1, 10)
    for start in range(0, 30, 5):
        buffer.add(Piece(start, b"abcde"))
    assert buffer.losses() == [Loss(0, 0, 20)]
    assert buffer.take(10) == Piece(20, b"abcdeabcde")
    buffer.rewind()
    assert buffer.losses() == []


def test_what_was_sent_and_then_dropped_is_lost_only_if_the_connection_is() -> None:
    def sent_and_dropped() -> ReplayBuffer:
        buffer = ReplayBuffer(1, 10)
        buffer.add(Piece(0, b"abcdefghij"))
        buffer.take(10)
        buffer.add(Piece(10, b"klmno"))
        return buffer

    heard = sent_and_dropped()
    heard.heard(0, 10)
    heard.rewind()
    assert heard.losses() == []
    lost = sent_and_dropped()
    lost.rewind()
    assert lost.losses() == [Loss(0, 0, 5)]


def test_all_that_comes_after_it_was_abandoned_is_one_loss() -> None:
    buffer = ReplayBuffer(1, 10)
    buffer.add(Piece(0, b"abc"))
    buffer.abandon()
    for start in range(3, 30, 3):
        buffer.add(Piece(start, b"abc"))
    assert buffer.losses() == [Loss(0, 0, 30)]


def test_audio_in_a_thousand_pieces_is_bounded_too() -> None:
    buffer = ReplayBuffer(1, 1_000_000)
    for n in range(3000):
        buffer.add(Piece(n * 100, b"a"))
    assert len(buffer._stretches) == STRETCHES_AT_MOST
    assert buffer.waiting == STRETCHES_AT_MOST
    assert sum(loss.end - loss.start for loss in buffer.losses()) == 3000 - STRETCHES_AT_MOST


def test_in_a_resumed_session_what_the_service_has_is_not_sent_again() -> None:
    buffer = ReplayBuffer(1, 1000)
    buffer.add(Piece(0, b"abcdef"))
    buffer.take(5)
    buffer.heard(0, 1)
    buffer.resume(3)
    assert buffer.waiting == 3
    assert buffer.take(3) == Piece(3, b"def")
    buffer.rewind()  # the session is gone after all
    assert buffer.take(5) == Piece(1, b"bcdef")


def test_what_did_not_fit_is_lost_in_a_resumed_session_only_where_the_service_has_it_not() -> None:
    buffer = ReplayBuffer(1, 10)
    buffer.add(Piece(0, b"abcdefghij"))
    buffer.take(10)
    buffer.add(Piece(10, b"klmnopqrst"))
    buffer.resume(4)
    assert buffer.losses() == [Loss(0, 4, 10)]
    assert buffer.take(10) == Piece(10, b"klmnopqrst")


def test_each_track_alone_goes_on_from_where_it_was_heard() -> None:
    buffer = ReplayBuffer(2, 1000)
    buffer.add(Piece(0, b"aAbBcCdD"))
    buffer.take(4)
    buffer.heard(0, 3)
    buffer.heard(1, 1)
    left, right = buffer.split()
    left.add(Piece(4, b"e"))
    for alone in (left, right):
        alone.rewind()
    assert left.take(9, partial=True) == Piece(3, b"de")
    assert right.take(9, partial=True) == Piece(1, b"BCD")


def test_a_pause_that_nobody_heard_is_no_loss_where_the_service_says_nothing_of_pauses() -> None:
    def dropped(audio: bytes, *, forgets_pauses: bool) -> list[Loss]:
        buffer = ReplayBuffer(1, 100)
        buffer.forgets_pauses = forgets_pauses
        buffer.add(Piece(0, audio))
        buffer.take(100)
        buffer.add(Piece(100, bytes((SILENCE,)) * 100))
        buffer.rewind()
        return buffer.losses()

    pause, speech = bytes((SILENCE,)) * 100, bytes((0x10,)) * 100
    assert dropped(pause, forgets_pauses=True) == []
    assert dropped(speech, forgets_pauses=True) == [Loss(0, 0, 100)]
    assert dropped(pause, forgets_pauses=False) == [Loss(0, 0, 100)]


class Replaying(RuleBasedStateMachine):
    """For any run of audio, sending, finals and drops: every sample is heard once or lost once, and never both."""

    TRACKS = 2
    MOST = 300

    splits = False  # whether it ends with a service that takes one track at a time

    @initialize(splits=st.booleans())
    def choose(self, splits: bool) -> None:
        self.splits = splits

    def __init__(self) -> None:
        super().__init__()
        self.buffer = ReplayBuffer(self.TRACKS, self.MOST)
        self.end = 0
        self.holes: set[int] = set()
        self.connection: dict[int, bytes] = {}
        self.heard: list[set[int]] = [set(), set()]
        self.heard_until = [0, 0]
        self.lost: list[set[int]] = [set(), set()]

    @staticmethod
    def sample(position: int) -> bytes:
        return bytes((position % 100, 100 + position % 100))

    @rule(samples=st.integers(1, 120), hole=st.sampled_from([0, 0, 0, 50]))
    def more_audio(self, samples: int, hole: int) -> None:
        self.holes.update(range(self.end, self.end + hole))
        start = self.end + hole
        self.buffer.add(Piece(start, b"".join(self.sample(start + n) for n in range(samples))))
        self.end = start + samples

    @rule(chunk=st.integers(1, 80), partial=st.booleans())
    def send(self, chunk: int, partial: bool) -> None:
        piece = self.buffer.take(chunk, partial=partial)
        if piece is None:
            return
        for n in range(len(piece.audio) // 2):
            assert piece.start + n not in self.connection, "sent twice on one connection"
            self.connection[piece.start + n] = piece.audio[2 * n : 2 * n + 2]

    @precondition(lambda self: self.connection)
    @rule(side=st.integers(0, 1), share=st.floats(0, 1))
    def final(self, side: int, share: float) -> None:
        sent = sorted(self.connection)
        until = sent[int(share * (len(sent) - 1))] + 1
        for position in sent:
            if position < until and position not in self.heard[side]:
                byte = self.connection[position][side]
                if byte != SILENCE:
                    assert byte == self.sample(position)[side]
                    self.heard[side].add(position)
        self.buffer.heard(side, until)

    @rule()
    def drop(self) -> None:
        self.connection = {}
        self.buffer.rewind()
        self.collect()

    @precondition(lambda self: self.connection)
    @rule(share=st.floats(0, 1))
    def resume(self, share: float) -> None:
        sent = sorted(self.connection)
        position = sent[int(share * (len(sent) - 1))] + 1
        self.connection = {at: byte for at, byte in self.connection.items() if at < position}
        self.buffer.resume(position)
        self.collect()

    def collect(self) -> None:
        for loss in self.buffer.losses():
            gone = set(range(loss.start, loss.end)) - self.holes
            assert not gone & self.lost[loss.side], "lost twice"
            self.lost[loss.side] |= gone

    @invariant()
    def stays_within_its_bound(self) -> None:
        assert self.buffer.unheard <= self.MOST

    @invariant()
    def counts_what_waits(self) -> None:
        stretches = self.buffer._stretches
        assert self.buffer.waiting == sum(max(0, one.end - max(one.start, self.buffer.next)) for one in stretches)

    def teardown(self) -> None:
        self.buffer.finished = True
        both: list[tuple[tuple[int, ...], ReplayBuffer]] = [((0, 1), self.buffer)]
        alone = [((side,), buffer) for side, buffer in enumerate(self.buffer.split())] if self.splits else []
        for sides, buffer in alone or both:
            buffer.rewind()
            while (piece := buffer.take(80)) is not None:
                self.hear(piece, sides)
            for loss in buffer.losses():
                self.lost[sides[loss.side]] |= set(range(loss.start, loss.end)) - self.holes
        for side in (0, 1):
            assert self.heard[side] | self.lost[side] == set(range(self.end)) - self.holes
            assert not self.heard[side] & self.lost[side]

    def hear(self, piece: Piece, sides: tuple[int, ...]) -> None:
        for n in range(len(piece.audio) // len(sides)):
            for place, side in enumerate(sides):
                byte = piece.audio[len(sides) * n + place]
                if byte != SILENCE:
                    assert byte == self.sample(piece.start + n)[side]
                    assert piece.start + n not in self.heard[side], "would be heard twice"
                    self.heard[side].add(piece.start + n)


TestReplaying = Replaying.TestCase
TestReplaying.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_clock_without_holes_is_an_offset() -> None:
    clock = Clock()
    clock.send(500, 100)
    clock.send(600, 100)
    assert [clock.start(at) for at in (0, 50, 199)] == [500, 550, 699]
    assert clock.end(200) == 700


def test_a_moment_at_a_hole_ends_before_it_and_starts_after_it() -> None:
    clock = Clock()
    clock.send(0, 100)
    clock.send(1000, 100)
    assert clock.end(100) == 100
    assert clock.start(100) == 1000


def test_the_calls_clock_stands_still_while_silence_of_our_own_goes_out() -> None:
    clock = Clock()
    clock.stand_still(500, 100)
    clock.send(500, 100)
    assert [clock.start(at) for at in (0, 50, 99, 100, 150)] == [500, 500, 500, 500, 550]
    assert [clock.end(at) for at in (50, 100, 200)] == [500, 500, 600]
    assert not clock.is_the_calls


def test_a_clock_goes_on_from_what_has_arrived() -> None:
    clock = Clock()
    clock.send(0, 100)
    clock.send(1000, 100)
    clock.rewind(50)
    assert clock.end(50) == 50
    clock.stand_still(50, 20)
    clock.send(50, 10)
    assert [clock.start(at) for at in (49, 50, 69, 70, 79)] == [49, 50, 50, 50, 59]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), min_size=1))
def test_every_sample_sent_is_found_where_it_came_from(steps: list[tuple[int, int]]) -> None:
    clock, position = Clock(), 0
    sent: list[int] = []
    for hole, samples in steps:
        position += hole
        clock.send(position, samples)
        sent += range(position, position + samples)
        position += samples
    assert [clock.start(at) for at in range(len(sent))] == sent

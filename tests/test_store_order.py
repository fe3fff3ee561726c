"""Whatever happens on however many calls, in whatever order: everything is stored once, in order and without a hole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.store.records import Event, Kind, State
from relay.store.store import Store
from relay.store.telling import Stretch, holes, uncovered
from tests.storing import Reader, Talk, eventually, opened, texts

pytest_plugins = ("tests.databases",)

CALLS: Final = 3
STREAMS: Final = 2  # of each call at a time
STORES: Final = 2  # as two processes would have
LENGTH_MS: Final = 60_000

STEPS: Final = st.lists(
    st.tuples(
        st.integers(0, CALLS - 1),
        st.integers(0, STREAMS - 1),
        st.integers(0, STORES - 1),
        st.sampled_from(["begin", "say", "say", "say", "miss", "listen", "end"]),
        st.integers(0, LENGTH_MS),
    ),
    max_size=60,
)


class Calls:
    """What happens on some calls, and what of it is to be stored."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.said: dict[str, list[str]] = defaultdict(list)  # by the call's SID
        self.missed: dict[str, int] = defaultdict(int)
        self._stores = stores
        self._sids: dict[int, str] = {}
        self._live: dict[tuple[int, int], Talk] = {}

    def step(self, call: int, stream: int, store: int, what: str, at_ms: int) -> None:
        """One thing happens, if it can."""
        talk = self._live.get((call, stream))
        if talk is None:
            if what == "begin":
                talk = self._live[call, stream] = Talk(self._stores[store], self._sids.get(call)).begin()
                self._sids[call] = talk.sid
                self.said[talk.sid] += []
        elif what == "say":
            words = f"words {sum(map(len, self.said.values()))}"
            self.said[talk.sid].append(words)
            talk.say(words, at_ms, at_ms + 500)
        elif what == "miss":
            self.missed[talk.sid] += 1
            talk.miss(at_ms, at_ms + 500)
        elif what == "listen":
            talk.listen(at_ms)
        elif what == "end":
            self._live.pop((call, stream)).end(at_ms)

    def end(self) -> None:
        """All that are live end, and all is stored."""
        for talk in self._live.values():
            talk.end(LENGTH_MS)
        eventually(lambda: not any(store.waiting for store in self._stores))


@settings(max_examples=60)
@given(steps=STEPS)
def test_any_order_of_what_happens_is_stored_once_and_without_a_hole(
    database: str, steps: list[tuple[int, int, int, str, int]]
) -> None:
    with opened(database) as one, opened(database) as two:
        readers = [Reader(one), Reader(two)]
        calls = Calls((one, two))
        for step in steps:
            calls.step(*step)
        calls.end()
        newest = one.newest_event_id() if calls.said else 0
        told = [reader.until(lambda events: not newest or (events and events[-1].id >= newest)) for reader in readers]
        assert told[0] == told[1]
        assert all(before.id < after.id for before, after in pairwise(told[0]))
        for sid, said in calls.said.items():
            is_whole(one, sid, said, calls.missed[sid], [event for event in told[0] if event.call_sid == sid])
            assert one.delete(sid)


def is_whole(store: Store, sid: str, said: list[str], missed: int, events: list[Event]) -> None:
    """The call has ended, and all of it is there once."""
    assert (call := store.call(sid)) is not None
    assert call.state is State.ENDED
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events == store.events_after(events[0].id - 1, call_sid=sid, limit=500)
    assert sorted(texts(events)) == sorted(segment.text for segment in store.segments(sid)) == sorted(said)
    gaps = store.gaps(sid)
    assert sum(gap.reason == "Deepgram was away" for gap in gaps) == missed
    last = events[-1]
    assert last.kind is Kind.CALL_ENDED
    assert [segment["id"] for segment in last.data["segments"]] == [segment.id for segment in store.segments(sid)]
    assert last.data["gaps"] == [gap.as_json() for gap in gaps]
    assert last.data["duration_ms"] == call.duration_ms == max(stream.heard_ms for stream in call.streams)
    resumed = sum(event.kind is Kind.CALL_RESUMED for event in events)
    assert sum(event.kind is Kind.CALL_ENDED for event in events) == 1 + resumed


STRETCHES: Final = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 20), st.booleans()).map(
        lambda drawn: Stretch(drawn[0], drawn[0] + drawn[1], drawn[2])
    ),
    max_size=6,
)


@given(STRETCHES)
def test_holes_are_where_no_stream_brought_audio_between_two_that_did(stretches: list[Stretch]) -> None:
    def is_covered(ms: int) -> bool:
        return any(each.start_ms <= ms and (each.is_live or ms < each.end_ms) for each in stretches)

    first = min((each.start_ms for each in stretches), default=0)
    last = max((each.start_ms for each in stretches), default=0)
    missing = {ms for start_ms, end_ms in holes(stretches) for ms in range(start_ms, end_ms)}
    assert missing == {ms for ms in range(first, last) if not is_covered(ms)}


@given(st.integers(0, 40), st.integers(0, 40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=6))
def test_what_no_other_stretch_covers_is_left_whole_and_in_order(
    start_ms: int, end_ms: int, others: list[tuple[int, int]]
) -> None:
    left = list(uncovered(start_ms, end_ms, others))
    covered = {ms for other_start_ms, other_end_ms in others for ms in range(other_start_ms, other_end_ms)}
    assert [ms for stretch in left for ms in range(*stretch)] == [
        ms for ms in range(start_ms, end_ms) if ms not in covered
    ]
    assert all(begins < ends for begins, ends in left)
    assert all(before[1] < after[0] for before, after in pairwise(left))

"""For any schedule of lost connections inside the replay's bound, every frame is heard once, in order and in time.

`make test` runs a few schedules; `make campaign` as many as you like.
"""

from __future__ import annotations

import os
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events import Track
from standins.deepgram import CloseFrame, Drop, Fault, Refusal
from tests.numbered import number_ears
from tests.talking import BOTH, HASTE, Heard, client_for, listening, speak, whole

EXAMPLES = int(os.environ.get("DROP_EXAMPLES", "25"))

hows = st.sampled_from(["reset", "reset", "mute", "abandon", CloseFrame(1000, ""), CloseFrame(1011, "NET-0001")])
drops = st.builds(Drop, after_ms=st.integers(0, 9_000), how=hows)
faults = st.one_of(
    st.builds(Fault, drop=drops),
    st.builds(Fault, drop=drops, answer_late_s=st.sampled_from([0.0, 0.02])),
    st.builds(Fault, refuse=st.builds(Refusal, st.sampled_from([429, 500, 503]), st.just("BUSY"), st.just("Later."))),
    st.builds(Fault, on_end=st.sampled_from(["reset", "ignore"])),
)


@settings(max_examples=EXAMPLES, derandomize=EXAMPLES <= 25)
@given(
    schedule=st.lists(faults, max_size=6),
    tracks=st.sampled_from([(Track.INBOUND,), BOTH]),
    frames=st.integers(1, 700),
    finals=st.sampled_from([300, 3000, range(100, 5000, 20)]),
    seed=st.integers(0, 1000),
)
def test_any_schedule_of_drops_loses_and_doubles_nothing(
    schedule: list[Fault], tracks: tuple[Track, ...], frames: int, finals: int | range, seed: int
) -> None:
    patience = replace(HASTE, answer=0.4, send=0.4)
    with listening(*schedule, ear=number_ears(final_ms=finals, seed=seed)) as server:
        heard = Heard()
        client = client_for(server, heard, tracks, patience=patience)
        speak(client, tracks, frames * 20)
        client.close()
    for track in tracks:
        assert heard.frames(track) == whole(frames * 20)
    assert client.tally.lost_ms == 0

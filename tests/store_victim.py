"""A program that stores calls until it is killed, and prints each event that its subscriber was told of.

Run as: python -m tests.store_victim URL NAME
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import random  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from itertools import count  # noqa: E402

import gevent  # noqa: E402
import orjson  # noqa: E402

from relay.store.records import Event  # noqa: E402
from relay.store.store import Store  # noqa: E402
from tests.storing import Talk  # noqa: E402


def tell(events: Sequence[Event]) -> None:
    """Prints them, one JSON object on each line."""
    for event in events:
        said = {
            "id": event.id,
            "sequence": event.sequence,
            "call": event.call_sid,
            "kind": event.kind,
            "data": event.data,
        }
        sys.stdout.buffer.write(orjson.dumps(said | {"data": event.data}) + b"\n")
    sys.stdout.buffer.flush()


def run_calls(store: Store, name: str) -> None:
    """Short calls, one after the other."""
    for number in count():
        talk = Talk(store, f"CA-{name}-{number}").begin(("Deepgram",), "+15550100")
        at_ms = 0
        for sentence in range(random.randint(0, 12)):
            talk.say(f"{name} {number} {sentence}", at_ms, at_ms + 400)
            at_ms += 500
            gevent.sleep(random.uniform(0, 0.01))
        talk.end(at_ms)


def main() -> None:
    """Three calls at a time."""
    url, name = sys.argv[1:]
    store = Store(url, endpoints={"hook": frozenset({"segment.final"})})
    store.open()
    store.subscribe(tell)
    gevent.joinall([gevent.spawn(run_calls, store, f"{name}-{line}") for line in range(3)])


if __name__ == "__main__":
    main()

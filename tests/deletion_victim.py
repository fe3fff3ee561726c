"""A program that deletes a call and is killed at some moment of that.

Run as: python -m tests.deletion_victim URL SID MOMENT
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

import gevent  # noqa: E402

from relay.store import sounds  # noqa: E402
from relay.store.database import Database  # noqa: E402
from relay.store.ledger import Ledger  # noqa: E402
from relay.store.store import Store  # noqa: E402

_unlink = sounds.unlink


def die(*_: object) -> Any:
    """As if someone had said kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_commit(_: Store) -> None:
    """The files are gone and the rows are there still."""

    def unlink(paths: Iterable[str | Path]) -> None:
        _unlink(paths)
        die()

    sounds.unlink = unlink


def after_the_commit(store: Store) -> None:
    """The rows are gone, and nothing else was done after that."""
    ask = store._writer.ask

    def ask_and_die(work: Callable[[Ledger], Any]) -> Any:
        return die() if ask(work) else None

    store._writer.ask = ask_and_die  # type: ignore[method-assign]


def before_the_log_is_cut_off(_: Store) -> None:
    """The words are in the log only."""
    Database.empty_log = die  # type: ignore[assignment, method-assign]


MOMENTS: Final = {
    moment.__name__: moment for moment in (before_the_commit, after_the_commit, before_the_log_is_cut_off)
}


def main() -> None:
    """Deletes it, and lets the store do what it does after that."""
    url, sid, moment = sys.argv[1:]
    store = Store(url)
    store.open()
    MOMENTS[moment](store)
    store.delete(sid)
    gevent.sleep(60)


if __name__ == "__main__":
    main()

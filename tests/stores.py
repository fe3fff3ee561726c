"""Open stores for tests: a module that wants them says `pytest_plugins = ("tests.databases", "tests.stores")`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from relay.store.store import Store


@pytest.fixture
def make_store(database: str) -> Iterator[Callable[[], Store]]:
    """Stores on one database, as several processes have them, or one process after another."""
    made: list[Store] = []

    def make() -> Store:
        made.append(Store(database))
        made[-1].open()
        return made[-1]

    yield make
    for store in made:
        store.close(10)


@pytest.fixture
def store(make_store: Callable[[], Store]) -> Store:
    """An open store on an empty database."""
    return make_store()

"""Who was let in, and by what; who was turned away, and why. A flood of strangers does not fill the log with it."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

import gevent

log = logging.getLogger(__name__)

TELL_EVERY: Final = 60.0  # seconds between two lines on the same thing


class Doorbook:
    """Counts, for `/metrics`, and tells of what is wrong: the first time at once, then once a minute with the count."""

    def __init__(self, *, tell_every_s: float = TELL_EVERY) -> None:
        self.admitted: Counter[str] = Counter()  # by what
        self.refused: Counter[str] = Counter()  # by why
        self.signatures: Counter[str] = Counter()  # by what came of looking at them
        self._tell_every_s = tell_every_s
        self._untold: Counter[str] = Counter()  # by sentence; one that is here was told a short while ago

    def refuse(self, why: str, sentence: str) -> None:
        """Somebody, or something, was turned away."""
        self.refused[why] += 1
        self.tell(sentence)

    def tell(self, sentence: str) -> None:
        """Logs a sentence of ours: neither a stranger's words nor anything secret may be in it."""
        if sentence in self._untold:
            self._untold[sentence] += 1
            return
        log.warning("%s", sentence)
        self._rest(sentence)

    def _rest(self, sentence: str) -> None:
        self._untold[sentence] = 0
        gevent.spawn_later(self._tell_every_s, self._tell_again, sentence)

    def _tell_again(self, sentence: str) -> None:
        if more := self._untold.pop(sentence):
            log.warning("%s (%d times more within %g s)", sentence, more, self._tell_every_s)
            self._rest(sentence)

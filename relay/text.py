"""Words from outside, made fit to be shown: one line, no control characters, no more than asked for."""

from __future__ import annotations


def printable(said: str, longest: int = 200) -> str:
    """The text with whatever could move a cursor or turn its reading direction replaced by spaces."""
    line = said[: longest + 1]
    if not line.isprintable():
        line = "".join(character if character.isprintable() else " " for character in line)
    line = line.strip()
    return line if len(line) <= longest else f"{line[: longest - 1]}…"

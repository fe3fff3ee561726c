"""The words the local recogniser may hear: those of the sample call, or everyday English. Needs pocketsphinx.

Few words help it more than anything else, so the dictionary is always cut to them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SAMPLE_CALL: Final = Path(__file__).parent / "audio" / "order-status-call.json"
_WORD: Final = re.compile(r"[a-z']+")
GENERAL_WORDS: Final = 8000  # a larger dictionary is slower and errs no less

# Beginnings of words, and whole words, that a machine should not put into a caller's mouth by mistake. In rot13, so
# that nobody has to read them here either.
_RUDE_BEGINNINGS: Final = (
    "shpx fuvg ohyyfuvg ovgpu phag juber fyhg cbea chffl cravf intvan nffubyr onfgneq tbqqnza qnza qnzzvg cvff zbgures"
    " onqnff obbo ergneq frk avtt snt wvmm jnax gjng pencc encvfg cbbc oernfg betnfz znfgheo rebgvp anmv"
)
_RUDE_WORDS: Final = (
    "nff nffrf pbpx pbpxf qvpx qvpxf gvg gvgf uryy penc encr encrq encrf fhpx fhpxf fhpxrq fhpxvat fperj fperjrq"
    " fperjvat anxrq ahqr phz fcrez ubeal uvgyre xvxr fcvp qlxr ubbxre ubbxref oybjwbo"
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The files the recogniser reads: how likely words follow one another, and how they are said."""

    language_model: Path
    dictionary: Path


def sample_call_vocabulary(folder: Path) -> Vocabulary:
    """The sentences of the sample call, and no others: its own words are then recognised well."""
    from pocketsphinx.lm import ArpaBoLM

    turns = [" ".join(_WORD.findall(turn["text"].lower())) for turn in json.loads(SAMPLE_CALL.read_text())["segments"]]
    model = ArpaBoLM(text="\n".join(turns), add_start=True)
    model.compute()
    language_model = folder / "call.lm"
    if not model.write_file(str(language_model)):
        raise OSError(f"cannot write {language_model}")
    return Vocabulary(language_model, _dictionary_of(model.grams_1, folder / "call.dict"))


def general_vocabulary(folder: Path) -> Vocabulary:
    """The likeliest words of the model that comes with pocketsphinx, without the rude ones."""
    from pocketsphinx import NGramModel

    language_model = _model_folder() / "en-us.lm.bin"
    likelihood = NGramModel.readfile(str(language_model)).prob
    polite = (word for word in {_word_of(line) for line in _pronunciations()} if not is_rude(word))
    likeliest = sorted(polite, key=lambda word: (-likelihood([word]), word))[:GENERAL_WORDS]
    return Vocabulary(language_model, _dictionary_of(likeliest, folder / "general.dict"))


def is_rude(word: str) -> bool:
    """Whether a word is better not heard at all than heard by mistake."""
    return _RUDE.fullmatch(word) is not None


def _alternatives(coded: str) -> str:
    return "|".join(map(re.escape, codecs.decode(coded, "rot13").split()))


_RUDE: Final = re.compile(rf"(?:{_alternatives(_RUDE_BEGINNINGS)}).*|{_alternatives(_RUDE_WORDS)}")


def _dictionary_of(words: Iterable[str], path: Path) -> Path:
    wanted = set(words)
    path.write_text("\n".join(line for line in _pronunciations() if _word_of(line) in wanted) + "\n")
    return path


def _pronunciations() -> list[str]:
    return (_model_folder() / "cmudict-en-us.dict").read_text().splitlines()


def _word_of(line: str) -> str:
    """A line's word; "read(2)" is another way to say "read"."""
    return line.split(maxsplit=1)[0].partition("(")[0]


def _model_folder() -> Path:
    from pocketsphinx import get_model_path

    return Path(get_model_path("en-us"))

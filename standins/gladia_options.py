"""What a client asks of Gladia's live endpoint in the body of its POST, checked as the documentation says.

Fields and ranges: https://docs.gladia.io/api-reference/v2/live/init. Where this stand-in is narrower than Gladia,
because it cannot do what is asked, it says "here".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CHANNELS_AT_MOST: Final = 8
METADATA_AT_MOST: Final = 2000  # characters, as JSON
DEFAULT_LANGUAGE: Final = "en"  # what speech is said to be in when no language was named

_CODES: Final = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht "
    "hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps "
    "pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)
_LANGUAGES: Final = frozenset(_CODES.split())
_TARGET_LANGUAGES: Final = _LANGUAGES | {"wo"}
_ENCODINGS: Final = ("wav/pcm", "wav/alaw", "wav/ulaw")
_DEFAULT_ENCODING: Final = "wav/pcm"
_DEFAULT_BIT_DEPTH: Final = 16
_DEFAULT_SAMPLE_RATE: Final = 16_000
_BYTES_A_SAMPLE: Final = {"wav/pcm": 2, "wav/ulaw": 1}
_SAMPLE_RATE_HERE: Final = 8000

# What is said of its own accord, and what only when it is asked for.
_RECEIVED_BY_DEFAULT: Final = frozenset(
    f"receive_{name}"
    for name in (
        *("final_transcripts", "speech_events", "pre_processing_events", "realtime_processing_events"),
        *("post_processing_events", "acknowledgments", "errors"),
    )
)
_RECEIVABLE: Final = _RECEIVED_BY_DEFAULT | {"receive_partial_transcripts", "receive_lifecycle_events"}

Shape = Mapping[str, Any]


class BadBody(Exception):
    """The body breaks rules; each is one sentence that begins with the field's name."""

    def __init__(self, rules: list[str]) -> None:
        super().__init__("; ".join(rules))
        self.rules = rules


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """A body that broke no rule."""

    session_id: str = ""
    encoding: str = "wav/ulaw"
    channels: int = 1
    language: str = DEFAULT_LANGUAGE
    receives: frozenset[str] = _RECEIVED_BY_DEFAULT  # names in `messages_config` that are on
    target_languages: tuple[str, ...] = ()  # of the translation; none: it was not asked for
    named_entities: bool = False
    sentiment: bool = False
    summary: bool = False
    given: Shape = field(default_factory=dict)  # everything, as it was asked

    @property
    def utterance_end_ms(self) -> None:
        """Is no option of Gladia's."""

    @property
    def voices(self) -> int:
        """How many channels are transcribed: always all of them."""
        return self.channels

    @property
    def bytes_a_sample(self) -> int:
        """Of one channel."""
        return _BYTES_A_SAMPLE[self.encoding]

    @property
    def bytes_a_ms(self) -> int:
        """Of all channels."""
        return _SAMPLE_RATE_HERE // 1000 * self.bytes_a_sample * self.channels

    @classmethod
    def parse(cls, body: bytes, session_id: str = "") -> LiveOptions:
        """The options a body asks for, or `BadBody`."""
        given = _read(body)
        languages = given.get("language_config", {}).get("languages") or [DEFAULT_LANGUAGE]
        live, after = given.get("realtime_processing", {}), given.get("post_processing", {})
        return cls(
            session_id=session_id,
            encoding=given.get("encoding", _DEFAULT_ENCODING),
            channels=given.get("channels", 1),
            language=languages[0],
            receives=_received(given.get("messages_config", {})),
            target_languages=tuple(live["translation_config"]["target_languages"]) if live.get("translation") else (),
            named_entities=live.get("named_entity_recognition", False),
            sentiment=live.get("sentiment_analysis", False),
            summary=after.get("summarization", False),
            given=given,
        )


def _read(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise BadBody(["body must be JSON"]) from None
    if rules := list(_BODY(given, "")):
        raise BadBody(rules)
    if rules := [rule for is_broken, rule in _TOGETHER if is_broken(given)]:
        raise BadBody(rules)
    assert isinstance(given, dict)
    return given


def _received(config: Mapping[str, bool]) -> frozenset[str]:
    wanted = {name for name, is_on in config.items() if is_on}
    return frozenset((_RECEIVED_BY_DEFAULT - config.keys()) | wanted)


# --- Each kind of value: what is wrong with one, as sentences that begin with its name -----------------------

Rule = Callable[[object, str], Iterator[str]]


def _boolean(value: object, name: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{name} must be true or false"


def _text(value: object, name: str) -> Iterator[str]:
    if not isinstance(value, str) or not value:
        yield f"{name} must be a text that is not empty"


def _object(value: object, name: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{name} must be an object"


def _metadata(value: object, name: str) -> Iterator[str]:
    yield from _object(value, name)
    if len(json.dumps(value)) > METADATA_AT_MOST:
        yield f"{name} must not exceed {METADATA_AT_MOST} characters"


def _spellings(value: object, name: str) -> Iterator[str]:
    yield from _object(value, name)
    for right, wrong in value.items() if isinstance(value, dict) else ():
        yield from _list_of(_text)(wrong, f"{name}.{right}")


def _number(least: float, most: float) -> Rule:
    def rule(value: object, name: str) -> Iterator[str]:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            yield f"{name} must be a number from {least:g} to {most:g}"

    return rule


def _whole_number(least: int, most: int) -> Rule:
    def rule(value: object, name: str) -> Iterator[str]:
        if type(value) is not int or not least <= value <= most:
            yield f"{name} must be a whole number from {least} to {most}"

    return rule


def _one_of(*choices: str | int) -> Rule:
    def rule(value: object, name: str) -> Iterator[str]:
        if type(value) not in (str, int) or value not in choices:
            yield f"{name} must be one of {', '.join(map(str, choices))}"

    return rule


def _language(known: frozenset[str]) -> Rule:
    def rule(value: object, name: str) -> Iterator[str]:
        if not isinstance(value, str) or value not in known:
            yield f"{name} must be the code of a language"

    return rule


def _list_of(of: Rule, *, at_least: int = 0) -> Rule:
    def rule(value: object, name: str) -> Iterator[str]:
        if not isinstance(value, list) or len(value) < at_least:
            yield f"{name} must be a list" + (" that is not empty" if at_least else "")
            return
        for index, one in enumerate(value):
            yield from of(one, f"{name}.{index}")

    return rule


def _record(fields: Mapping[str, Rule], *required: str) -> Rule:
    def rule(value: object, name: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{name or 'body'} must be an object"
            return
        within = f"{name}." if name else ""
        yield from (f"{within}{missing} is required" for missing in required if missing not in value)
        for key, one in value.items():
            if known := fields.get(key):
                yield from known(one, within + key)
            else:
                yield f"{within}{key} must not be there: no such field is documented"

    return rule


def _vocabulary_entry(value: object, name: str) -> Iterator[str]:
    yield from (_text if isinstance(value, str) else _VOCABULARY_ENTRY)(value, name)


# --- The body ------------------------------------------------------------------------------------------------

_FRACTION: Final = _number(0, 1)
_MESSAGES: Final[Mapping[str, Rule]] = dict.fromkeys(sorted(_RECEIVABLE), _boolean)

_VOCABULARY_ENTRY: Final = _record(
    {
        "value": _text,
        "intensity": _FRACTION,
        "pronunciations": _list_of(_text),
        "language": _language(_LANGUAGES),
    },
    "value",
)

_REALTIME_PROCESSING: Final = _record(
    {
        "custom_vocabulary": _boolean,
        "custom_vocabulary_config": _record(
            {"vocabulary": _list_of(_vocabulary_entry), "default_intensity": _FRACTION}, "vocabulary"
        ),
        "custom_spelling": _boolean,
        "custom_spelling_config": _record({"spelling_dictionary": _spellings}, "spelling_dictionary"),
        "translation": _boolean,
        "translation_config": _record(
            {
                "target_languages": _list_of(_language(_TARGET_LANGUAGES), at_least=1),
                "model": _one_of("base", "batch", "enhanced"),
                "match_original_utterances": _boolean,
                "lipsync": _boolean,
                "context_adaptation": _boolean,
                "context": _text,
                "informal": _boolean,
            },
            "target_languages",
        ),
        "named_entity_recognition": _boolean,
        "sentiment_analysis": _boolean,
    }
)

_BODY: Final = _record(
    {
        "encoding": _one_of(*_ENCODINGS),
        "bit_depth": _one_of(8, 16, 24, 32),
        "sample_rate": _one_of(8000, 16_000, 32_000, 44_100, 48_000),
        "channels": _whole_number(1, CHANNELS_AT_MOST),
        "model": _one_of("solaria-1"),
        "endpointing": _number(0.01, 10),
        "maximum_duration_without_endpointing": _number(5, 60),
        "language_config": _record({"languages": _list_of(_language(_LANGUAGES)), "code_switching": _boolean}),
        "pre_processing": _record({"audio_enhancer": _boolean, "speech_threshold": _FRACTION}),
        "realtime_processing": _REALTIME_PROCESSING,
        "post_processing": _record(
            {
                "summarization": _boolean,
                "summarization_config": _record({"type": _one_of("general", "bullet_points", "concise")}),
                "chapterization": _boolean,  # deprecated, and ignored
            }
        ),
        "messages_config": _record(_MESSAGES),
        "callback": _boolean,
        "callback_config": _record({"url": _text, **_MESSAGES}),
        "custom_metadata": _metadata,
    }
)


# --- Fields that need or exclude each other ------------------------------------------------------------------


def _is_not_of(given: Shape, encoding: str, bit_depth: int) -> bool:
    """Whether this encoding is asked for with another bit depth."""
    is_this = given.get("encoding", _DEFAULT_ENCODING) == encoding
    return bool(is_this and given.get("bit_depth", _DEFAULT_BIT_DEPTH) != bit_depth)


def _lacks_config(given: Shape, name: str) -> bool:
    processing = given.get("realtime_processing", {})
    return bool(processing.get(name)) and f"{name}_config" not in processing


_TOGETHER: Final[tuple[tuple[Callable[[Shape], bool], str], ...]] = (
    (lambda given: given.get("encoding") == "wav/alaw", "encoding must be wav/ulaw or wav/pcm here"),
    (lambda given: _is_not_of(given, "wav/ulaw", 8), "bit_depth must be 8 for wav/ulaw, and its default is not"),
    (lambda given: _is_not_of(given, "wav/pcm", 16), "bit_depth must be 16 for wav/pcm here"),
    (
        lambda given: given.get("sample_rate", _DEFAULT_SAMPLE_RATE) != _SAMPLE_RATE_HERE,
        f"sample_rate must be {_SAMPLE_RATE_HERE} here",
    ),
    (lambda given: bool(given.get("callback")), "callback must be false here"),
    # What becomes of these without a configuration is not documented: there would be nothing to do.
    (lambda given: _lacks_config(given, "translation"), "realtime_processing.translation_config is required"),
    (
        lambda given: _lacks_config(given, "custom_vocabulary"),
        "realtime_processing.custom_vocabulary_config is required",
    ),
    (lambda given: _lacks_config(given, "custom_spelling"), "realtime_processing.custom_spelling_config is required"),
)

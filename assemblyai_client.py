"""AssemblyAI's streaming transcription, `/v3/ws`: what it is told and what it answers. Pure.

Reference: https://www.assemblyai.com/docs/api-reference/streaming-api/universal-streaming and, on messages and their
order, https://www.assemblyai.com/docs/streaming/message-sequence. The other pages named below are of these docs, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlencode

import orjson

from relay.audio import SAMPLE_RATE
from relay.errors import Denied, Lost, Misspoke, Refused, ServiceError, SettingsError, Unavailable
from relay.events import (
    Complained,
    Finished,
    Heard,
    Ignored,
    ServiceEvent,
    SessionBegun,
    SpeechStarted,
    Track,
    Transcript,
    Word,
)
from relay.protocol import Abilities, CallInfo, Endpoint, JsonProtocol, Limits, Message, Traits
from relay.reading import as_ms, as_text, confidence, first_text, json_object, mean_confidence
from relay.settings import address, one_of, setting, switch, text, whole, words
from relay.text import printable

NAME: Final = "AssemblyAI"

TRAITS: Final = Traits(
    name=NAME,
    word="assemblyai",
    tracks=1,  # streaming/label-speakers-and-separate-channels: one session for each channel
    pace=1.0,  # streaming/common-session-errors-and-closures: faster than real time is closed with 3007
    smallest_chunk_ms=50,  # the same page; what is shorter or longer is closed with 3007, too
    largest_chunk_ms=1000,
    idle_after_s=5.0,  # nothing is due then: a KeepAlive resets a timer that only `inactivity_timeout` sets
    # Seconds of audio are held against seconds of time. By how much they may differ is not published: someone was
    # refused 314.9 s in 1.3 s (github.com/pigeonai-org/ViDove/pull/3), so half a second is on the safe side.
    makes_up_s=0.5,
    catches_up=False,
    answers_silence=False,  # streaming/message-sequence: there are turns, and a turn has words
    finalises_silence=False,
)

ABILITIES: Final = Abilities(
    interims="word by word; universal-3 models: at pauses",
    languages="English; with other models 6, 32 or 99",
    keyterms="100, but not with whisper-rt",
    after_a_drop="a new session; what was not final is sent again",
    translation="no",
    after_the_call="nothing",
    longest_session="3 hours",
    billed_by="time connected, for each side of the call",
)

VERSION: Final = "2025-05-12"  # of the protocol, as the published SDK names it in a header

_ENGLISH: Final = "universal-streaming-english"
_MULTILINGUAL: Final = "universal-streaming-multilingual"
_WHISPER: Final = "whisper-rt"
_UNIVERSAL_3: Final = ("u3-rt-pro", "universal-3-5-pro", "universal-3-6-pro")

# What each model knows; whisper-rt finds out by itself which of 99 it hears. For universal-3 models these are the 32 of
# the newest: their number is AssemblyAI's (streaming/universal-3-pro), their names are second-hand. The older ones know
# 6 or 19 of them, and refuse the others themselves.
_SIX: Final = frozenset(("en", "es", "de", "fr", "pt", "it", "multi"))
_THIRTY_TWO: Final = frozenset(
    (
        *_SIX,
        *("af", "ar", "ca", "da", "et", "fa", "fi", "gl", "he", "hi", "ja", "ko", "mr"),
        *("nl", "nn", "no", "ro", "ru", "sv", "tr", "ur", "vi", "xh", "yue", "zh", "zu"),
    )
)
_LANGUAGES: Final = {_ENGLISH: frozenset(("en",)), _MULTILINGUAL: _SIX} | dict.fromkeys(_UNIVERSAL_3, _THIRTY_TWO)
_CODE: Final = re.compile(r"[a-z]{2,3}")
_CODES_AT_MOST: Final = 10  # api-reference/streaming-api/universal-3-pro, `language_codes`

_KEYTERMS_AT_MOST: Final = 100  # streaming/keyterms-prompting: more are an error
_LONGEST_KEYTERM: Final = 50  # characters; the same page: longer ones are ignored

_SOUNDS: Final = re.compile(r"(\s*\[[^\[\]]*\])+\s*")  # streaming/whisper-streaming: [Silence], [Music] are no words


class _Silences(NamedTuple):
    """When a turn is over: silence in ms once the model is as sure of it as `confidence` says, and in any case."""

    confidence: float
    least_ms: int
    most_ms: int


_TURN_DETECTION: Final = {  # streaming/turn-detection
    "aggressive": _Silences(0.4, 160, 400),
    "balanced": _Silences(0.4, 400, 1280),
    "conservative": _Silences(0.7, 800, 3600),
}


# --- Settings -----------------------------------------------------------------------------------------------


def _languages(value: str) -> tuple[str, ...]:
    codes = words(value)
    are_codes = len(codes) <= _CODES_AT_MOST and all(map(_CODE.fullmatch, codes))
    if not are_codes and codes != ("multi",):
        raise ValueError(f"up to {_CODES_AT_MOST} language codes such as en, with commas between, or multi")
    return codes


@dataclass(frozen=True, slots=True)
class AssemblyAISettings:
    """What AssemblyAI is asked for. Raises SettingsError for a combination that it would refuse."""

    api_key: str | None = setting(
        "ASSEMBLYAI_API_KEY", None, text, "Your key, from https://www.assemblyai.com/dashboard.", secret=True
    )
    url: str = setting(
        "ASSEMBLYAI_URL",
        "wss://streaming.assemblyai.com",
        address("wss", "ws"),
        "Where AssemblyAI is; audio stays in Europe with wss://streaming.eu.assemblyai.com, in the USA with"
        " wss://streaming.us.assemblyai.com.",
    )
    # Captions grow word by word with the universal-streaming models alone: a universal-3 model says something early in
    # a turn, then at pauses or every three seconds (streaming/universal-3-pro/turn-detection-and-partials). And the one
    # for English mistakes nothing for another language. Where accuracy counts more, AssemblyAI advises u3-rt-pro.
    speech_model: str = setting(
        "ASSEMBLYAI_SPEECH_MODEL",
        _ENGLISH,
        one_of(_ENGLISH, _MULTILINGUAL, *_UNIVERSAL_3, _WHISPER),
        f"The model that listens: {_ENGLISH}, {_MULTILINGUAL} (6 languages), {', '.join(_UNIVERSAL_3)} (more accurate,"
        f" up to 32, fewer interims) or {_WHISPER} (99).",
    )
    language: tuple[str, ...] = setting(
        "ASSEMBLYAI_LANGUAGE",
        (),
        _languages,
        "What is spoken, with commas between: en,es (universal-3 models only; without it they find out).",
    )
    language_detection: bool = setting(
        "ASSEMBLYAI_LANGUAGE_DETECTION", False, switch, f"Say which language was spoken (not {_ENGLISH})."
    )
    keyterms: tuple[str, ...] = setting(
        "ASSEMBLYAI_KEYTERMS",
        (),
        words,
        f"Names and terms to listen for, with commas between: up to {_KEYTERMS_AT_MOST} (not {_WHISPER}; costs extra).",
    )
    turn_detection: str | None = setting(
        "ASSEMBLYAI_TURN_DETECTION",
        None,
        one_of(*_TURN_DETECTION),
        "How soon a pause ends a turn, and makes its text final: aggressive, balanced or conservative.",
    )
    format_turns: bool = setting(
        "ASSEMBLYAI_FORMAT_TURNS",
        True,
        switch,
        "Punctuation, capitals and numbers in finals (universal-streaming models; the others always do so).",
    )
    connections: int = setting(
        "ASSEMBLYAI_CONNECTIONS",
        100,
        whole(1, 100_000),
        "How many connections may be open at once; each side of a call is one.",
    )
    sessions_per_minute: int = setting(
        "ASSEMBLYAI_SESSIONS_PER_MINUTE",
        100,
        whole(1, 100_000),
        "How many connections your account may open within a minute: 5 if it is a free one.",
    )

    def __post_init__(self) -> None:
        if self.language and self.speech_model not in _UNIVERSAL_3:
            raise SettingsError(
                "ASSEMBLYAI_LANGUAGE can be told to universal-3 models only: leave it out, or set"
                f" ASSEMBLYAI_SPEECH_MODEL={_UNIVERSAL_3[-1]}."
            )
        if not all(_knows(self.speech_model, code) for code in self.language):
            raise SettingsError("ASSEMBLYAI_LANGUAGE has a code of a language that no universal-3 model knows.")
        if self.language_detection and self.speech_model == _ENGLISH:
            raise SettingsError(
                f"ASSEMBLYAI_LANGUAGE_DETECTION needs another ASSEMBLYAI_SPEECH_MODEL than {_ENGLISH}, which knows one."
            )
        if self.keyterms and self.speech_model == _WHISPER:
            raise SettingsError(f"ASSEMBLYAI_KEYTERMS does not work with ASSEMBLYAI_SPEECH_MODEL={_WHISPER}.")
        if len(self.keyterms) > _KEYTERMS_AT_MOST or any(len(term) > _LONGEST_KEYTERM for term in self.keyterms):
            raise SettingsError(
                f"ASSEMBLYAI_KEYTERMS, with those of the call, may be {_KEYTERMS_AT_MOST} terms of up to"
                f" {_LONGEST_KEYTERM} characters."
            )


def _knows(model: str, code: str) -> bool:
    return code in _LANGUAGES[model] if model in _LANGUAGES else _CODE.fullmatch(code) is not None


def _in_language(settings: AssemblyAISettings, language: str) -> AssemblyAISettings:
    """The settings for a call in this language, of which only universal-3 models can be told.

    Dialects have no codes of their own: streaming/universal-3-pro/supported-languages
    """
    code = language.partition("-")[0].lower()
    if not _knows(settings.speech_model, code):
        raise SettingsError(
            "The language of this call is none that ASSEMBLYAI_SPEECH_MODEL knows; another model may know it."
        )
    return replace(settings, language=(code,)) if settings.speech_model in _UNIVERSAL_3 else settings


# --- The service --------------------------------------------------------------------------------------------


class AssemblyAI:
    """AssemblyAI, as configured."""

    traits: Traits = TRAITS
    abilities: Final = ABILITIES

    def __init__(self, settings: AssemblyAISettings) -> None:
        self._settings = settings
        self.limits: Final = Limits(settings.connections, settings.sessions_per_minute)

    def tailored(self, language: str | None, keyterms: tuple[str, ...]) -> Self:
        """The same for a call in this language, with these terms besides."""
        settings = self._settings if language is None else _in_language(self._settings, language)
        if not all(term.strip() and term.isprintable() for term in keyterms):
            raise SettingsError("A call's own terms, like ASSEMBLYAI_KEYTERMS, should each be text on one line.")
        terms = tuple(dict.fromkeys((*settings.keyterms, *keyterms)))
        return type(self)(replace(settings, keyterms=terms))

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> AssemblyAIProtocol:
        """The conversation for one new session."""
        return AssemblyAIProtocol(self._settings, tracks[0])


class AssemblyAIProtocol(JsonProtocol):
    """One session's conversation with AssemblyAI. There is no resuming: a new connection is a new session."""

    def __init__(self, settings: AssemblyAISettings, track: Track) -> None:
        self._settings = settings
        self._track = track
        self._formats = settings.format_turns and settings.speech_model in (_ENGLISH, _MULTILINGUAL)
        self._final: set[int] = set()  # turns that are final
        self._held: tuple[int, Transcript] | None = None  # a turn that has ended and is to be formatted yet
        self._until_ms = 0  # where the last word of the newest final ended
        self._session = ""  # how AssemblyAI's support finds this session
        self._error = ""  # what it said of the close that follows, in full: a close frame holds 123 bytes

    def endpoint(self) -> Endpoint:
        """`/v3/ws` with our options; the bare key goes into a header."""
        headers = {"Authorization": self._settings.api_key or "", "AssemblyAI-Version": VERSION}
        return Endpoint(f"{self._settings.url}/v3/ws?{urlencode(_options(self._settings))}", headers)

    def closing(self) -> list[Message]:
        """After this AssemblyAI sends the turns it still has, then its Termination, and closes. Without it the session
        goes on, and is billed, for 3 hours."""
        return ['{"type":"Terminate"}']

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """What a handshake's HTTP status means. Of such answers only that they occur is documented, and by the SDK."""
        why = _because(body)
        if status in (401, 403):
            return Denied(f"{NAME} refused the key ({status}{why}); check ASSEMBLYAI_API_KEY")
        if status == 402:
            return Denied(f"{NAME} wants to be paid first (402{why}); check the account of ASSEMBLYAI_API_KEY")
        if status == 429:
            return Unavailable(f"{NAME} has been sent too many new connections of yours (429{why})")
        if status == 408 or status >= 500:
            return Unavailable(f"{NAME} is not available ({status}{why})")
        return Refused(f"{NAME} refused the request ({status}{why}); check the ASSEMBLYAI_ settings")

    def closed(self, code: int, reason: str) -> ServiceError:
        """What a close frame means: streaming/common-session-errors-and-closures, and the older codes the SDK knows."""
        told = self._error or printable(reason)
        session = f", session {self._session}" if self._session else ""
        error, sentence, advice = _meaning(code, told.lower())
        return error(f"{NAME} {sentence} ({f'{code} {told}'.strip()}{session}){advice}")

    def kind(self, said: Mapping[str, Any]) -> object:
        """Its type; an error in its old form has none, and only `error`."""
        return said.get("type", "Error" if "error" in said else None)

    def read(self, kind: str, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """What an answer of this type means."""
        if kind == "Turn":
            return self._turn(said)
        if kind == "Begin":
            self._session = printable(as_text(said["id"]))
            return [SessionBegun(NAME, self._session)]
        if kind == "SpeechStarted":
            return [SpeechStarted(self._track, as_ms(said["timestamp"]))]
        if kind == "Termination":
            return [*self._release(), Finished()]
        if kind == "Error":
            self._error = printable(as_text(said["error"]))
            return [Complained(self._error)]
        if kind == "Warning":
            return [Complained(printable(as_text(said["warning"])))]
        return [Ignored(kind[:40])]

    # --- Turns ----------------------------------------------------------------------------------------------

    def _turn(self, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """An interim or a final. With `format_turns` a turn may end twice, bare and then formatted; whether it still
        does is not certain, so both are taken as they come and told apart by their `turn_order`."""
        order = _order(said["turn_order"])
        transcript = self._transcript(said)
        if order in self._final:
            return []
        earlier = self._release() if self._held and self._held[0] != order else []
        if not transcript.is_final:
            return [*earlier, transcript]
        self._held = (order, transcript)
        if self._formats and said.get("turn_is_formatted") is not True:
            return [*earlier, replace(transcript, is_final=False, ends_utterance=False)]
        return [*earlier, *self._release()]

    def _release(self) -> list[ServiceEvent]:
        """The turn that was held, if any, is final as it is."""
        if self._held is None:
            return []
        (order, transcript), self._held = self._held, None
        self._final.add(order)
        self._until_ms = transcript.end_ms
        return [transcript, Heard(self._track, transcript.end_ms)]

    def _transcript(self, said: Mapping[str, Any]) -> Transcript:
        is_final = said["end_of_turn"] is True
        is_noise = self._settings.speech_model == _WHISPER and _names_sounds(said)
        heard = () if is_noise else tuple(map(_word, said.get("words") or ()))
        language = said.get("language_code")
        return Transcript(
            track=self._track,
            text="" if is_noise else self._wording(said, heard, is_final=is_final),
            start_ms=heard[0].start_ms if heard else self._until_ms,
            end_ms=heard[-1].end_ms if heard else self._until_ms,
            is_final=is_final,
            words=heard,
            confidence=mean_confidence(heard),
            language=printable(language, 20) if language and isinstance(language, str) else None,
            ends_utterance=is_final,
        )

    def _wording(self, said: Mapping[str, Any], heard: tuple[Word, ...], *, is_final: bool) -> str:
        """The text of a turn. An interim's lacks the word that is being spoken, which is found among the words
        (streaming/universal-streaming/message-sequence); with universal-3 models it lacks nothing."""
        whole_text = as_text(said["transcript"]).strip()
        if whole_text and (is_final or self._settings.speech_model in _UNIVERSAL_3):
            return whole_text
        return " ".join(word.text for word in heard) or whole_text


# --- Small print --------------------------------------------------------------------------------------------


def _options(settings: AssemblyAISettings) -> dict[str, str]:
    """The query of `/v3/ws`, in its own words. Lists are JSON, as the SDK writes them."""
    is_universal_3 = settings.speech_model in _UNIVERSAL_3
    is_streaming = settings.speech_model in (_ENGLISH, _MULTILINGUAL)
    silences = _TURN_DETECTION.get(settings.turn_detection or "")
    options = {
        "sample_rate": str(SAMPLE_RATE),
        "encoding": "pcm_mulaw",
        "speech_model": settings.speech_model,  # said even where it is the default, which has changed before
        "format_turns": ("true" if settings.format_turns else "false") if is_streaming else None,
        "language_codes": _json_list(settings.language) if is_universal_3 else None,
        "language_detection": "true" if settings.language_detection else None,
        "keyterms_prompt": _json_list(settings.keyterms),
        "end_of_turn_confidence_threshold": str(silences.confidence) if silences and is_streaming else None,
        "min_turn_silence": str(silences.least_ms) if silences else None,
        "max_turn_silence": str(silences.most_ms) if silences else None,
    }
    return {name: value for name, value in options.items() if value}


def _json_list(values: tuple[str, ...]) -> str | None:
    return orjson.dumps(values).decode() if values else None


def _names_sounds(said: Mapping[str, Any]) -> bool:
    """Whether a turn of whisper-rt holds no speech; `transcript` and `words` give a sound's name as if it was said."""
    return _SOUNDS.fullmatch(as_text(said.get("utterance") or "")) is not None


def _order(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("an order that is none")
    return value


def _word(said: Mapping[str, Any]) -> Word:
    return Word(
        text=as_text(said["text"]),
        start_ms=as_ms(said["start"]),
        end_ms=as_ms(said["end"]),
        confidence=confidence(said),
    )


_CHECK: Final = "; check ASSEMBLYAI_API_KEY and its account"
_CHECK_SETTINGS: Final = "; check the ASSEMBLYAI_ settings"

_CLOSED: Final[Mapping[int, tuple[type[ServiceError], str, str]]] = {
    1008: (Denied, "refused the key or its account", _CHECK),
    1013: (Unavailable, "asks to be tried again later", ""),
    3005: (Unavailable, "had an error of its own", ""),
    3006: (Refused, "could not read what it was sent", _CHECK_SETTINGS),
    3007: (Misspoke, "was sent a chunk of audio that is not 50 to 1000 ms long", ""),
    3008: (Lost, "ended the session, which may last 3 hours", ""),
    3009: (Unavailable, "has too many sessions of yours open", ""),
    4001: (Denied, "refused the key", _CHECK),
    4002: (Denied, "wants to be paid first", _CHECK),
    4003: (Denied, "serves paying accounts only", _CHECK),
    4008: (Lost, "ended the session, which had expired", ""),
    4029: (Misspoke, "was sent audio faster than real time", ""),
    4031: (Lost, "ended the session, which had been idle", ""),
    4032: (Misspoke, "was sent a chunk of audio that is too short", ""),
    4033: (Misspoke, "was sent a chunk of audio that is too long", ""),
    4100: (Refused, "could not read what it was sent", _CHECK_SETTINGS),
    4101: (Refused, "could not read what it was sent", _CHECK_SETTINGS),
    4102: (Unavailable, "has too many sessions of yours open", ""),
}


def _meaning(code: int, told: str) -> tuple[type[ServiceError], str, str]:
    """The error, what AssemblyAI did, and what to do. Two codes have two meanings, which their texts tell apart."""
    if code == 1008 and "too many" in told:  # faq/what-happens-if-i-reach-my-concurrency-limit
        return _CLOSED[3009]
    if code == 3007 and "transmission" in told:  # "duration" is in both texts
        return _CLOSED[4029]
    return _CLOSED.get(code, (Lost, "closed the connection", ""))


def _because(body: bytes) -> str:
    reason = first_text(json_object(body), "error", "message", "detail")
    return f": {printable(reason)}" if reason else ""

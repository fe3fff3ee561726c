"""Deepgram's live transcription: what it is told and what it answers. Pure.

There are two conversations: `/v1/listen`, which most models speak, and `/v2/listen`, which Flux does.
Reference: https://developers.deepgram.com/reference/speech-to-text/listen-streaming and .../listen-flux; paths named
below, such as docs/flux/state, are pages of that site. The machine-readable form is
github.com/deepgram/deepgram-api-specs, `asyncapi.yml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self
from urllib.parse import urlencode

from relay.audio import SAMPLE_RATE, SAMPLES_PER_MS, silence
from relay.errors import Denied, Lost, Refused, ServiceError, SettingsError, Unavailable
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
    UtteranceEnded,
    Word,
)
from relay.protocol import Abilities, CallInfo, Endpoint, JsonProtocol, Limits, Message, Traits
from relay.reading import as_text, confidence, first_text, json_object, mean_confidence, seconds_as_ms
from relay.settings import address, decimal, one_of, setting, switch, text, whole, words
from relay.text import printable

TRAITS: Final = Traits(
    name="Deepgram",
    word="deepgram",
    tracks=2,  # of 20 (docs/multichannel); a call has no more
    pace=1.25,  # docs/recovering-from-connection-errors-and-timeouts-when-live-streaming
    smallest_chunk_ms=20,  # docs/measuring-streaming-latency: 20 to 250 ms, about 100
    largest_chunk_ms=250,
    idle_after_s=4.0,  # docs/audio-keep-alive: every 3 to 5 s, or it closes after 10
)

ABILITIES: Final = Abilities(
    interims="about once a second",
    languages="one, or ten mixed (multi)",
    keyterms="500 tokens (nova-3)",
    after_a_drop="a new connection; what was not final is sent again",
    translation="no",
    after_the_call="nothing",
    longest_session="not documented",
    billed_by="audio sent, silence too",  # docs/audio-keep-alive
)

FLUX_TRAITS: Final = Traits(
    name="Deepgram Flux",
    word="deepgram",
    tracks=1,  # docs/flux/nova-3-migration: mono only
    pace=1.25,  # documented for /v1; of Flux nothing else is said
    smallest_chunk_ms=80,  # docs/flux/quickstart: 80 ms is strongly recommended
    largest_chunk_ms=80,
    idle_after_s=1.0,  # turns end by audio alone, and stalls of up to 233 ms were measured on real calls, without loss
    answers_silence=True,  # docs/flux/state: an Update about every 0.25 s of audio, whether anyone speaks or not
    finalises_silence=False,  # not up to its end: an Update without text may be behind a word that has begun
)

FLUX_ABILITIES: Final = replace(
    ABILITIES,
    interims="about four times a second",
    languages="English, or ten (flux-general-multi)",
    keyterms="100 terms, 500 tokens",
)

_FIRST_SILENCE_MS: Final = 100  # sent for want of audio: a KeepAlive does not count as the first, due within 10 s
_FLUX_SILENCE_MS: Final = 960  # twelve of its chunks, and a little less than the time they stand for
_UNTOLD_MS: Final = 2000  # how long before it is told a word may have begun; ours, and more than Flux ever takes
_NORMAL_CLOSE: Final = (1000, 1005)  # with that code, or without any
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multi")
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REDACTIONS: Final = ("true", "pci", "numbers", "aggressive_numbers", "ssn")
_LONGEST_TAG: Final = 128
_KEYTERM_TOKENS: Final = 500
_FLUX_KEYTERMS: Final = 100
_LONGEST_FLUX_KEYTERM: Final = 100  # characters: github.com/deepgram/deepgram-python-sdk/issues/616
_FLUX_REDACTIONS: Final = ((), ("numbers",), ("aggressive_numbers",))
_FLUX_LANGUAGES: Final = {  # docs/flux/language-prompting; en-GB and the like are taken for en
    "flux-general-en": ("en",),
    "flux-general-multi": ("multi", "en", "es", "fr", "de", "hi", "ru", "pt", "ja", "it", "nl"),
}
_NOT_FLUX: Final = (
    *("interim_results", "punctuate", "smart_format", "endpointing", "utterance_end_ms"),
    *("vad_events", "diarize_model", "keywords"),
)
_FLUX_ONLY: Final = ("eot_threshold", "eot_timeout_ms")


# --- Settings -----------------------------------------------------------------------------------------------


def _language(value: str) -> str:
    if not _LANGUAGE.fullmatch(value):
        raise ValueError(f"a language code such as en, en-GB or multi, not {value!r}")
    return value


def _model(value: str) -> str:
    if not _MODEL.fullmatch(value) or (value.startswith("flux") and value not in _FLUX_LANGUAGES):
        raise ValueError(f"the name of a model such as nova-3 or {' or '.join(_FLUX_LANGUAGES)}, not {value!r}")
    return value


def _endpointing(value: str) -> str:
    if value != "false":
        whole(10, 10_000)(value)
    return value


def _tags(value: str) -> tuple[str, ...]:
    if any(len(tag) > _LONGEST_TAG for tag in words(value)):
        raise ValueError(f"tags of up to {_LONGEST_TAG} characters, with commas between")
    return words(value)


def _redactions(value: str) -> tuple[str, ...]:
    return tuple(one_of(*_REDACTIONS)(word) for word in words(value))


@dataclass(frozen=True, slots=True)
class DeepgramSettings:
    """What Deepgram is asked for. Raises SettingsError for a combination that it would refuse."""

    api_key: str | None = setting(
        "DEEPGRAM_API_KEY", None, text, "Your key, from https://console.deepgram.com.", secret=True
    )
    url: str = setting(
        "DEEPGRAM_URL",
        "wss://api.deepgram.com",
        address("wss", "ws"),
        "Where Deepgram is: its EU address, or one you host yourself.",
    )
    model: str = setting(
        "DEEPGRAM_MODEL",
        "nova-3",
        _model,
        "The model that listens. flux-general-en and flux-general-multi hear turns, one side of a call per connection.",
    )
    language: str = setting(
        "DEEPGRAM_LANGUAGE",
        "en",
        _language,
        "What is spoken: en, en-GB, de … or multi (nova-2, nova-3 and flux-general-multi only).",
    )
    interim_results: bool = setting(
        "DEEPGRAM_INTERIM_RESULTS", True, switch, "Text while people still speak, about once a second."
    )
    punctuate: bool = setting("DEEPGRAM_PUNCTUATE", True, switch, "Punctuation and capitals.")
    smart_format: bool = setting(
        "DEEPGRAM_SMART_FORMAT", True, switch, "Dates, times, amounts and numbers as people write them."
    )
    endpointing: str = setting(
        "DEEPGRAM_ENDPOINTING",
        "300",
        _endpointing,
        "Silence, in ms, after which an utterance is final: 300 to 500 for conversation, 100 for multi. false: never.",
    )
    utterance_end_ms: int | None = setting(
        "DEEPGRAM_UTTERANCE_END_MS",
        None,
        whole(1000, 5000),
        "Say when no word has come for so long; heard even over noise. Needs interim results.",
    )
    vad_events: bool = setting("DEEPGRAM_VAD_EVENTS", False, switch, "Say when someone begins to speak.")
    diarize_model: str | None = setting(
        "DEEPGRAM_DIARIZE_MODEL", None, one_of("latest", "v1"), "Tell speakers on one track apart, with this model."
    )
    keyterm: tuple[str, ...] = setting(
        "DEEPGRAM_KEYTERM", (), words, "Names and terms to listen for, with commas between (nova-3 and Flux)."
    )
    keywords: tuple[str, ...] = setting(
        "DEEPGRAM_KEYWORDS", (), words, "The same for models before nova-3: word or word:boost, with commas between."
    )
    redact: tuple[str, ...] = setting(
        "DEEPGRAM_REDACT",
        (),
        _redactions,
        "What to leave out of the transcript: pci, numbers, aggressive_numbers, ssn or true, with commas between.",
    )
    profanity_filter: bool = setting("DEEPGRAM_PROFANITY_FILTER", False, switch, "Leave out swear words.")
    numerals: bool = setting("DEEPGRAM_NUMERALS", False, switch, "Numbers as digits.")
    tag: tuple[str, ...] = setting(
        "DEEPGRAM_TAG", (), _tags, "Labels for Deepgram's usage reports, with commas between; the call's SID is added."
    )

    eot_threshold: float | None = setting(
        "DEEPGRAM_EOT_THRESHOLD",
        None,
        decimal(0.5, 1.0),
        "Flux: how sure it must be that a turn is over, from 0.5 to 1. Its own default is 0.7.",
    )
    eot_timeout_ms: int | None = setting(
        "DEEPGRAM_EOT_TIMEOUT_MS",
        None,
        whole(500, 60_000),
        "Flux: silence, in ms, after which a turn is over in any case. Its own default is 5000.",
    )
    connections: int = setting(
        "DEEPGRAM_CONNECTIONS",
        50,  # reference/api-rate-limits has said 50, 100 and, for some plans and regions, 150
        whole(1, 100_000),
        "How many connections this process opens at once. What your plan allows is in Deepgram's API rate limits.",
    )

    @property
    def is_flux(self) -> bool:
        """Whether the model is one that `/v2/listen` has."""
        return self.model in _FLUX_LANGUAGES

    def __post_init__(self) -> None:
        self._refuse_changed(_NOT_FLUX if self.is_flux else _FLUX_ONLY)
        if self.is_flux:
            self._check_flux()
        else:
            self._check_nova()
        if sum(len(term.split()) for term in self.keyterm) > _KEYTERM_TOKENS:
            raise SettingsError(
                f"DEEPGRAM_KEYTERM and a call's own terms may hold {_KEYTERM_TOKENS} tokens in all; these are more."
            )

    def _refuse_changed(self, unknown: tuple[str, ...]) -> None:
        for field in fields(self):
            if field.name in unknown and getattr(self, field.name) != field.default:
                raise SettingsError(f"{field.metadata['variable'].name} does not work with {self.model}; leave it out.")

    def _check_flux(self) -> None:
        languages = _FLUX_LANGUAGES[self.model]
        if self.language.partition("-")[0] not in languages:
            raise SettingsError(f"DEEPGRAM_LANGUAGE and a call's own may be {', '.join(languages)} with {self.model}.")
        if len(self.keyterm) > _FLUX_KEYTERMS or any(len(term) > _LONGEST_FLUX_KEYTERM for term in self.keyterm):
            raise SettingsError(
                f"DEEPGRAM_KEYTERM and a call's own terms may be {_FLUX_KEYTERMS} with {self.model}, "
                f"each of up to {_LONGEST_FLUX_KEYTERM} characters."
            )
        if self.redact not in _FLUX_REDACTIONS:
            raise SettingsError(f"DEEPGRAM_REDACT may be numbers or aggressive_numbers with {self.model}.")

    def _check_nova(self) -> None:
        nova_3 = self.model.startswith("nova-3")
        if self.utterance_end_ms is not None and not self.interim_results:
            raise SettingsError(
                "DEEPGRAM_UTTERANCE_END_MS needs DEEPGRAM_INTERIM_RESULTS=true: it is found in interims."
            )
        if self.keyterm and not nova_3:
            raise SettingsError(
                "DEEPGRAM_KEYTERM and a call's own terms work with nova-3 and Flux only; "
                f"for {self.model} use DEEPGRAM_KEYWORDS."
            )
        if self.keywords and nova_3:
            raise SettingsError(f"DEEPGRAM_KEYWORDS does not work with {self.model}; use DEEPGRAM_KEYTERM.")
        if self.language == "multi" and not self.model.startswith(("nova-2", "nova-3")):
            raise SettingsError(
                f"DEEPGRAM_LANGUAGE=multi works with nova-2, nova-3 and flux-general-multi, not with {self.model}."
            )


# --- The service --------------------------------------------------------------------------------------------


class Deepgram:
    """Deepgram, as configured."""

    def __init__(self, settings: DeepgramSettings) -> None:
        self._settings = settings

    @property
    def traits(self) -> Traits:
        """What it can take, which depends on the model."""
        return FLUX_TRAITS if self._settings.is_flux else TRAITS

    @property
    def abilities(self) -> Abilities:
        """What it can do, which depends on the model too."""
        return FLUX_ABILITIES if self._settings.is_flux else ABILITIES

    @property
    def limits(self) -> Limits:
        """How many connections it may be asked for."""
        return Limits(connections=self._settings.connections)

    def tailored(self, language: str | None, keyterms: tuple[str, ...]) -> Self:
        """The same for one call's language, and with its names and terms besides. Raises SettingsError."""
        if language is not None and not _LANGUAGE.fullmatch(language):
            raise SettingsError("A call's language should be a code such as en, en-GB or multi.")
        if not all(term.strip() and term.isprintable() for term in keyterms):
            raise SettingsError("A call's own terms should each be text on one line.")
        ours = self._settings
        together = tuple(dict.fromkeys((*ours.keyterm, *keyterms)))
        return type(self)(replace(ours, language=language or ours.language, keyterm=together))

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> DeepgramProtocol | FluxProtocol:
        """The conversation for one new connection."""
        kind = FluxProtocol if self._settings.is_flux else DeepgramProtocol
        return kind(self._settings, call, tracks)


class _Listening(JsonProtocol):
    """What both conversations have in common: how one is let in, and how it fails."""

    _name = TRAITS.name

    def __init__(self, settings: DeepgramSettings, call: CallInfo, tracks: tuple[Track, ...]) -> None:
        self._settings = settings
        self._call = call
        self._tracks = tracks
        self._request = ""  # how Deepgram's support finds this connection

    def accepted(self, headers: Mapping[str, str]) -> None:
        """Keeps the request's id, which every handshake is answered with."""
        self._request = printable(headers.get("dg-request-id", ""))

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """What a handshake's HTTP status means: https://developers.deepgram.com/docs/errors"""
        why = _because(headers, body)
        if status == 401:
            return Denied(f"Deepgram refused the key (401{why}); check DEEPGRAM_API_KEY")
        if status == 402:
            return Denied(f"Deepgram wants to be paid first (402{why}); see https://console.deepgram.com")
        if status == 403:
            return Denied(f"Deepgram's project for this key may not do this (403{why}); check DEEPGRAM_MODEL")
        if status == 429:
            return Unavailable(f"Deepgram has too many connections of yours open (429{why})")
        if status == 408 or status >= 500:
            return Unavailable(f"Deepgram is not available ({status}{why})")
        return Refused(f"Deepgram refused the request ({status}{why}); check the DEEPGRAM_ settings")

    def closed(self, code: int, reason: str) -> ServiceError | None:
        """What a close frame means: docs/stt-troubleshooting-websocket-data-and-net-errors"""
        said = f"{code} {printable(reason)}".strip() + (f", request {self._request}" if self._request else "")
        if code == 1008:
            return Refused(f"{self._name} could not read the audio ({said})")
        if code == 1011:
            return Unavailable(f"{self._name} gave the connection up ({said})")
        return Lost(f"{self._name} closed the connection ({said})")

    def _endpoint(self, path: str, options: list[tuple[str, str | None]]) -> Endpoint:
        """The query has the options that are given; the key goes into a header."""
        query = urlencode([(name, value) for name, value in options if value])
        return Endpoint(
            f"{self._settings.url}{path}?{query}", {"Authorization": f"Token {self._settings.api_key or ''}"}
        )


class DeepgramProtocol(_Listening):
    """One connection's conversation over `/v1/listen`."""

    def __init__(self, settings: DeepgramSettings, call: CallInfo, tracks: tuple[Track, ...]) -> None:
        super().__init__(settings, call, tracks)
        self._has_audio = False
        self._paused: set[Track] = set()  # tracks whose last final ended its utterance

    def endpoint(self) -> Endpoint:
        """`/v1/listen` with our options."""
        return self._endpoint("/v1/listen", _options(self._settings, self._call, len(self._tracks)))

    def audio(self, chunk: bytes) -> list[Message]:
        """The audio as it is; but an empty binary message would end the stream."""
        self._has_audio = True
        return [chunk] if chunk else []

    def idle(self) -> list[Message]:
        """A KeepAlive; before any audio, a moment of silence, since audio must come within 10 s of opening."""
        if self._has_audio:
            return ['{"type":"KeepAlive"}']
        self._has_audio = True
        return [silence(_FIRST_SILENCE_MS * SAMPLES_PER_MS * len(self._tracks))]

    def closing(self) -> list[Message]:
        """After this Deepgram sends what it still has, then its Metadata, and closes."""
        return ['{"type":"CloseStream"}']

    def read(self, kind: str, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """What an answer of this type means."""
        if kind == "Results":
            return self._results(said)
        if kind == "Metadata":
            return [Finished()]
        if kind == "SpeechStarted":
            return [SpeechStarted(self._track(said["channel"]), seconds_as_ms(said["timestamp"]))]
        if kind == "UtteranceEnd":
            return self._utterance_end(said)
        if kind == "Error":
            return [Complained(printable(f"{said.get('variant', '')} {said.get('description', '')}"))]
        return [Ignored(kind[:40])]

    def _results(self, said: Mapping[str, Any]) -> list[ServiceEvent]:
        track = self._track(said["channel_index"])
        best = said["channel"]["alternatives"][0]
        end_ms = seconds_as_ms(said["start"] + said["duration"])
        transcript = Transcript(
            track=track,
            text=as_text(best["transcript"]),
            start_ms=seconds_as_ms(said["start"]),
            end_ms=end_ms,
            is_final=said.get("is_final") is True,
            words=tuple(map(_word, best.get("words") or ())),
            confidence=confidence(best),
            language=next((str(language)[:20] for language in best.get("languages") or ()), None),
            ends_utterance=said.get("speech_final") is True,
        )
        if transcript.text:
            self._paused.discard(track)
        if not transcript.is_final:
            return [transcript]
        if transcript.ends_utterance:
            self._paused.add(track)
        return [transcript, Heard(track, end_ms)]

    def _utterance_end(self, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """Says nothing new after a final that ended its utterance: docs/understanding-end-of-speech-detection"""
        track = self._track(said["channel"])
        last_word = said["last_word_end"]
        if track in self._paused or last_word < 0:
            return [Ignored("UtteranceEnd")]
        return [UtteranceEnded(track, seconds_as_ms(last_word))]

    def _track(self, channel: list[int]) -> Track:
        index = channel[0]
        if index < 0:
            raise IndexError(index)
        return self._tracks[index]


class FluxProtocol(_Listening):
    """One track's conversation over `/v2/listen`, which goes by turns: docs/flux/state."""

    _name = FLUX_TRAITS.name

    def __init__(self, settings: DeepgramSettings, call: CallInfo, tracks: tuple[Track, ...]) -> None:
        super().__init__(settings, call, tracks)
        (self._track,) = tracks
        self._ended_turn = -1  # the newest
        self._unended: Transcript | None = None  # the newest of a turn that has not ended
        self._is_closing = False  # we have said the last
        self._error = ""

    def endpoint(self) -> Endpoint:
        """`/v2/listen` with our options."""
        return self._endpoint("/v2/listen", _flux_options(self._settings, self._call))

    def audio(self, chunk: bytes) -> list[Message]:
        """The audio as it is."""
        return [chunk] if chunk else []

    def idle(self) -> list[Message]:
        """Silence: there is no KeepAlive here, it ends the connection (deepgram-python-sdk issue 649)."""
        return [silence(_FLUX_SILENCE_MS * SAMPLES_PER_MS)]

    def closing(self) -> list[Message]:
        """After this Flux hears out what it has, and closes: docs/flux/close-stream."""
        self._is_closing = True
        return ['{"type":"CloseStream"}']

    def closed(self, code: int, reason: str) -> ServiceError | None:
        """A close of no code is the normal end, unless there was an error."""
        if self._is_closing and code in _NORMAL_CLOSE and not self._error:
            return None
        return super().closed(code, reason or self._error)

    def last_words(self) -> list[ServiceEvent]:
        """CloseStream ends no turn; its last Update is to be taken as final: docs/flux/close-stream."""
        return self._end(self._unended) if self._unended else []

    def read(self, kind: str, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """What an answer of this type means."""
        if kind == "TurnInfo":
            return self._turn_info(said)
        if kind == "Connected":
            return [SessionBegun(self._name, printable(as_text(said["request_id"])))]
        if kind in ("Warning", "Error"):
            complaint = printable(f"{said.get('code', '')} {said.get('description', '')}")
            if kind == "Error":  # it closes after that, and its close frame tells nothing
                self._error = complaint
            return [Complained(complaint)]
        return [Ignored(kind[:40])]

    def _turn_info(self, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """Each tells the whole turn so far; nothing is taken of a turn after the one that ended it."""
        turn, transcript = int(said["turn_index"]), self._transcript(said)
        is_over = said["event"] == "EndOfTurn"
        if turn <= self._ended_turn:
            return [Ignored("TurnInfo")]
        if is_over:
            self._ended_turn = turn
        self._unended = transcript if transcript.text else None
        if not transcript.text:
            return [Heard(self._track, max(0, transcript.end_ms - _UNTOLD_MS))]
        return self._end(transcript) if is_over else [transcript]

    def _end(self, turn: Transcript) -> list[ServiceEvent]:
        """The turn as a final. Not all that was listened to is heard: a turn's end is told some time after its last
        word, and the next word may have begun by then."""
        self._unended = None
        until_ms = turn.words[-1].end_ms if turn.words else turn.end_ms
        return [replace(turn, is_final=True, ends_utterance=True), Heard(self._track, until_ms)]

    def _transcript(self, said: Mapping[str, Any]) -> Transcript:
        """A turn begins with the silence before it, and so for us with its first word."""
        window = {"start": said["audio_window_start"], "end": said["audio_window_end"]}
        words = tuple(_word(window | _given(word)) for word in said.get("words") or ())  # older ones tell no times
        return Transcript(
            track=self._track,
            text=as_text(said["transcript"]),
            start_ms=words[0].start_ms if words else seconds_as_ms(window["start"]),
            end_ms=seconds_as_ms(window["end"]),
            is_final=False,
            words=words,
            confidence=mean_confidence(words),
            language=next((str(language)[:20] for language in said.get("languages") or ()), None),
        )


# --- Small print --------------------------------------------------------------------------------------------


def _options(settings: DeepgramSettings, call: CallInfo, tracks: int) -> list[tuple[str, str | None]]:
    """The query of `/v1/listen`, in its own words; repeatable options come once for each value."""
    return [
        ("model", settings.model),
        ("language", settings.language),
        ("encoding", "mulaw"),
        ("sample_rate", str(SAMPLE_RATE)),
        ("channels", str(tracks)),
        ("multichannel", "true" if tracks > 1 else None),
        ("interim_results", _yes_no(settings.interim_results)),
        ("punctuate", _yes_no(settings.punctuate)),
        ("smart_format", _yes_no(settings.smart_format)),
        ("endpointing", settings.endpointing),
        ("utterance_end_ms", str(settings.utterance_end_ms) if settings.utterance_end_ms else None),
        ("vad_events", "true" if settings.vad_events else None),
        ("diarize_model", settings.diarize_model),
        *(("keyterm", term) for term in settings.keyterm),
        *(("keywords", word) for word in settings.keywords),
        *(("redact", kind) for kind in settings.redact),
        ("profanity_filter", "true" if settings.profanity_filter else None),
        ("numerals", "true" if settings.numerals else None),
        *(("tag", tag) for tag in (call.call_sid, *settings.tag)),
        ("extra", f"call_sid:{call.call_sid}"),
    ]


def _flux_options(settings: DeepgramSettings, call: CallInfo) -> list[tuple[str, str | None]]:
    """The query of `/v2/listen`: docs/flux/configuration."""
    is_hint = settings.model == "flux-general-multi" and settings.language != "multi"
    return [
        ("model", settings.model),
        ("encoding", "mulaw"),
        ("sample_rate", str(SAMPLE_RATE)),
        ("language_hint", settings.language if is_hint else None),
        ("eot_threshold", f"{settings.eot_threshold:g}" if settings.eot_threshold else None),
        ("eot_timeout_ms", str(settings.eot_timeout_ms) if settings.eot_timeout_ms else None),
        *(("keyterm", term) for term in settings.keyterm),
        *(("redact", kind) for kind in settings.redact),
        ("profanity_filter", "true" if settings.profanity_filter else None),
        ("numerals", "true" if settings.numerals else None),
        *(("tag", tag) for tag in (call.call_sid, *settings.tag)),
    ]


def _yes_no(value: bool) -> str:
    return "true" if value else "false"


def _word(said: Mapping[str, Any]) -> Word:
    speaker = said.get("speaker")
    return Word(
        text=as_text(said.get("punctuated_word") or said["word"]),
        start_ms=seconds_as_ms(said["start"]),
        end_ms=seconds_as_ms(said["end"]),
        confidence=confidence(said),
        speaker=speaker if isinstance(speaker, int) else None,
    )


def _given(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def _because(headers: Mapping[str, str], body: bytes) -> str:
    """What Deepgram says of a refused handshake: a header first, since bodies may be bare; and the request's id."""
    reason = headers.get("dg-error") or first_text(json_object(body), "err_msg", "message")
    request = headers.get("dg-request-id")
    return "".join((f": {printable(reason)}" if reason else "", f", request {printable(request)}" if request else ""))

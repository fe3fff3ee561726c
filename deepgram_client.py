"""Deepgram's live transcription, `/v1/listen`: what it is told and what it answers. Pure.

Reference: https://developers.deepgram.com/reference/speech-to-text/listen-streaming
The machine-readable form is github.com/deepgram/deepgram-api-specs, `asyncapi.yml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from relay.audio import SAMPLE_RATE, SAMPLES_PER_MS, silence
from relay.errors import Lost, Refused, ServiceError, SettingsError, Unavailable
from relay.events import (
    Complained,
    Finished,
    Heard,
    Ignored,
    Malformed,
    ServiceEvent,
    SpeechStarted,
    Track,
    Transcript,
    UtteranceEnded,
    Word,
)
from relay.protocol import CallInfo, Endpoint, Message, Traits
from relay.settings import address, one_of, setting, switch, text, whole, words
from relay.text import printable

NAME: Final = "Deepgram"

TRAITS: Final = Traits(
    name=NAME,
    tracks=2,  # of 20 (docs/multichannel); a call has no more
    pace=1.25,  # docs/recovering-from-connection-errors-and-timeouts-when-live-streaming
    smallest_chunk_ms=20,  # docs/measuring-streaming-latency: 20 to 250 ms, about 100
    largest_chunk_ms=250,
    idle_after_s=4.0,  # docs/audio-keep-alive: every 3 to 5 s, or it closes after 10
)

_FIRST_SILENCE_MS: Final = 100  # sent for want of audio: a KeepAlive does not count as the first, due within 10 s
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multi")
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REDACTIONS: Final = ("true", "pci", "numbers", "aggressive_numbers", "ssn")
_LONGEST_S: Final = 1_000_000  # of a connection, eleven days: what is beyond that is no time of a call
_LONGEST_TAG: Final = 128
_KEYTERM_TOKENS: Final = 500


# --- Settings -----------------------------------------------------------------------------------------------


def _language(value: str) -> str:
    if not _LANGUAGE.fullmatch(value):
        raise ValueError(f"a language code such as en, en-GB or multi, not {value!r}")
    return value


def _model(value: str) -> str:
    if not _MODEL.fullmatch(value):
        raise ValueError(f"the name of a model such as nova-3, not {value!r}")
    if value.startswith("flux"):
        raise ValueError(f"a model of Deepgram's /v1/listen such as nova-3; {value} is spoken to in another way")
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
    model: str = setting("DEEPGRAM_MODEL", "nova-3", _model, "The model that listens.")
    language: str = setting(
        "DEEPGRAM_LANGUAGE", "en", _language, "What is spoken: en, en-GB, de … or multi (nova-2 and nova-3 only)."
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
        "DEEPGRAM_KEYTERM", (), words, "Names and terms to listen for, with commas between (nova-3)."
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

    def __post_init__(self) -> None:
        nova_3 = self.model.startswith("nova-3")
        if self.utterance_end_ms is not None and not self.interim_results:
            raise SettingsError(
                "DEEPGRAM_UTTERANCE_END_MS needs DEEPGRAM_INTERIM_RESULTS=true: it is found in interims."
            )
        if self.keyterm and not nova_3:
            raise SettingsError(f"DEEPGRAM_KEYTERM works with nova-3 only; for {self.model} use DEEPGRAM_KEYWORDS.")
        if self.keywords and nova_3:
            raise SettingsError(f"DEEPGRAM_KEYWORDS does not work with {self.model}; use DEEPGRAM_KEYTERM.")
        if sum(len(term.split()) for term in self.keyterm) > _KEYTERM_TOKENS:
            raise SettingsError(f"DEEPGRAM_KEYTERM may hold {_KEYTERM_TOKENS} tokens in all; these are more.")
        if self.language == "multi" and not self.model.startswith(("nova-2", "nova-3")):
            raise SettingsError(f"DEEPGRAM_LANGUAGE=multi works with nova-2 and nova-3, not with {self.model}.")


# --- The service --------------------------------------------------------------------------------------------


class Deepgram:
    """Deepgram, as configured."""

    traits: Final = TRAITS

    def __init__(self, settings: DeepgramSettings) -> None:
        self._settings = settings

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> DeepgramProtocol:
        """The conversation for one new connection."""
        return DeepgramProtocol(self._settings, call, tracks)


class DeepgramProtocol:
    """One connection's conversation with Deepgram. Fills in `relay.protocol.SpeechProtocol`."""

    def __init__(self, settings: DeepgramSettings, call: CallInfo, tracks: tuple[Track, ...]) -> None:
        self._settings = settings
        self._call = call
        self._tracks = tracks
        self._has_audio = False
        self._paused: set[Track] = set()  # tracks whose last final ended its utterance
        self._request = ""  # how Deepgram's support finds this connection

    def endpoint(self) -> Endpoint:
        """`/v1/listen` with our options; the key goes into a header."""
        query = urlencode(_options(self._settings, self._call, len(self._tracks)))
        key = self._settings.api_key or ""
        return Endpoint(f"{self._settings.url}/v1/listen?{query}", {"Authorization": f"Token {key}"})

    def accepted(self, headers: Mapping[str, str]) -> None:
        """Keeps the request's id, which every handshake is answered with."""
        self._request = printable(headers.get("dg-request-id", ""))

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

    def receive(self, message: Message) -> list[ServiceEvent]:
        """What an answer means."""
        if not isinstance(message, str):
            return [Malformed("a binary message")]
        try:
            said = orjson.loads(message)
        except ValueError:
            return [Malformed("not JSON")]
        kind = said.get("type") if isinstance(said, dict) else None
        if not isinstance(kind, str):
            return [Malformed("JSON of no type")]
        try:
            return self._read(kind, said)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError):
            return [Malformed(f"{kind[:40]} not in its documented shape")]

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """What a handshake's HTTP status means: https://developers.deepgram.com/docs/errors"""
        why = _because(headers, body)
        if status == 401:
            return Refused(f"Deepgram refused the key (401{why}); check DEEPGRAM_API_KEY")
        if status == 402:
            return Refused(f"Deepgram wants to be paid first (402{why}); see https://console.deepgram.com")
        if status == 403:
            return Refused(f"Deepgram's project for this key may not do this (403{why}); check DEEPGRAM_MODEL")
        if status == 429:
            return Unavailable(f"Deepgram has too many connections of yours open (429{why})")
        if status == 408 or status >= 500:
            return Unavailable(f"Deepgram is not available ({status}{why})")
        return Refused(f"Deepgram refused the request ({status}{why}); check the DEEPGRAM_ settings")

    def closed(self, code: int, reason: str) -> ServiceError:
        """What a close frame means: docs/stt-troubleshooting-websocket-data-and-net-errors"""
        said = f"{code} {printable(reason)}".strip() + (f", request {self._request}" if self._request else "")
        if code == 1008:
            return Refused(f"Deepgram could not read the audio ({said})")
        if code == 1011:
            return Unavailable(f"Deepgram gave the connection up ({said})")
        return Lost(f"Deepgram closed the connection ({said})")

    def _read(self, kind: str, said: Mapping[str, Any]) -> list[ServiceEvent]:
        if kind == "Results":
            return self._results(said)
        if kind == "Metadata":
            return [Finished()]
        if kind == "SpeechStarted":
            return [SpeechStarted(self._track(said["channel"]), _ms(said["timestamp"]))]
        if kind == "UtteranceEnd":
            return self._utterance_end(said)
        if kind == "Error":
            return [Complained(printable(f"{said.get('variant', '')} {said.get('description', '')}"))]
        return [Ignored(kind[:40])]

    def _results(self, said: Mapping[str, Any]) -> list[ServiceEvent]:
        track = self._track(said["channel_index"])
        best = said["channel"]["alternatives"][0]
        end_ms = _ms(said["start"] + said["duration"])
        transcript = Transcript(
            track=track,
            text=str(best["transcript"]),
            start_ms=_ms(said["start"]),
            end_ms=end_ms,
            is_final=said.get("is_final") is True,
            words=tuple(map(_word, best.get("words") or ())),
            confidence=float(best.get("confidence") or 0),
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
        return [UtteranceEnded(track, _ms(last_word))]

    def _track(self, channel: list[int]) -> Track:
        index = channel[0]
        if index < 0:
            raise IndexError(index)
        return self._tracks[index]


# --- Small print --------------------------------------------------------------------------------------------


def _options(settings: DeepgramSettings, call: CallInfo, tracks: int) -> list[tuple[str, str]]:
    """The query of `/v1/listen`, in its own words; repeatable options come once for each value."""
    options: list[tuple[str, str | None]] = [
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
    return [(name, value) for name, value in options if value]


def _yes_no(value: bool) -> str:
    return "true" if value else "false"


def _word(said: Mapping[str, Any]) -> Word:
    speaker = said.get("speaker")
    return Word(
        text=str(said.get("punctuated_word") or said["word"]),
        start_ms=_ms(said["start"]),
        end_ms=_ms(said["end"]),
        confidence=float(said.get("confidence") or 0),
        speaker=speaker if isinstance(speaker, int) else None,
    )


def _ms(seconds: float) -> int:
    if not 0 <= seconds <= _LONGEST_S:
        raise ValueError("a time that is none")
    return round(seconds * 1000)


def _because(headers: Mapping[str, str], body: bytes) -> str:
    """What Deepgram says of a refused handshake: a header first, since bodies may be bare; and the request's id."""
    reason = headers.get("dg-error") or _body_message(body)
    request = headers.get("dg-request-id")
    return "".join((f": {printable(reason)}" if reason else "", f", request {printable(request)}" if request else ""))


def _body_message(body: bytes) -> str:
    try:
        said = orjson.loads(body)
        return str(said.get("err_msg") or said.get("message") or "")
    except (ValueError, AttributeError):
        return ""

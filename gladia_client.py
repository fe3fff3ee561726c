"""Gladia's live transcription, version 2: what it is told and what it answers. Pure.

A session is asked for over HTTP, and the answer has the URL of its WebSocket, with a token in it. When the connection
is lost, another one to the same URL goes on where it broke off.
Reference: https://docs.gladia.io/api-reference/v2/live/init; pages named below, such as chapters/live-stt/quickstart,
are of that site, and so is asyncapi.yaml, its machine-readable form.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, urlsplit

import orjson

from relay.audio import SAMPLE_RATE, SAMPLES_PER_MS, silence
from relay.errors import Denied, Lost, Misspoke, Refused, ServiceError, SettingsError, Unavailable
from relay.events import (
    CallResult,
    Complained,
    Finished,
    Heard,
    Ignored,
    Remark,
    ServiceEvent,
    SessionBegun,
    SpeechStarted,
    Summary,
    Track,
    Transcript,
    Translation,
    Word,
)
from relay.protocol import Abilities, CallInfo, Endpoint, JsonProtocol, Limits, Message, Request, Traits
from relay.reading import as_text, confidence, first_text, json_object, seconds_as_ms
from relay.settings import address, decimal, one_of, setting, switch, text, whole, words
from relay.text import printable

NAME: Final = "Gladia"

TRAITS: Final = Traits(
    name=NAME,
    word="gladia",
    tracks=2,  # of 8 (api-reference/v2/live/init); each is billed
    pace=10.0,  # no limit is documented, and the published SDK sends a backlog all at once: quick, and gentle
    smallest_chunk_ms=20,  # Gladia's own samples for phone calls pass Twilio's 20 ms on as they are
    largest_chunk_ms=1000,  # 16,000 bytes; messages of more than 1 MiB are closed with 1009, as the SDK notes
    idle_after_s=10.0,  # without audio a session is dropped after about 30 s (github.com/pipecat-ai/pipecat/pull/1643)
    answers_silence=True,  # each chunk is acknowledged, since we ask for that
    finalises_silence=False,  # an utterance has words
)

ABILITIES: Final = Abilities(
    interims="while people speak, from a smaller model",
    languages="about 100, set or detected, mixed too",
    keyterms="any number",
    after_a_drop="the same session, from where Gladia has the audio",
    translation="to one language or several",
    after_the_call="a summary; all of the call as JSON",
    longest_session="3 hours",
    billed_by="audio sent, for each side of the call",
)

_SILENCE_MS: Final = 20  # keeps a session, or asks where it stands; no shorter chunk is known to be taken
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")  # ISO 639-1, and haw; Gladia names no regions
_DETECT: Final = "detect"
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_NEEDED: Final = (
    *("start_session", "start_recording", "stop_recording", "end_recording", "speech_end"),
    "post_chapterization",
)
_VALIDATION_ERRORS_SHOWN: Final = 10


# --- Settings -----------------------------------------------------------------------------------------------


def _codes(value: str) -> tuple[str, ...]:
    codes = tuple(dict.fromkeys(words(value)))
    if not all(map(_LANGUAGE.fullmatch, codes)):
        raise ValueError(f"language codes such as en, de or haw, with commas between, not {value!r}")
    return codes


def _languages(value: str) -> tuple[str, ...]:
    return () if value == _DETECT else _codes(value)


def _model(value: str) -> str:
    if not _MODEL.fullmatch(value):
        raise ValueError(f"the name of a model such as solaria-1, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class GladiaSettings:
    """What Gladia is asked for. Raises SettingsError for a combination that would not do what it says."""

    api_key: str | None = setting("GLADIA_API_KEY", None, text, "Your key, from https://app.gladia.io.", secret=True)
    url: str = setting("GLADIA_URL", "https://api.gladia.io", address("https", "http"), "Where Gladia is.")
    region: str | None = setting(
        "GLADIA_REGION", None, one_of("eu-west", "us-west"), "Where calls are listened to: eu-west or us-west."
    )
    model: str = setting("GLADIA_MODEL", "solaria-1", _model, "The model that listens.")
    languages: tuple[str, ...] = setting(
        "GLADIA_LANGUAGES",
        ("en",),
        _languages,
        "What is spoken: en. Of several, en,de, the one that is heard first is kept; detect finds it among all.",
    )
    code_switching: bool = setting(
        "GLADIA_CODE_SWITCHING", False, switch, "Find the language out anew for each utterance, among several or all."
    )
    endpointing: float = setting(
        "GLADIA_ENDPOINTING",
        0.3,  # chapters/live-stt/recommended-parameters: 0.2 to 0.4 for call centres
        decimal(0.01, 10),
        "Silence, in seconds, after which an utterance is final: 0.01 to 10.",
    )
    maximum_without_endpointing: int = setting(
        "GLADIA_MAXIMUM_WITHOUT_ENDPOINTING",
        15,  # the same page
        whole(5, 60),
        "Seconds of speech without a pause, after which an utterance is final in any case: 5 to 60.",
    )
    partials: bool = setting("GLADIA_PARTIALS", True, switch, "Text while people still speak.")
    custom_vocabulary: tuple[str, ...] = setting(
        "GLADIA_CUSTOM_VOCABULARY", (), words, "Names and terms to listen for, with commas between."
    )
    translate_to: tuple[str, ...] = setting(
        "GLADIA_TRANSLATE_TO", (), _codes, "Languages to translate to, with commas between: de,fr."
    )
    sentiment: bool = setting("GLADIA_SENTIMENT", False, switch, "Say in what mood each sentence was said.")
    named_entities: bool = setting(
        "GLADIA_NAMED_ENTITIES", False, switch, "Say which names, places, dates … were mentioned."
    )
    summary: str = setting(
        "GLADIA_SUMMARY",
        "none",
        one_of("none", "general", "bullet_points", "concise"),
        "A summary at the end of the call: none, general, bullet_points or concise.",
    )
    keep_result: bool = setting(
        "GLADIA_KEEP_RESULT", True, switch, "Fetch, after a call, all that Gladia has made of it, and keep it as JSON."
    )
    connections: int = setting(
        "GLADIA_CONNECTIONS",
        30,  # chapters/limits-and-specifications/concurrency
        whole(1, 100_000),
        "How many sessions your account may have open at once: 1 if it is a free one.",
    )

    def __post_init__(self) -> None:
        if self.code_switching and len(self.languages) == 1:
            raise SettingsError(
                f"GLADIA_CODE_SWITCHING needs several languages in GLADIA_LANGUAGES, or GLADIA_LANGUAGES={_DETECT}."
            )


def _language(spoken: str) -> str:
    """Gladia's code for a language of a call, which may name a region, too."""
    code = spoken.partition("-")[0].lower()
    if not _LANGUAGE.fullmatch(code):
        raise SettingsError("The language of this call should be a code that Gladia knows, such as en, de or haw.")
    return code


# --- The service --------------------------------------------------------------------------------------------


class Gladia:
    """Gladia, as configured."""

    traits: Traits = TRAITS
    abilities: Final = ABILITIES

    def __init__(self, settings: GladiaSettings) -> None:
        self._settings = settings
        self.limits: Final = Limits(settings.connections)

    def tailored(self, language: str | None, keyterms: tuple[str, ...]) -> Self:
        """The same for a call in this language, with these terms besides."""
        settings = self._settings
        if language is not None:
            settings = replace(settings, languages=(_language(language),), code_switching=False)
        terms = tuple(dict.fromkeys((*settings.custom_vocabulary, *keyterms)))
        return type(self)(replace(settings, custom_vocabulary=terms))

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> GladiaProtocol:
        """The conversation for one new session."""
        return GladiaProtocol(self._settings, call, tracks)


class _Progress:
    """How far a session's audio has come, in bytes of all its tracks, over all its connections.

    An acknowledgment's `byte_range` tells which bytes of the session a chunk was: asyncapi.yaml. The last ones before a
    connection breaks may be lost although their audio arrived, and audio sent twice would be words said twice. So a new
    connection begins with a chunk of silence, and its acknowledgment tells where the session stood.
    UNVERIFIED: that bytes are counted on from one connection to the next, as is documented and as the SDK expects; and
    whether a range includes its end, which asyncapi.yaml says and the SDK denies. An end may so be a sample short.
    """

    def __init__(self, tracks: int) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.taken = 0  # before the present connection
        self.is_known = True  # whether we know what Gladia has; not while it is asked
        self.is_ours = True  # whether Gladia counts as we do
        self._tracks = tracks

    @property
    def silence(self) -> bytes:
        """A moment of it, for all tracks."""
        return silence(_SILENCE_MS * SAMPLES_PER_MS * self._tracks)

    def ask(self) -> bytes:
        """The chunk whose acknowledgment will tell what Gladia has."""
        self.is_known = False
        return self.silence

    def send(self, audio: bytes) -> list[Message]:
        """The audio as a message, if there is any: what an empty one means is not documented."""
        self.sent += len(audio)
        return [audio] if audio else []

    def acknowledge(self, start: int, end: int) -> None:
        """A chunk from here to there has arrived."""
        if not 0 <= start <= end:
            raise ValueError("a range that is none")
        if not self.is_known:
            self._resume(self._whole(start))
        elif end <= self.sent:
            self.acknowledged = max(self.acknowledged, self._whole(end))

    def _resume(self, start: int) -> None:
        """Goes on from where Gladia put our question; if that cannot be, from what it has acknowledged for certain: a
        moment may then be heard twice, but none is missed."""
        self.is_known = True
        self.is_ours = self.acknowledged <= start <= self.sent
        self.taken = start if self.is_ours else self.acknowledged
        self.sent = self.acknowledged = self.taken + len(self.silence)

    def _whole(self, position: int) -> int:
        """The same without a part of a sample: after it the tracks would change places."""
        return position - position % self._tracks


class _Told:
    """Which parts of a track our finals have told."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """From here to there, in ms."""
        insort(self._starts, start)
        insort(self._ends, max(start + 1, end))

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any of it was told: then more parts begin before its end than end by its start."""
        return bisect_left(self._starts, max(start + 1, end)) > bisect_right(self._ends, start)


class GladiaProtocol(JsonProtocol):
    """One session's conversation with Gladia, over as many connections as it takes."""

    def __init__(self, settings: GladiaSettings, call: CallInfo, tracks: tuple[Track, ...]) -> None:
        self._settings = settings
        self._call = call
        self._tracks = tracks
        self._session = ""  # how Gladia calls it
        self._url = ""  # of its WebSocket; whoever has it needs no key
        self._secrets = [settings.api_key] if settings.api_key else []
        self._connections = 0
        self._progress = _Progress(len(tracks))
        self._finals: set[tuple[str, Track]] = set()  # utterances that are final
        self._told = {track: _Told() for track in tracks}
        self._stopped = False  # we have said that no more audio will come
        self._is_over = False  # Gladia has no more to do with the session
        self._has_result = False

    # --- What is said ---------------------------------------------------------------------------------------

    def before(self) -> Request | None:
        """Asks for a session, until there is one."""
        if self._url:
            return None
        region = f"?region={self._settings.region}" if self._settings.region else ""
        headers = {**self._key(), "content-type": "application/json"}
        body = orjson.dumps(_wanted(self._settings, self._call, len(self._tracks)))
        return Request("POST", f"{self._settings.url}/v2/live{region}", headers, body)

    def endpoint(self) -> Endpoint:
        """The session's own URL; it holds all that is needed."""
        return Endpoint(self._url)

    def accepted(self, headers: Mapping[str, str]) -> None:
        """Counts connections: all but the first are resumed ones."""
        self._connections += 1

    def opening(self) -> list[Message]:
        """On a resumed connection a moment of silence, which asks where the session stands."""
        return [self._progress.ask()] if self._connections > 1 else []

    @property
    def ready(self) -> bool:
        """Not before Gladia has said where a resumed session stands."""
        return self._progress.is_known

    @property
    def resumable(self) -> bool:
        """Until the session is over (chapters/live-stt/quickstart), or has been told to stop: what a lost connection
        means then is not documented. A session that did not say where it stands, or not in our count, is given up."""
        is_open = bool(self._url) and not self._stopped and not self._is_over
        return is_open and self._progress.is_known and self._progress.is_ours

    @property
    def taken(self) -> int:
        """How many samples Gladia has from the connections before."""
        return self._progress.taken // len(self._tracks)

    def audio(self, chunk: bytes) -> list[Message]:
        """The audio as it is."""
        return self._progress.send(chunk)

    def idle(self) -> list[Message]:
        """A moment of silence: there is no documented message for it."""
        return self._progress.send(self._progress.silence)

    def closing(self) -> list[Message]:
        """After this Gladia sends what it still has, then `end_session`, and closes with 1000."""
        self._stopped = True
        return ['{"type":"stop_recording"}']

    def after(self) -> Request | None:
        """Asks for all that was made of the call, until it is done."""
        if not (self._settings.keep_result and self._stopped) or self._has_result:
            return None
        return Request("GET", f"{self._settings.url}/v2/live/{quote(self._session, safe='')}", self._key())

    def _key(self) -> dict[str, str]:
        return {"x-gladia-key": self._settings.api_key or ""}

    # --- What answers over HTTP mean ------------------------------------------------------------------------

    def answered(self, body: bytes) -> list[ServiceEvent]:
        """The session that was begun, or what was made of the call."""
        return self._result(body) if self._url else self._begin(body)

    def _begin(self, body: bytes) -> list[ServiceEvent]:
        said = json_object(body)
        try:
            session, url = as_text(said["id"]), _websocket(said["url"])
        except (ValueError, KeyError, TypeError):
            raise Unavailable("Gladia's answer does not say where its session is") from None
        self._session, self._url = printable(session), url
        self._secrets += [url, *parse_qs(urlsplit(url).query).get("token", ())]
        return [SessionBegun(NAME, self._session)]

    def _result(self, body: bytes) -> list[ServiceEvent]:
        said = json_object(body)
        status, code = said.get("status"), said.get("error_code")
        if status in ("queued", "processing"):
            return []
        self._has_result = True
        if status == "done":
            return [CallResult(NAME, self._session, body)]
        if status == "error":
            because = f" ({code})" if isinstance(code, int) else ""
            return [Complained(f"Gladia could not make a result of the call{because}")]
        raise Unavailable("Gladia's answer does not say whether the call's result is done")

    # --- What messages mean ---------------------------------------------------------------------------------

    def read(self, kind: str, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """What an answer of this type means."""
        if kind == "error" or said.get("error") or said.get("acknowledged") is False:
            return [Complained(self._shown(f"{kind[:40]}: {_complaint(said)}"))]
        if kind in _NOT_NEEDED:
            return []
        match kind:
            case "audio_chunk":
                start, end = said["data"]["byte_range"]
                self._progress.acknowledge(int(start), int(end))
                return []
            case "transcript":
                return self._transcript(said["data"])
            case "speech_start":
                return [SpeechStarted(self._track(said["data"]), seconds_as_ms(said["data"]["time"]))]
            case "post_transcript" | "post_final_transcript":
                return self._late(said["data"]) if self._connections > 1 else []
            case "translation":
                return [self._translation(said["data"])]
            case "named_entity_recognition":
                return self._remarks("entity", "text", "entity_type", said["data"])
            case "sentiment_analysis":
                return self._remarks("sentiment", "sentiment", "emotion", said["data"])
            case "post_summarization":
                return [Summary(as_text(said["data"]["results"]).strip())]
            case "end_session":  # asyncapi.yaml: no more data will be sent
                self._is_over = True
                return [Finished()]
        return [Ignored(kind[:40])]

    def _transcript(self, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """A partial or a final, which share an id. Ids look as if they held the channel; the examples do not agree."""
        is_final = said["is_final"] is True
        transcript = self._spoken(said["utterance"], is_final=is_final)
        name = (as_text(said["id"]), transcript.track)
        if name in self._finals:
            return []
        if not is_final:
            return [transcript]
        self._finals.add(name)
        return self._tell(transcript)

    def _late(self, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """What was said in the session and has not been told: a final may be said while the connection is away.

        UNVERIFIED: whether Gladia keeps messages for whoever comes back. When the session is over it says all of it.
        """
        utterances = said.get("transcription", said)["utterances"]
        spoken = [self._spoken(utterance, is_final=True) for utterance in utterances]
        late = [one for one in spoken if one.text and not self._told[one.track].overlaps(one.start_ms, one.end_ms)]
        return [event for one in late for event in self._tell(one)]

    def _tell(self, final: Transcript) -> list[ServiceEvent]:
        self._told[final.track].add(final.start_ms, final.end_ms)
        return [final, Heard(final.track, final.end_ms)]

    def _spoken(self, utterance: Mapping[str, Any], *, is_final: bool) -> Transcript:
        language = utterance.get("language")
        return Transcript(
            track=self._track(utterance),
            text=as_text(utterance["text"]).strip(),
            start_ms=seconds_as_ms(utterance["start"]),
            end_ms=seconds_as_ms(utterance["end"]),
            is_final=is_final,
            words=tuple(map(_word, utterance.get("words") or ())),
            confidence=confidence(utterance),
            language=printable(as_text(language), 20) if language else None,
            ends_utterance=is_final,
        )

    def _translation(self, said: Mapping[str, Any]) -> Translation:
        utterance = said["utterance"]
        return Translation(
            track=self._track(utterance),
            text=as_text(said["translated_utterance"]["text"]).strip(),
            start_ms=seconds_as_ms(utterance["start"]),
            end_ms=seconds_as_ms(utterance["end"]),
            language=printable(as_text(said["target_language"]), 20),
        )

    def _remarks(self, kind: str, what: str, how: str, said: Mapping[str, Any]) -> list[ServiceEvent]:
        utterance = said["utterance"]
        track = self._track(utterance)
        return [
            Remark(track, kind, f"{as_text(found[what]).strip()} ({as_text(found[how])})", *_span(found, utterance))
            for found in said["results"]
        ]

    def _track(self, said: Mapping[str, Any]) -> Track:
        """Whose words they are. The channel is there if there are several: asyncapi.yaml."""
        channel = said.get("channel", 0 if len(self._tracks) == 1 else None)
        if channel not in range(len(self._tracks)):
            raise ValueError("a channel that is none")
        return self._tracks[int(channel)]

    # --- What failures mean ---------------------------------------------------------------------------------

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """What an HTTP status means: of a request, or of a handshake, which is about the session alone."""
        said = f"{status}{_because(self._without_secrets(body.decode(errors='replace')))}"
        if self._url and not self._stopped:
            self._is_over = True
            return Lost(f"Gladia does not know its session any more ({said})")
        if status in (401, 403):
            return Denied(f"Gladia refused the key or its account ({said}); check GLADIA_API_KEY")
        if status == 402:
            return Denied(f"Gladia wants to be paid first ({said}); check the account of GLADIA_API_KEY")
        if status == 429:
            return Unavailable(f"Gladia has too many sessions or requests of yours ({said})")
        if status in (408, 413) or status >= 500:
            return Unavailable(f"Gladia is not available ({said})")
        if self._stopped:
            return Refused(f"Gladia has no result of the call ({said}); GLADIA_KEEP_RESULT=false asks for none")
        return Refused(f"Gladia refused the request ({said}); check the GLADIA_ settings")

    def closed(self, code: int, reason: str) -> ServiceError | None:
        """What a close frame means. Documented is that all but 1000 may be resumed (chapters/live-stt/quickstart).

        UNVERIFIED: codes from 4400 on are those of HTTP, it seems. The SDK does not come back after them; what each one
        means is not published. A session that has taken audio has also taken its key: then a new one will tell.
        """
        is_http = 4400 <= code <= 4499
        self._is_over = self._is_over or is_http or code == 1000
        if code == 1000 and self._stopped:
            return None
        said = self._shown(f"{code} {reason}") + (f", session {self._session}" if self._session else "")
        if code in (4401, 4403) and not self._progress.acknowledged:
            return Denied(f"Gladia refused the key or its account ({said}); check GLADIA_API_KEY")
        if code == 4429:
            return Unavailable(f"Gladia has too many sessions of yours open ({said})")
        if code == 1009:
            return Misspoke(f"Gladia was sent a message that is too large ({said})")
        return Lost(f"Gladia closed the connection ({said})")

    def _shown(self, said: str) -> str:
        return printable(self._without_secrets(said))

    def _without_secrets(self, said: str) -> str:
        """Words from Gladia, even if they held the key or the session's token."""
        for secret in self._secrets:
            said = said.replace(secret, "…")
        return said


# --- Small print --------------------------------------------------------------------------------------------


def _wanted(settings: GladiaSettings, call: CallInfo, tracks: int) -> dict[str, Any]:
    """The session that is asked for. UNVERIFIED: mu-law with two channels; the documentation's example has PCM."""
    return _given(
        {
            "encoding": "wav/ulaw",
            "bit_depth": 8,
            "sample_rate": SAMPLE_RATE,
            "channels": tracks,
            "model": settings.model,
            "endpointing": settings.endpointing,
            "maximum_duration_without_endpointing": settings.maximum_without_endpointing,
            "language_config": {"languages": settings.languages, "code_switching": settings.code_switching},
            "realtime_processing": _while_it_lasts(settings),
            "post_processing": _afterwards(settings),
            "messages_config": _messages(settings),
            "custom_metadata": {"call_sid": call.call_sid},
        }
    )


def _while_it_lasts(settings: GladiaSettings) -> dict[str, Any]:
    terms, targets = settings.custom_vocabulary, settings.translate_to
    return _given(
        {
            "custom_vocabulary": bool(terms),
            "custom_vocabulary_config": {"vocabulary": terms} if terms else None,
            "translation": bool(targets),
            "translation_config": {"target_languages": targets} if targets else None,
            "named_entity_recognition": settings.named_entities,
            "sentiment_analysis": settings.sentiment,
        }
    )


def _afterwards(settings: GladiaSettings) -> dict[str, Any]:
    if settings.summary == "none":
        return {}
    return {"summarization": True, "summarization_config": {"type": settings.summary}}


def _given(wishes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wishes.items() if value}


def _messages(settings: GladiaSettings) -> dict[str, bool]:
    """Which messages are to come. All are named, since what holds otherwise is told by an example only."""
    remarks = bool(settings.translate_to) or settings.named_entities or settings.sentiment
    return {
        "receive_partial_transcripts": settings.partials,
        "receive_final_transcripts": True,
        "receive_speech_events": True,
        "receive_pre_processing_events": False,
        "receive_realtime_processing_events": remarks,
        "receive_post_processing_events": True,
        "receive_acknowledgments": True,
        "receive_errors": True,
        "receive_lifecycle_events": True,
    }


def _websocket(value: object) -> str:
    url = as_text(value)
    parts = urlsplit(url)
    if parts.scheme not in ("wss", "ws") or not parts.hostname or not url.isprintable() or " " in url:
        raise ValueError("a URL that is none of a WebSocket")
    return url


def _word(said: Mapping[str, Any]) -> Word:
    return Word(
        text=as_text(said["word"]).strip(),
        start_ms=seconds_as_ms(said["start"]),
        end_ms=seconds_as_ms(said["end"]),
        confidence=confidence(said),
    )


def _span(found: Mapping[str, Any], utterance: Mapping[str, Any]) -> tuple[int, int]:
    """When it was said. In an example of asyncapi.yaml an entity's times lie outside its utterance: then those of the
    utterance are taken."""
    first, last = seconds_as_ms(utterance["start"]), seconds_as_ms(utterance["end"])
    start_ms, end_ms = seconds_as_ms(found["start"]), seconds_as_ms(found["end"])
    return (start_ms, end_ms) if first <= start_ms <= end_ms <= last else (first, last)


def _complaint(said: Mapping[str, Any]) -> str:
    """Why something failed. UNVERIFIED: the shape of `error` messages, which is not published; any is taken."""
    for part in (said.get("error"), said.get("data"), said):
        reason = first_text(part, "message", "exception") if isinstance(part, dict) else part
        if reason and isinstance(reason, str):
            return reason
    return "no reason given"


def _because(body: str) -> str:
    """What Gladia says of a request it refuses, what it finds wrong with it, and how its support finds it."""
    said = json_object(body)
    errors, request = said.get("validation_errors"), first_text(said, "request_id")
    reasons = [said.get("message"), *(map(_validation_error, errors) if isinstance(errors, list) else ())]
    known = [reason for reason in reasons if reason and isinstance(reason, str)][:_VALIDATION_ERRORS_SHOWN]
    return "".join(
        (
            f": {printable('; '.join(known), 300)}" if known else "",
            f", request {printable(request, 60)}" if request else "",
        )
    )


def _validation_error(error: object) -> object:
    """A sentence as it is, or a place in the request and what is wrong there."""
    if not isinstance(error, dict):
        return error
    place = error.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{where} {error.get('msg', '')}".strip()

"""What Deepgram is told, and what its answers mean."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgram_client import Deepgram, DeepgramProtocol, DeepgramSettings
from relay.errors import Denied, Lost, Refused, ServiceError, SettingsError, Unavailable
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
from relay.protocol import CallInfo, Limits
from relay.settings import read

CALL = CallInfo("CA0123456789", "MZ0123456789", (Track.INBOUND, Track.OUTBOUND))
SETTINGS = DeepgramSettings(api_key="secret-key")


def talking(settings: DeepgramSettings = SETTINGS, tracks: tuple[Track, ...] = CALL.tracks) -> DeepgramProtocol:
    protocol = Deepgram(settings).protocol(CALL, tracks)
    assert isinstance(protocol, DeepgramProtocol)
    return protocol


def query(settings: DeepgramSettings = SETTINGS, tracks: tuple[Track, ...] = CALL.tracks) -> dict[str, list[str]]:
    return parse_qs(urlsplit(talking(settings, tracks).endpoint().url).query)


def results(**changes: Any) -> dict[str, Any]:
    said = {
        "type": "Results",
        "channel_index": [1, 2],
        "start": 3.26,
        "duration": 1.84,
        "is_final": True,
        "speech_final": True,
        "from_finalize": False,
        "channel": {
            "alternatives": [
                {
                    "transcript": "Hello there.",
                    "confidence": 0.99,
                    "languages": ["en"],
                    "words": [
                        {"word": "hello", "punctuated_word": "Hello", "start": 3.4, "end": 3.8, "confidence": 0.99},
                        {"word": "there.", "start": 3.8, "end": 4.1, "confidence": 0.9, "speaker": 1},
                    ],
                }
            ]
        },
        "metadata": {"request_id": "r"},
    }
    return {**said, **changes}


def understood(message: object, protocol: DeepgramProtocol | None = None) -> list[ServiceEvent]:
    return (protocol or talking()).receive(json.dumps(message))


# --- What is asked for --------------------------------------------------------------------------------------


def test_both_tracks_share_a_connection_channel_by_channel() -> None:
    asked = query()
    assert asked["encoding"] == ["mulaw"]
    assert asked["sample_rate"] == ["8000"]
    assert asked["channels"] == ["2"]
    assert asked["multichannel"] == ["true"]


def test_one_track_is_mono() -> None:
    asked = query(tracks=(Track.OUTBOUND,))
    assert asked["channels"] == ["1"]
    assert "multichannel" not in asked


def test_the_call_can_be_found_in_deepgrams_console() -> None:
    asked = query(replace(SETTINGS, tag=("shop",)))
    assert asked["tag"] == ["CA0123456789", "shop"]
    assert asked["extra"] == ["call_sid:CA0123456789"]


def test_every_option_is_passed_on() -> None:
    asked = query(
        DeepgramSettings(
            api_key="k",
            model="nova-3-medical",
            language="en-GB",
            punctuate=False,
            smart_format=False,
            endpointing="false",
            utterance_end_ms=1500,
            vad_events=True,
            diarize_model="latest",
            keyterm=("Harbor Books", "tretinoin"),
            redact=("pci", "ssn"),
            profanity_filter=True,
            numerals=True,
        )
    )
    expected = {
        "model": ["nova-3-medical"],
        "language": ["en-GB"],
        "punctuate": ["false"],
        "smart_format": ["false"],
        "endpointing": ["false"],
        "utterance_end_ms": ["1500"],
        "vad_events": ["true"],
        "diarize_model": ["latest"],
        "keyterm": ["Harbor Books", "tretinoin"],
        "redact": ["pci", "ssn"],
        "profanity_filter": ["true"],
        "numerals": ["true"],
        "interim_results": ["true"],
    }
    assert {name: asked[name] for name in expected} == expected


def test_the_key_travels_in_a_header_and_shows_in_no_repr() -> None:
    endpoint = talking().endpoint()
    assert endpoint.headers == {"Authorization": "Token secret-key"}
    assert "secret-key" not in repr(endpoint) + repr(SETTINGS) + endpoint.url


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"DEEPGRAM_UTTERANCE_END_MS": "1000", "DEEPGRAM_INTERIM_RESULTS": "false"}, "DEEPGRAM_UTTERANCE_END_MS"),
        ({"DEEPGRAM_UTTERANCE_END_MS": "200"}, "DEEPGRAM_UTTERANCE_END_MS"),
        ({"DEEPGRAM_KEYWORDS": "snow:2"}, "DEEPGRAM_KEYWORDS"),
        ({"DEEPGRAM_KEYTERM": "snow", "DEEPGRAM_MODEL": "nova-2"}, "DEEPGRAM_KEYTERM"),
        ({"DEEPGRAM_KEYTERM": "snow " * 501}, "DEEPGRAM_KEYTERM"),
        ({"DEEPGRAM_LANGUAGE": "english"}, "DEEPGRAM_LANGUAGE"),
        ({"DEEPGRAM_LANGUAGE": "multi", "DEEPGRAM_MODEL": "enhanced"}, "DEEPGRAM_LANGUAGE"),
        ({"DEEPGRAM_MODEL": "nova 3"}, "DEEPGRAM_MODEL"),
        ({"DEEPGRAM_EOT_THRESHOLD": "0.8"}, "DEEPGRAM_EOT_THRESHOLD"),
        ({"DEEPGRAM_EOT_TIMEOUT_MS": "4000"}, "DEEPGRAM_EOT_TIMEOUT_MS"),
        ({"DEEPGRAM_CONNECTIONS": "0"}, "DEEPGRAM_CONNECTIONS"),
        ({"DEEPGRAM_DIARIZE_MODEL": "v2"}, "DEEPGRAM_DIARIZE_MODEL"),
        ({"DEEPGRAM_ENDPOINTING": "soon"}, "DEEPGRAM_ENDPOINTING"),
        ({"DEEPGRAM_REDACT": "pci,names"}, "DEEPGRAM_REDACT"),
        ({"DEEPGRAM_TAG": "x" * 129}, "DEEPGRAM_TAG"),
        ({"DEEPGRAM_URL": "api.deepgram.com"}, "DEEPGRAM_URL"),
        ({"DEEPGRAM_NUMERALS": "maybe"}, "DEEPGRAM_NUMERALS"),
    ],
)
def test_what_deepgram_would_refuse_is_refused_first_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read(DeepgramSettings, environ)


def test_it_says_what_it_takes_and_how_much_of_it_may_be_used() -> None:
    service = Deepgram(DeepgramSettings(connections=7))
    assert (service.traits.name, service.traits.word, service.traits.tracks) == ("Deepgram", "deepgram", 2)
    assert service.limits == Limits(connections=7)
    assert service.abilities.after_a_drop == "a new connection; what was not final is sent again"


# --- For one call -------------------------------------------------------------------------------------------


def tailored_query(settings: DeepgramSettings, language: str | None, keyterms: tuple[str, ...]) -> dict[str, list[str]]:
    service = Deepgram(settings).tailored(language, keyterms)
    return parse_qs(urlsplit(service.protocol(CALL, CALL.tracks).endpoint().url).query)


def test_a_call_may_have_a_language_and_terms_of_its_own() -> None:
    asked = tailored_query(replace(SETTINGS, keyterm=("snow", "rain")), "de", ("Hafenbuch", "snow"))
    assert asked["language"] == ["de"]
    assert asked["keyterm"] == ["snow", "rain", "Hafenbuch"]


def test_a_call_without_wishes_is_held_as_configured() -> None:
    asked = tailored_query(replace(SETTINGS, model="nova-2", language="fr"), None, ())
    assert asked["language"] == ["fr"]
    assert "keyterm" not in asked


def test_tailoring_leaves_the_service_as_it_was() -> None:
    service = Deepgram(SETTINGS)
    service.tailored("de", ("snow",))
    assert "language=en" in service.protocol(CALL, CALL.tracks).endpoint().url


@pytest.mark.parametrize(
    ("model", "language", "keyterms", "says"),
    [
        ("nova-3", "zzzz-not-one", (), "language should be a code"),
        ("nova-3", "", (), "language should be a code"),
        ("enhanced", "multi", (), "multi works with nova-2, nova-3"),
        ("nova-2", None, ("zzzz",), "work with nova-3 and Flux only; for nova-2"),
        ("nova-3", None, ("zzzz " * 501,), "500 tokens"),
        ("nova-3", None, ("zzzz\x1b[2J",), "text on one line"),
        ("nova-3", None, (" ",), "text on one line"),
    ],
)
def test_what_a_call_may_not_have_is_refused_without_repeating_it(
    model: str, language: str | None, keyterms: tuple[str, ...], says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        Deepgram(DeepgramSettings(model=model)).tailored(language, keyterms)
    assert "zzzz" not in str(refused.value)


# --- What is said -------------------------------------------------------------------------------------------


def test_audio_goes_out_as_it_is_and_never_empty() -> None:
    assert talking().audio(b"abc") == [b"abc"]
    assert talking().audio(b"") == []  # Deepgram takes an empty message for the end


def test_a_pause_is_kept_alive_by_text() -> None:
    protocol = talking()
    protocol.audio(b"abc")
    assert protocol.idle() == ['{"type":"KeepAlive"}']


def test_without_any_audio_silence_comes_first_because_a_keepalive_does_not_count() -> None:
    protocol = talking()
    assert protocol.idle() == [b"\xff" * 1600]
    assert protocol.idle() == ['{"type":"KeepAlive"}']


def test_the_end_is_said_as_text() -> None:
    assert talking().closing() == ['{"type":"CloseStream"}']


# --- What answers mean --------------------------------------------------------------------------------------


def test_a_final_is_a_transcript_and_what_was_heard() -> None:
    assert understood(results()) == [
        Transcript(
            track=Track.OUTBOUND,
            text="Hello there.",
            start_ms=3260,
            end_ms=5100,
            is_final=True,
            words=(Word("Hello", 3400, 3800, 0.99), Word("there.", 3800, 4100, 0.9, speaker=1)),
            confidence=0.99,
            language="en",
            ends_utterance=True,
        ),
        Heard(Track.OUTBOUND, 5100),
    ]


def test_a_word_without_confidence_is_still_a_word() -> None:
    bare = {"alternatives": [{"transcript": "hi", "words": [{"word": "hi", "start": 0, "end": 1, "speaker": "x"}]}]}
    transcript, _heard = understood(results(channel=bare))
    assert isinstance(transcript, Transcript)
    assert transcript.words == (Word("hi", 0, 1000, 0.0),)


@pytest.mark.parametrize("words", [["x"], [None], [[1]], 5])
def test_words_that_are_none_are_malformed(words: object) -> None:
    (event,) = understood(results(channel={"alternatives": [{"transcript": "hi", "words": words}]}))
    assert isinstance(event, Malformed)


def test_an_interim_leaves_the_audio_to_be_heard() -> None:
    (event,) = understood(results(is_final=False, speech_final=False))
    assert isinstance(event, Transcript)
    assert not event.is_final


def test_silence_that_was_listened_to_is_heard() -> None:
    nothing = {"alternatives": [{"transcript": "", "confidence": 0, "words": []}]}
    transcript, heard = understood(results(channel=nothing))
    assert isinstance(transcript, Transcript)
    assert transcript.text == ""
    assert heard == Heard(Track.OUTBOUND, 5100)


def test_metadata_is_the_last_word() -> None:
    assert understood({"type": "Metadata", "duration": 12.4, "channels": 1}) == [Finished()]


def test_speech_started_and_utterance_end() -> None:
    assert understood({"type": "SpeechStarted", "channel": [0, 2], "timestamp": 9.54}) == [
        SpeechStarted(Track.INBOUND, 9540)
    ]
    assert understood({"type": "UtteranceEnd", "channel": [0, 2], "last_word_end": 2.395}) == [
        UtteranceEnded(Track.INBOUND, 2395)
    ]


def test_an_utterance_end_after_a_final_that_ended_it_says_nothing_new() -> None:
    protocol = talking()
    end = {"type": "UtteranceEnd", "channel": [1, 2], "last_word_end": 4.1}
    understood(results(), protocol)
    assert understood(end, protocol) == [Ignored("UtteranceEnd")]
    understood(results(speech_final=False), protocol)
    assert understood(end, protocol) == [UtteranceEnded(Track.OUTBOUND, 4100)]


def test_an_utterance_end_without_a_word_is_ignored() -> None:
    assert understood({"type": "UtteranceEnd", "channel": [0, 2], "last_word_end": -1}) == [Ignored("UtteranceEnd")]


def test_a_complaint_is_passed_on_without_what_we_had_said() -> None:
    said = {"type": "Error", "variant": "SchemaError", "description": "bad text", "message": "our words"}
    (event,) = understood(said)
    assert event == Complained("SchemaError bad text")


def test_what_is_unknown_is_ignored() -> None:
    assert understood({"type": "Horoscope"}) == [Ignored("Horoscope")]


@pytest.mark.parametrize(
    "message",
    [
        b"binary",
        "",
        "[1]",
        "[" * 100_000,
        "{}",
        '{"type": null}',
        '{"type": "Results"}',
        json.dumps(results(channel=None)),
        json.dumps(results(channel={"alternatives": []})),
        json.dumps(results(channel={"alternatives": [{"transcript": None}]})),
        json.dumps(results(channel_index=[2, 3])),
        json.dumps(results(channel_index=[-1, 2])),
        json.dumps(results(channel_index=None)),
        json.dumps(results(start=None)),
        json.dumps(results(start=1e300)),
        json.dumps(results(start=-5)),
        json.dumps(results(start=float("nan"))),
        json.dumps(results(start=float("inf"))),
        '{"type": "SpeechStarted"}',
        '{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": null}',
    ],
)
def test_what_cannot_be_read_is_malformed(message: str | bytes) -> None:
    (event,) = talking().receive(message)
    assert isinstance(event, Malformed)


@given(st.text() | st.binary())
def test_nothing_is_raised_for_anything(message: str | bytes) -> None:
    talking().receive(message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.sampled_from(["Results", "Metadata", "SpeechStarted", "UtteranceEnd", "Error"]),
    st.dictionaries(
        st.sampled_from(["channel_index", "channel", "start", "duration", "timestamp", "last_word_end", "is_final"]),
        json_values,
    ),
)
def test_nothing_is_raised_for_almost_right_answers(kind: str, rest: dict[str, Any]) -> None:
    talking().receive(json.dumps({**rest, "type": kind}))


# --- What failures mean -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (400, Refused, "DEEPGRAM_ settings"),
        (401, Denied, "DEEPGRAM_API_KEY"),
        (402, Denied, "paid"),
        (403, Denied, "DEEPGRAM_MODEL"),
        (404, Refused, "refused the request"),
        (405, Refused, "refused the request"),
        (408, Unavailable, "not available"),
        (429, Unavailable, "too many"),
        (500, Unavailable, "not available"),
        (503, Unavailable, "not available"),
    ],
)
def test_a_refused_handshake_says_what_to_do(status: int, error: type[ServiceError], says: str) -> None:
    headers = {"dg-error": "Invalid credentials.", "dg-request-id": "abc-123"}
    refusal = talking().refused(status, headers, b"")
    assert type(refusal) is error
    for word in (says, str(status), "Invalid credentials.", "abc-123"):
        assert word in str(refusal)
    assert "secret-key" not in str(refusal)


@pytest.mark.parametrize(
    "body", [b'{"err_code":"X","err_msg":"No such model"}', b'{"category":"X","message":"No such model"}']
)
def test_the_body_is_asked_when_the_header_is_missing(body: bytes) -> None:
    assert "No such model" in str(talking().refused(400, {}, body))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff"])
def test_a_bare_refusal_is_still_a_sentence(body: bytes) -> None:
    assert str(talking().refused(400, {}, body)).startswith("Deepgram refused the request (400)")


@pytest.mark.parametrize(
    ("code", "error"), [(1000, Lost), (1001, Lost), (1005, Lost), (1008, Refused), (1011, Unavailable), (4000, Lost)]
)
def test_a_close_frame_has_a_meaning(code: int, error: type[ServiceError]) -> None:
    protocol = talking()
    protocol.accepted({"dg-request-id": "abc-123"})
    closed = protocol.closed(code, "DATA-0000\x1b[2J")
    assert type(closed) is error
    assert "abc-123" in str(closed)
    assert str(code) in str(closed)
    assert "\x1b" not in str(closed)

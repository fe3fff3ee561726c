"""What Gladia is told, and what its answers mean."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args

import pytest
from gladiaio_sdk.v2.live import generated_types as sdk
from hypothesis import given
from hypothesis import strategies as st

from gladia_client import ABILITIES, TRAITS, Gladia, GladiaProtocol, GladiaSettings
from relay.errors import Denied, Lost, Misspoke, Refused, ServiceError, SettingsError, Unavailable
from relay.events import (
    CallResult,
    Complained,
    Finished,
    Heard,
    Ignored,
    Malformed,
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
from relay.protocol import CallInfo, Limits, SpeechService
from relay.settings import read

CALL = CallInfo("CA0123456789", "MZ0123456789", (Track.INBOUND, Track.OUTBOUND))
SETTINGS = GladiaSettings(api_key="secret-key")
EVERYTHING = GladiaSettings(
    api_key="secret-key",
    region="us-west",
    model="solaria-2",
    languages=("en", "haw"),
    code_switching=True,
    endpointing=0.2,
    maximum_without_endpointing=30,
    partials=False,
    custom_vocabulary=("Harbor Books", "Zürich"),
    translate_to=("de", "fr"),
    sentiment=True,
    named_entities=True,
    summary="bullet_points",
)
SESSION = "45463597-20b7-4af7-b3b3-f5fb778203ab"
URL = "wss://api.gladia.io/v2/live?token=secret-token"
BEGUN = {"id": SESSION, "created_at": "2026-09-01T12:00:00.123Z", "url": URL}
SECRETS = ("secret-key", "secret-token")

MONO, STEREO = CALL.tracks[:1], CALL.tracks
CHUNK = 2 * 800  # bytes: 100 ms of two tracks
QUESTION = 2 * 160


def talking(settings: GladiaSettings = SETTINGS, tracks: tuple[Track, ...] = STEREO) -> GladiaProtocol:
    """A session that is connected for the first time."""
    protocol = Gladia(settings).protocol(CALL, tracks)
    protocol.answered(json.dumps(BEGUN).encode())
    protocol.accepted({})
    assert protocol.opening() == []
    return protocol


def wanted(settings: GladiaSettings = SETTINGS, tracks: tuple[Track, ...] = STEREO) -> dict[str, Any]:
    """The session that is asked for."""
    request = Gladia(settings).protocol(CALL, tracks).before()
    assert request is not None
    body = json.loads(request.body)
    assert isinstance(body, dict)
    return body


def message(kind: str, data: object = None, **more: Any) -> dict[str, Any]:
    head = {"session_id": SESSION, "created_at": "2026-09-01T12:00:00.123Z", "type": kind}
    return {**head, **more} if data is None else {**head, "data": data, **more}


def utterance(**changes: Any) -> dict[str, Any]:
    said = {
        "start": 3.26,
        "end": 5.1,
        "confidence": 0.93,
        "channel": 1,
        "language": "en",
        "text": " Hello there.",
        "words": [
            {"word": " Hello", "start": 3.4, "end": 3.8, "confidence": 0.99},
            {"word": " there.", "start": 3.8, "end": 4.1, "confidence": 0.9},
        ],
    }
    return {**said, **changes}


def transcript(*, is_final: bool = True, id: str = "01_00000004", **changes: Any) -> dict[str, Any]:  # noqa: A002
    return message("transcript", {"id": id, "is_final": is_final, "utterance": utterance(**changes)})


def acknowledgment(start: object, end: object) -> dict[str, Any]:
    data = {"byte_range": [start, end], "time_range": [0.0, 0.1]}
    return message("audio_chunk", data, acknowledged=True, error=None)


def translation(**changes: Any) -> dict[str, Any]:
    data = {
        "utterance_id": "01_00000004",
        "utterance": utterance(),
        "original_language": "en",
        "target_language": "de",
        "translated_utterance": utterance(text=" Guten Tag.", language="de", start=0, end=0, channel=0),
    }
    return message("translation", {**data, **changes}, error=None)


def entities(**changes: Any) -> dict[str, Any]:
    found = {"entity_type": "organization", "text": "Harbor Books", "start": 3.5, "end": 4.0, **changes}
    data = {"utterance_id": "01_00000004", "utterance": utterance(), "results": [found]}
    return message("named_entity_recognition", data, error=None)


def mood() -> dict[str, Any]:
    found = {"sentiment": "positive", "emotion": "joy", "text": "Hello", "start": 3.26, "end": 5.1, "channel": 1}
    data = {"utterance_id": "01_00000004", "utterance": utterance(), "results": [found]}
    return message("sentiment_analysis", data, error=None)


SUMMARY = message("post_summarization", {"results": " They greet each other.\n"}, error=None)
WHOLE = {"full_transcript": "Hello there.", "languages": ["en"], "utterances": [utterance()]}
METADATA = {"audio_duration": 5.1, "number_of_distinct_channels": 2, "billing_time": 10.2, "transcription_time": 5.3}
STOPPED = {"recording_duration": 5.1, "recording_left_to_process": 0.4}
UNNEEDED = [
    message("start_session"),
    message("start_recording"),
    message("speech_end", {"time": 9.54, "channel": 0}),
    message("stop_recording", STOPPED, acknowledged=True, error=None),
    message("end_recording", {"recording_duration": 5.1}),
    message("post_transcript", WHOLE),  # unless its connection was lost before
    message("post_final_transcript", {"metadata": METADATA, "transcription": WHOLE}),
]
NEEDED = [
    acknowledgment(0, CHUNK),
    transcript(),
    message("speech_start", {"time": 9.54, "channel": 0}),
    translation(),
    entities(),
    mood(),
    SUMMARY,
    message("end_session"),
]


def understood(said: object, protocol: GladiaProtocol | None = None) -> list[ServiceEvent]:
    return (protocol or talking()).receive(json.dumps(said))


# --- Settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"GLADIA_URL": "wss://api.gladia.io"}, "GLADIA_URL"),
        ({"GLADIA_REGION": "eu"}, "GLADIA_REGION"),
        ({"GLADIA_MODEL": "solaria 1"}, "GLADIA_MODEL"),
        ({"GLADIA_LANGUAGES": "english"}, "GLADIA_LANGUAGES"),
        ({"GLADIA_LANGUAGES": "en-GB"}, "GLADIA_LANGUAGES"),
        ({"GLADIA_LANGUAGES": "en,detect"}, "GLADIA_LANGUAGES"),
        ({"GLADIA_CODE_SWITCHING": "true"}, "GLADIA_CODE_SWITCHING"),
        ({"GLADIA_CODE_SWITCHING": "true", "GLADIA_LANGUAGES": "de,de"}, "GLADIA_CODE_SWITCHING"),
        ({"GLADIA_ENDPOINTING": "0.001"}, "GLADIA_ENDPOINTING"),
        ({"GLADIA_ENDPOINTING": "11"}, "GLADIA_ENDPOINTING"),
        ({"GLADIA_ENDPOINTING": "soon"}, "GLADIA_ENDPOINTING"),
        ({"GLADIA_MAXIMUM_WITHOUT_ENDPOINTING": "4"}, "GLADIA_MAXIMUM_WITHOUT_ENDPOINTING"),
        ({"GLADIA_PARTIALS": "maybe"}, "GLADIA_PARTIALS"),
        ({"GLADIA_TRANSLATE_TO": "German"}, "GLADIA_TRANSLATE_TO"),
        ({"GLADIA_SUMMARY": "short"}, "GLADIA_SUMMARY"),
        ({"GLADIA_CONNECTIONS": "0"}, "GLADIA_CONNECTIONS"),
    ],
)
def test_what_gladia_would_refuse_is_refused_first_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read(GladiaSettings, environ)


def test_settings_are_read_as_they_are_written() -> None:
    environ = {
        "GLADIA_MODEL": "solaria-2",
        "GLADIA_LANGUAGES": "en, de,en",
        "GLADIA_CODE_SWITCHING": "on",
        "GLADIA_ENDPOINTING": "0.25",
        "GLADIA_TRANSLATE_TO": "fr,haw",
        "GLADIA_CONNECTIONS": "1",
    }
    settings = read(GladiaSettings, environ)
    assert settings.model == "solaria-2"
    assert settings.languages == ("en", "de")
    assert settings.endpointing == 0.25
    assert settings.translate_to == ("fr", "haw")
    assert Gladia(settings).limits == Limits(connections=1)
    assert read(GladiaSettings, {"GLADIA_LANGUAGES": "detect"}).languages == ()


def test_it_is_a_service_like_the_others() -> None:
    service: SpeechService = Gladia(SETTINGS)
    assert service.traits is TRAITS
    assert service.abilities is ABILITIES
    assert service.limits == Limits(connections=30)
    assert all(getattr(ABILITIES, field.name) for field in fields(ABILITIES))


def test_a_call_may_have_its_own_language_and_terms() -> None:
    tailored = Gladia(EVERYTHING).tailored("de-AT", ("Café Mozart", "Zürich"))
    protocol = tailored.protocol(CALL, STEREO)
    assert isinstance(tailored, Gladia)
    body = json.loads(protocol.before().body)  # type: ignore[union-attr]
    assert body["language_config"] == {"languages": ["de"], "code_switching": False}
    vocabulary = body["realtime_processing"]["custom_vocabulary_config"]["vocabulary"]
    assert vocabulary == ["Harbor Books", "Zürich", "Café Mozart"]
    assert wanted(EVERYTHING)["language_config"] == {"languages": ["en", "haw"], "code_switching": True}


def test_a_call_of_no_language_is_heard_as_configured() -> None:
    body = json.loads(Gladia(EVERYTHING).tailored(None, ()).protocol(CALL, STEREO).before().body)  # type: ignore[union-attr]
    assert body == wanted(EVERYTHING)


def test_a_language_that_is_none_is_refused_without_repeating_it() -> None:
    with pytest.raises(SettingsError) as refusal:
        Gladia(SETTINGS).tailored("klingon", ())
    assert "klingon" not in str(refusal.value)


# --- What is asked for --------------------------------------------------------------------------------------


def test_both_tracks_share_a_session_channel_by_channel() -> None:
    body = wanted()
    assert (body["encoding"], body["bit_depth"], body["sample_rate"], body["channels"]) == ("wav/ulaw", 8, 8000, 2)
    assert wanted(tracks=MONO)["channels"] == 1


def test_a_plain_call_asks_for_no_more_than_it_needs() -> None:
    body = wanted()
    assert body["model"] == "solaria-1"
    assert body["endpointing"] == 0.3
    assert body["maximum_duration_without_endpointing"] == 15
    assert body["language_config"] == {"languages": ["en"], "code_switching": False}
    assert body["custom_metadata"] == {"call_sid": "CA0123456789"}
    assert body["messages_config"] == {
        "receive_partial_transcripts": True,
        "receive_final_transcripts": True,
        "receive_speech_events": True,
        "receive_pre_processing_events": False,
        "receive_realtime_processing_events": False,
        "receive_post_processing_events": True,
        "receive_acknowledgments": True,
        "receive_errors": True,
        "receive_lifecycle_events": True,
    }
    assert "realtime_processing" not in body
    assert "post_processing" not in body


def test_every_wish_is_passed_on() -> None:
    body = wanted(EVERYTHING)
    assert body["model"] == "solaria-2"
    assert body["endpointing"] == 0.2
    assert body["maximum_duration_without_endpointing"] == 30
    assert body["realtime_processing"] == {
        "custom_vocabulary": True,
        "custom_vocabulary_config": {"vocabulary": ["Harbor Books", "Zürich"]},
        "translation": True,
        "translation_config": {"target_languages": ["de", "fr"]},
        "named_entity_recognition": True,
        "sentiment_analysis": True,
    }
    assert body["post_processing"] == {"summarization": True, "summarization_config": {"type": "bullet_points"}}
    messages = body["messages_config"]
    assert messages["receive_partial_transcripts"] is False
    assert messages["receive_realtime_processing_events"] is True
    assert messages["receive_post_processing_events"] is True


@pytest.mark.parametrize("change", [{"translate_to": ("de",)}, {"sentiment": True}, {"named_entities": True}])
def test_whoever_wants_remarks_is_sent_them(change: dict[str, Any]) -> None:
    assert wanted(replace(SETTINGS, **change))["messages_config"]["receive_realtime_processing_events"] is True


def test_languages_may_be_found_out() -> None:
    settings = replace(SETTINGS, languages=(), code_switching=True)
    assert wanted(settings)["language_config"] == {"languages": [], "code_switching": True}


def test_a_session_is_asked_for_once_with_the_key_in_a_header() -> None:
    protocol = Gladia(SETTINGS).protocol(CALL, STEREO)
    request = protocol.before()
    assert request is not None
    assert (request.method, request.url) == ("POST", "https://api.gladia.io/v2/live")
    assert request.headers == {"x-gladia-key": "secret-key", "content-type": "application/json"}
    assert not protocol.resumable
    assert protocol.answered(json.dumps(BEGUN).encode()) == [SessionBegun("Gladia", SESSION)]
    assert protocol.before() is None
    assert protocol.endpoint().url == URL
    assert protocol.endpoint().headers == {}


def test_a_region_is_asked_for_where_the_session_begins() -> None:
    request = Gladia(EVERYTHING).protocol(CALL, STEREO).before()
    assert request is not None
    assert request.url == "https://api.gladia.io/v2/live?region=us-west"


def test_neither_key_nor_token_shows_in_a_repr() -> None:
    protocol = talking()
    protocol.closing()
    shown = repr([SETTINGS, protocol, protocol.endpoint(), protocol.after(), Gladia(SETTINGS).protocol(CALL, MONO)])
    shown += repr(Gladia(SETTINGS).protocol(CALL, MONO).before())
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff",
        json.dumps({**BEGUN, "id": None}).encode(),
        json.dumps({**BEGUN, "url": None}).encode(),
        json.dumps({**BEGUN, "url": "https://api.gladia.io/v2/live?token=secret-token"}).encode(),
        json.dumps({**BEGUN, "url": "wss:///v2/live?token=secret-token"}).encode(),
        json.dumps({**BEGUN, "url": "wss://[oops?token=secret-token"}).encode(),
        json.dumps({**BEGUN, "url": "wss://api.gladia.io/\r\ntoken=secret-token"}).encode(),
    ],
)
def test_an_answer_without_a_session_is_of_no_use(body: bytes) -> None:
    protocol = Gladia(SETTINGS).protocol(CALL, STEREO)
    with pytest.raises(Unavailable) as trouble:
        protocol.answered(body)
    assert "secret" not in str(trouble.value)
    assert protocol.before() is not None
    assert not protocol.resumable


# --- What is said -------------------------------------------------------------------------------------------


def test_audio_goes_out_as_it_is_and_never_empty() -> None:
    assert talking().audio(b"abcd") == [b"abcd"]
    assert talking().audio(b"") == []


def test_a_pause_is_filled_with_a_moment_of_silence() -> None:
    assert talking().idle() == [b"\xff" * 320]
    assert talking(tracks=MONO).idle() == [b"\xff" * 160]


def test_the_end_is_said_as_text() -> None:
    assert talking().closing() == ['{"type":"stop_recording"}']


def test_a_first_connection_is_ready_at_once() -> None:
    assert talking().ready


# --- Resuming -----------------------------------------------------------------------------------------------


def reconnected(protocol: GladiaProtocol) -> GladiaProtocol:
    """The same session on its next connection, its question asked."""
    assert protocol.resumable
    assert protocol.before() is None
    protocol.accepted({})
    question = b"\xff" * 160 * len(STEREO)
    assert protocol.opening() == [question]
    assert not protocol.ready
    return protocol


def after_audio(*chunks: int, acknowledged: int = 0) -> GladiaProtocol:
    """A session that was sent chunks of so many bytes, of which the first ones were acknowledged."""
    protocol = talking()
    for chunk in chunks:
        protocol.audio(bytes(chunk))
    start = 0
    for chunk in chunks[:acknowledged]:
        assert understood(acknowledgment(start, start + chunk), protocol) == []
        start += chunk
    return protocol


def answer(protocol: GladiaProtocol, start: int) -> int:
    """What Gladia has, in samples, when it puts the question there."""
    assert understood(acknowledgment(start, start + QUESTION), protocol) == []
    assert protocol.ready
    return protocol.taken


@pytest.mark.parametrize("arrived", [1, 2, 3])
def test_a_resumed_session_goes_on_from_where_gladia_puts_the_question(arrived: int) -> None:
    protocol = reconnected(after_audio(CHUNK, CHUNK, CHUNK, acknowledged=1))
    assert answer(protocol, arrived * CHUNK) == arrived * 800
    assert protocol.resumable


def test_a_session_that_lost_its_connection_before_any_audio_goes_on_from_its_start() -> None:
    assert answer(reconnected(after_audio()), 0) == 0


def test_a_session_whose_first_connection_never_came_to_be_has_no_question_to_ask() -> None:
    protocol = Gladia(SETTINGS).protocol(CALL, STEREO)
    protocol.answered(json.dumps(BEGUN).encode())
    assert protocol.resumable
    protocol.accepted({})
    assert protocol.opening() == []
    assert protocol.ready


def test_what_is_sent_on_every_connection_counts_and_our_own_silence_too() -> None:
    protocol = after_audio(CHUNK, CHUNK, acknowledged=1)
    protocol.idle()
    assert answer(reconnected(protocol), 2 * CHUNK + QUESTION) == 1600 + 160
    stands = 2 * CHUNK + 2 * QUESTION  # the question was audio, too
    protocol.audio(bytes(CHUNK))
    assert answer(reconnected(protocol), stands + CHUNK) == (stands + CHUNK) // 2
    assert answer(reconnected(protocol), stands + CHUNK + QUESTION) == (stands + CHUNK + QUESTION) // 2


def test_audio_that_did_not_arrive_is_not_counted_any_more() -> None:
    protocol = after_audio(CHUNK, CHUNK, CHUNK, acknowledged=1)
    answer(reconnected(protocol), CHUNK)
    protocol.audio(bytes(CHUNK))
    beyond = CHUNK + QUESTION + 2 * CHUNK
    assert answer(reconnected(protocol), beyond) == (CHUNK + QUESTION) // 2
    assert not protocol.resumable


def test_a_part_of_a_sample_is_never_gone_on_from() -> None:
    assert answer(reconnected(after_audio(CHUNK, CHUNK)), CHUNK + 1) == 800


@pytest.mark.parametrize("last", [2 * CHUNK, 2 * CHUNK - 1])
@pytest.mark.parametrize("start", [2 * CHUNK - 4, 0, 3 * CHUNK + 2, 10**30])
def test_an_impossible_position_falls_back_to_what_was_acknowledged_for_certain(last: int, start: int) -> None:
    protocol = after_audio(CHUNK, CHUNK, CHUNK)
    understood(acknowledgment(0, CHUNK - 1), protocol)
    understood(acknowledgment(CHUNK, last), protocol)
    assert answer(reconnected(protocol), start) in (1600, 1599)
    assert not protocol.resumable  # Gladia counts otherwise than we do: this went well, twice it might not


def test_one_byte_more_than_was_sent_is_too_many() -> None:
    protocol = talking(tracks=MONO)
    protocol.audio(bytes(800))
    protocol.accepted({})
    protocol.opening()
    assert answer(protocol, 801) == 0


def test_an_inclusive_and_an_exclusive_end_are_both_taken() -> None:
    for end in (CHUNK, CHUNK - 1):
        protocol = after_audio(CHUNK, CHUNK)
        understood(acknowledgment(0, end), protocol)
        assert answer(reconnected(protocol), CHUNK) == 800
        assert protocol.resumable


def test_more_than_was_sent_cannot_have_been_acknowledged() -> None:
    protocol = after_audio(CHUNK)
    understood(acknowledgment(0, 10**9), protocol)
    assert answer(reconnected(protocol), CHUNK) == 800
    assert protocol.resumable


@pytest.mark.parametrize(
    "said",
    [
        message("audio_chunk", acknowledged=False, error={"message": "no"}),
        acknowledgment(-2, 4),
        acknowledgment(4, 2),
        acknowledgment(None, 2),
        message("audio_chunk", acknowledged=True),
        transcript(),
    ],
)
def test_a_session_that_does_not_say_where_it_stands_is_given_up(said: dict[str, Any]) -> None:
    protocol = reconnected(after_audio(CHUNK))
    understood(said, protocol)
    assert not protocol.ready
    assert not protocol.resumable


@given(st.lists(st.tuples(st.sampled_from(["audio", "idle", "drop"]), st.integers(0, 1600), st.integers(0, 10))))
def test_against_a_gladia_that_counts_nothing_is_lost_and_nothing_doubled(
    steps: list[tuple[str, int, int]],
) -> None:
    protocol = talking()
    has, sent, in_flight = 0, 0, list[int]()  # bytes: of the session, by our count, and not yet arrived
    for step, samples, arrived in steps:
        if step != "drop":
            messages = protocol.audio(bytes(2 * samples)) if step == "audio" else protocol.idle()
            in_flight += map(len, messages)
            sent += sum(map(len, messages))
            continue
        for chunk in in_flight[:arrived]:
            has += chunk
            if arrived % 2:  # else acknowledgments are lost with the connection
                understood(acknowledgment(has - chunk, has), protocol)
        reconnected(protocol)
        assert answer(protocol, has) * 2 == has <= sent
        assert protocol.resumable
        has += QUESTION
        sent, in_flight = has, []


def at_the_end(*utterances: dict[str, Any], final: bool = False) -> dict[str, Any]:
    """What Gladia says was said in the whole session."""
    all_of_it = {"full_transcript": "...", "languages": ["en"], "utterances": list(utterances)}
    if final:
        return message("post_final_transcript", {"metadata": METADATA, "transcription": all_of_it})
    return message("post_transcript", all_of_it)


LATER = utterance(start=6.0, end=6.5, text=" Goodbye.", words=[{"word": " Goodbye.", "start": 6.0, "end": 6.5}])


@pytest.mark.parametrize("final", [False, True])
def test_what_was_said_while_the_connection_was_away_is_told_at_the_end(final: bool) -> None:
    protocol = after_audio()
    understood(transcript(), protocol)
    answer(reconnected(protocol), 0)
    spoken, heard = understood(at_the_end(utterance(), LATER, final=final), protocol)
    assert spoken == Transcript(
        Track.OUTBOUND,
        "Goodbye.",
        6000,
        6500,
        is_final=True,
        words=(Word("Goodbye.", 6000, 6500, 0.0),),
        confidence=0.93,
        language="en",
        ends_utterance=True,
    )
    assert heard == Heard(Track.OUTBOUND, 6500)


def test_what_was_told_is_not_told_again_whichever_message_has_it() -> None:
    protocol = after_audio()
    answer(reconnected(protocol), 0)
    understood(transcript(), protocol)
    assert len(understood(at_the_end(utterance(), LATER), protocol)) == 2
    assert understood(at_the_end(utterance(), LATER, final=True), protocol) == []


@pytest.mark.parametrize(
    ("start", "end", "is_told"),
    [(3.0, 3.26, False), (3.0, 3.27, True), (4.0, 4.0, True), (5.09, 6.0, True), (5.1, 6.0, False), (0.0, 9.0, True)],
)
def test_an_utterance_is_told_if_a_final_of_its_track_has_any_part_of_it(
    start: float, end: float, is_told: bool
) -> None:
    protocol = after_audio()
    understood(transcript(), protocol)  # from 3.26 to 5.1 s
    understood(transcript(id="01_00000005", start=20.0, end=21.0), protocol)
    answer(reconnected(protocol), 0)
    again = at_the_end(utterance(start=start, end=end), utterance(start=20.0, end=21.0))
    assert (understood(again, protocol) == []) is is_told
    assert len(understood(at_the_end(utterance(channel=0)), protocol)) == 2


def test_what_only_interims_have_told_is_told_at_the_end() -> None:
    protocol = after_audio()
    understood(transcript(is_final=False), protocol)
    answer(reconnected(protocol), 0)
    assert len(understood(at_the_end(utterance()), protocol)) == 2


def test_a_session_whose_connection_was_never_lost_has_told_everything() -> None:
    assert understood(at_the_end(utterance()), talking()) == []


def test_of_a_whole_session_that_cannot_be_read_nothing_is_told_and_the_next_message_may_tell_it() -> None:
    protocol = after_audio()
    answer(reconnected(protocol), 0)
    (event,) = understood(at_the_end(utterance(), utterance(channel=None, text="spoken")), protocol)
    assert event == Malformed("post_transcript not in its documented shape")
    assert len(understood(at_the_end(utterance(), final=True), protocol)) == 2


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1008, 1011, 1012, 4000, 4399, 4500])
def test_after_most_close_frames_the_session_goes_on(code: int) -> None:
    protocol = talking()
    assert type(protocol.closed(code, "")) is Lost
    assert protocol.resumable


@pytest.mark.parametrize("code", [1000, 4400, 4404, 4499])
def test_after_some_close_frames_a_new_session_is_needed(code: int) -> None:
    protocol = talking()
    assert isinstance(protocol.closed(code, ""), Lost)
    assert not protocol.resumable


def test_a_session_that_was_told_to_stop_is_not_resumed() -> None:
    protocol = talking()
    protocol.closing()
    assert not protocol.resumable


def test_a_session_that_gladia_ended_is_not_resumed() -> None:
    protocol = talking()
    understood(message("end_session"), protocol)
    assert not protocol.resumable


# --- What answers mean --------------------------------------------------------------------------------------


def test_a_final_is_a_transcript_and_what_was_heard() -> None:
    assert understood(transcript()) == [
        Transcript(
            track=Track.OUTBOUND,
            text="Hello there.",
            start_ms=3260,
            end_ms=5100,
            is_final=True,
            words=(Word("Hello", 3400, 3800, 0.99), Word("there.", 3800, 4100, 0.9)),
            confidence=0.93,
            language="en",
            ends_utterance=True,
        ),
        Heard(Track.OUTBOUND, 5100),
    ]


def test_a_partial_leaves_the_audio_to_be_heard() -> None:
    (event,) = understood(transcript(is_final=False))
    assert isinstance(event, Transcript)
    assert (event.text, event.is_final, event.ends_utterance) == ("Hello there.", False, False)


def test_a_word_without_confidence_is_still_a_word() -> None:
    spoken, _heard = understood(transcript(words=[{"word": " Hello", "start": 3.4, "end": 3.8}]))
    assert isinstance(spoken, Transcript)
    assert spoken.words == (Word("Hello", 3400, 3800, 0.0),)


def test_an_utterance_is_final_once() -> None:
    protocol = talking()
    assert len(understood(transcript(), protocol)) == 2
    assert understood(transcript(), protocol) == []
    assert understood(transcript(is_final=False), protocol) == []
    assert len(understood(transcript(id="01_00000005"), protocol)) == 2


def test_the_same_id_on_another_channel_is_another_utterance() -> None:
    protocol = talking()
    understood(transcript(channel=1), protocol)
    spoken, heard = understood(transcript(channel=0), protocol)
    assert isinstance(spoken, Transcript)
    assert spoken.track is Track.INBOUND
    assert heard == Heard(Track.INBOUND, 5100)


def test_with_one_track_the_channel_may_be_missing() -> None:
    bare = {"start": 0, "end": 1, "text": "hi"}
    said = message("transcript", {"id": "a", "is_final": True, "utterance": bare})
    spoken, _heard = understood(said, talking(tracks=(Track.OUTBOUND,)))
    assert spoken == Transcript(Track.OUTBOUND, "hi", 0, 1000, is_final=True, ends_utterance=True)
    (event,) = understood(said, talking())
    assert isinstance(event, Malformed)


def test_speech_that_starts() -> None:
    assert understood(message("speech_start", {"time": 9.54, "channel": 0.0})) == [SpeechStarted(Track.INBOUND, 9540)]


def test_a_translation_has_the_times_of_what_was_said() -> None:
    assert understood(translation()) == [Translation(Track.OUTBOUND, "Guten Tag.", 3260, 5100, "de")]


def test_a_name_is_a_remark() -> None:
    assert understood(entities()) == [Remark(Track.OUTBOUND, "entity", "Harbor Books (organization)", 3500, 4000)]


@pytest.mark.parametrize(("start", "end"), [(3.26, 4.0), (4.0, 5.1), (4.0, 4.0)])
def test_a_name_at_the_edge_of_its_utterance_keeps_its_time(start: float, end: float) -> None:
    (event,) = understood(entities(text=" Harbor Books ", start=start, end=end))
    expected = Remark(Track.OUTBOUND, "entity", "Harbor Books (organization)", round(1000 * start), round(1000 * end))
    assert event == expected


def test_a_name_outside_its_utterance_is_given_the_utterances_time() -> None:
    (event,) = understood(entities(start=0.2, end=0.9))
    assert event == Remark(Track.OUTBOUND, "entity", "Harbor Books (organization)", 3260, 5100)


def test_a_mood_is_a_remark() -> None:
    assert understood(mood()) == [Remark(Track.OUTBOUND, "sentiment", "positive (joy)", 3260, 5100)]


def test_a_summary_is_told() -> None:
    assert understood(SUMMARY) == [Summary("They greet each other.")]


def test_the_end_of_the_session_is_the_last_word() -> None:
    assert understood(message("end_session")) == [Finished()]


@pytest.mark.parametrize("said", UNNEEDED, ids=lambda said: said["type"])
def test_what_is_not_needed_says_nothing(said: dict[str, Any]) -> None:
    assert understood(said) == []


def test_an_acknowledgment_says_nothing() -> None:
    assert understood(acknowledgment(0, CHUNK)) == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (message("audio_chunk", acknowledged=False, error={"message": "too big"}), "audio_chunk: too big"),
        (message("audio_chunk", acknowledged=False, error=None), "audio_chunk: no reason given"),
        (message("stop_recording", acknowledged=False, error={"exception": "Conflict"}), "stop_recording: Conflict"),
        (message("translation", error={"status_code": 500, "message": "no model"}), "translation: no model"),
        (message("post_summarization", error="too short"), "post_summarization: too short"),
        (message("error", {"code": "session_timeout", "message": "slow"}), "error: slow"),
        (message("error", message="slow"), "error: slow"),
        (message("error"), "error: no reason given"),
        (message("error", {"message": {"spoken": "words"}}), "error: no reason given"),
        (message("error", {"message": f"at {URL} with secret-key\x1b"}), "error: at … with …"),
    ],
)
def test_a_complaint_is_passed_on_without_secrets(said: dict[str, Any], reason: str) -> None:
    assert understood(said) == [Complained(reason)]


def test_what_is_unknown_is_ignored() -> None:
    assert understood(message("speech_turn_end", {"channel": 0})) == [Ignored("speech_turn_end")]


@pytest.mark.parametrize(
    "said",
    [
        b"binary",
        "",
        "[1]",
        "[" * 100_000,
        "{}",
        '{"type": null}',
        '{"type": "transcript"}',
        '{"type": "transcript", "data": null}',
        '{"type": "audio_chunk", "acknowledged": true, "data": {"byte_range": [0]}}',
        '{"type": "speech_start"}',
        '{"type": "translation", "data": null}',
        '{"type": "post_summarization", "data": {"results": ["spoken"]}}',
        json.dumps(message("transcript", {"id": "a", "utterance": utterance(text="spoken")})),
        json.dumps(message("transcript", {"id": 7, "is_final": True, "utterance": utterance(text="spoken")})),
        json.dumps(transcript(text=["spoken"])),
        json.dumps(transcript(words=["spoken"])),
        json.dumps(transcript(words=5)),
        json.dumps(transcript(words=[{"word": None, "start": 0, "end": 1}])),
        json.dumps(transcript(confidence="spoken")),
        json.dumps(transcript(language=["spoken"])),
        json.dumps(transcript(channel=2)),
        json.dumps(transcript(channel=-1)),
        json.dumps(transcript(channel=None)),
        json.dumps(transcript(channel="1")),
        json.dumps(transcript(start=None)),
        json.dumps(transcript(start=1e300)),
        json.dumps(transcript(end=-5)),
        json.dumps(transcript(end=float("nan"))),
        json.dumps(entities(text=None)),
        json.dumps(translation(translated_utterance=None)),
    ],
)
def test_what_cannot_be_read_is_malformed_and_not_repeated(said: str | bytes) -> None:
    (event,) = talking().receive(said)
    assert isinstance(event, Malformed)
    assert "spoken" not in event.reason


@given(st.text() | st.binary())
def test_nothing_is_raised_for_anything(said: str | bytes) -> None:
    talking().receive(said)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
almost_utterances = st.fixed_dictionaries(
    {}, optional={name: json_values | st.just(value) for name, value in utterance().items()}
)
almost_data = st.fixed_dictionaries(
    {},
    optional={
        "utterance": json_values | almost_utterances,
        "translated_utterance": json_values | almost_utterances,
        "byte_range": json_values | st.lists(st.integers() | st.floats(), min_size=2, max_size=2),
        "utterances": json_values | st.lists(almost_utterances, max_size=3),
        **dict.fromkeys(("id", "is_final", "time", "channel", "results", "target_language"), json_values),
    },
)


@given(
    st.sampled_from([said["type"] for said in (*NEEDED, *UNNEEDED)] + ["error"]),
    json_values | almost_data,
    st.fixed_dictionaries({}, optional={"error": json_values, "acknowledged": json_values}),
)
def test_nothing_is_raised_for_almost_right_answers(kind: str, data: object, rest: dict[str, Any]) -> None:
    is_resumed = kind == "audio_chunk" or kind.startswith("post_")
    protocol = reconnected(after_audio(CHUNK)) if is_resumed else talking()
    understood({**rest, "type": kind, "data": data}, protocol)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_an_answer_over_http_means_something_or_is_of_no_use(body: bytes) -> None:
    for protocol in (Gladia(SETTINGS).protocol(CALL, STEREO), talking()):
        protocol.refused(400, {}, body)
        with suppress(ServiceError):
            protocol.answered(body)


# --- What was made of the call ------------------------------------------------------------------------------


def result(status: str, **more: Any) -> bytes:
    head = {"id": SESSION, "request_id": "G-45463597", "version": 2, "kind": "live", "created_at": "2026-09-01"}
    return json.dumps({**head, "status": status, **more}).encode()


def stopped(settings: GladiaSettings = SETTINGS) -> GladiaProtocol:
    protocol = talking(settings)
    protocol.closing()
    return protocol


def test_the_result_is_asked_for_until_it_is_done() -> None:
    protocol = stopped()
    for body in (result("queued"), result("processing")):
        request = protocol.after()
        assert request is not None
        assert (request.method, request.url) == ("GET", f"https://api.gladia.io/v2/live/{SESSION}")
        assert request.headers == {"x-gladia-key": "secret-key"}
        assert protocol.answered(body) == []
    done = result("done", result={"metadata": METADATA, "transcription": WHOLE})
    assert protocol.answered(done) == [CallResult("Gladia", SESSION, done)]
    assert protocol.after() is None


def test_a_result_that_failed_is_complained_of() -> None:
    protocol = stopped()
    assert protocol.answered(result("error", error_code=500)) == [
        Complained("Gladia could not make a result of the call (500)")
    ]
    assert protocol.after() is None


def test_nobody_asks_for_a_result_that_is_not_to_be_kept_or_cannot_be() -> None:
    assert stopped(replace(SETTINGS, keep_result=False)).after() is None
    assert talking().after() is None  # its session goes on
    assert Gladia(SETTINGS).protocol(CALL, STEREO).after() is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"status": ["done"]}', result("lost")])
def test_an_answer_of_no_status_ends_the_asking(body: bytes) -> None:
    protocol = stopped()
    with pytest.raises(Unavailable, match="result"):
        protocol.answered(body)
    assert protocol.after() is None


# --- What failures mean -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (301, Refused, "GLADIA_ settings"),
        (400, Refused, "GLADIA_ settings"),
        (401, Denied, "GLADIA_API_KEY"),
        (402, Denied, "GLADIA_API_KEY"),
        (403, Denied, "GLADIA_API_KEY"),
        (404, Refused, "GLADIA_ settings"),
        (408, Unavailable, "not available"),
        (413, Unavailable, "not available"),
        (422, Refused, "GLADIA_ settings"),
        (429, Unavailable, "too many"),
        (500, Unavailable, "not available"),
        (503, Unavailable, "not available"),
    ],
)
def test_a_session_that_is_refused_says_what_to_do(status: int, error: type[ServiceError], says: str) -> None:
    body = b'{"message": "Bad luck with secret-key", "request_id": "G-45463597"}'
    refusal = Gladia(SETTINGS).protocol(CALL, STEREO).refused(status, {}, body)
    assert type(refusal) is error
    for part in (says, str(status), "Bad luck with …", "request G-45463597"):
        assert part in str(refusal)


def refusal_of(said: object) -> str:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return str(Gladia(SETTINGS).protocol(CALL, STEREO).refused(422, {}, body))


def test_what_is_wrong_with_a_request_is_said() -> None:
    places = [
        {"loc": ["body", "language_config", "languages", 0], "msg": "unknown language"},
        {"loc": None, "msg": "too many"},
        "sample_rate must be one of 8000, 16000",
        7,
    ]
    assert refusal_of({"message": "Invalid parameters", "validation_errors": places}) == (
        "Gladia refused the request (422: Invalid parameters; body.language_config.languages.0 unknown language;"
        " too many; sample_rate must be one of 8000, 16000); check the GLADIA_ settings"
    )


def test_what_is_said_of_a_request_is_short_and_on_one_line() -> None:
    said = refusal_of({"validation_errors": ["x\x1b[2J\n" + "y" * 500] * 500, "request_id": "G" * 500})
    assert len(said) < 500
    assert said.isprintable()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"\xff", b'{"message": {"a": 1}, "validation_errors": {}, "request_id": 7}']
)
def test_a_bare_refusal_is_still_a_sentence(body: bytes) -> None:
    assert refusal_of(body) == "Gladia refused the request (422); check the GLADIA_ settings"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 410, 429, 503])
def test_a_session_that_refuses_its_connection_is_given_up(status: int) -> None:
    protocol = after_audio(CHUNK)
    refusal = protocol.refused(status, {}, json.dumps({"message": f"No session {URL}"}).encode())
    assert type(refusal) is Lost
    assert str(refusal) == f"Gladia does not know its session any more ({status}: No session …)"
    assert not protocol.resumable


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [(401, Denied, "GLADIA_API_KEY"), (404, Refused, "GLADIA_KEEP_RESULT"), (502, Unavailable, "not available")],
)
def test_a_result_that_is_refused_says_what_to_do(status: int, error: type[ServiceError], says: str) -> None:
    refusal = stopped().refused(status, {}, b"")
    assert type(refusal) is error
    assert says in str(refusal)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1000, Lost),
        (1001, Lost),
        (1005, Lost),
        (1008, Lost),
        (1009, Misspoke),
        (1011, Lost),
        (4400, Lost),
        (4401, Denied),
        (4403, Denied),
        (4408, Lost),
        (4429, Unavailable),
        (4500, Lost),
    ],
)
def test_a_close_frame_has_a_meaning(code: int, error: type[ServiceError]) -> None:
    closed = talking().closed(code, f"secret-key {URL}\x1b[2J")
    assert type(closed) is error
    assert str(code) in str(closed)
    assert SESSION in str(closed)
    assert "\x1b" not in str(closed)
    assert "secret" not in str(closed)


@pytest.mark.parametrize("code", [4401, 4403])
def test_a_session_that_has_taken_audio_has_taken_its_key(code: int) -> None:
    protocol = after_audio(CHUNK, acknowledged=1)
    assert type(protocol.closed(code, "token expired")) is Lost
    assert not protocol.resumable  # a new one will tell


def test_the_close_frame_that_was_asked_for_says_that_all_was_said() -> None:
    assert stopped().closed(1000, "") is None
    assert type(stopped().closed(1011, "")) is Lost


# --- As the vendor's own SDK has it -------------------------------------------------------------------------


def unknown_fields(value: object) -> list[str]:
    """The names, at any depth, that the SDK's schema does not have."""
    if isinstance(value, list | tuple):
        return [name for item in value for name in unknown_fields(item)]
    if not is_dataclass(value):
        return []
    inner = [getattr(value, field.name) for field in fields(value) if field.name != "_unknown_fields"]
    return [*getattr(value, "_unknown_fields", {}), *unknown_fields(inner)]


@pytest.mark.parametrize("settings", [SETTINGS, EVERYTHING])
def test_the_sdk_knows_all_that_is_asked_for(settings: GladiaSettings) -> None:
    body = wanted(settings)
    request = sdk.LiveV2InitRequest.from_dict(body)
    assert unknown_fields(request) == []
    assert request.to_dict() == body
    assert request.encoding in get_args(sdk.LiveV2Encoding)
    assert request.bit_depth in get_args(sdk.LiveV2BitDepth)
    assert request.sample_rate in get_args(sdk.LiveV2SampleRate)
    assert set(body["language_config"]["languages"]) <= set(get_args(sdk.LiveV2TranscriptionLanguageCode))
    summary = body.get("post_processing", {}).get("summarization_config", {"type": "general"})
    assert summary["type"] in get_args(sdk.LiveV2SummaryType)


def test_the_sdk_names_no_message_that_is_left_to_chance() -> None:
    known = {field.name for field in fields(sdk.LiveV2MessagesConfig)} - {"_unknown_fields"}
    assert set(wanted()["messages_config"]) == known


@pytest.mark.parametrize("said", [*NEEDED, *UNNEEDED], ids=lambda said: said["type"])
def test_the_sdk_reads_the_messages_of_these_tests(said: dict[str, Any]) -> None:
    read_by_sdk = sdk.create_live_v2_web_socket_message_from_json(json.dumps(said))
    assert isinstance(read_by_sdk, sdk.LiveV2WebSocketMessage)
    assert unknown_fields(read_by_sdk) == []


def test_these_tests_have_every_message_that_the_sdk_knows() -> None:
    seen = {type(sdk.create_live_v2_web_socket_message_from_dict(said)) for said in (*NEEDED, *UNNEEDED)}
    assert seen == set(get_args(sdk.LiveV2WebSocketMessage))


def test_the_sdk_reads_the_other_answers_of_these_tests() -> None:
    assert sdk.LiveV2InitResponse.from_dict(BEGUN).url == URL
    done = sdk.LiveV2Response.from_json(result("done", result={"metadata": METADATA, "transcription": WHOLE}))
    assert unknown_fields(done) == []

"""What AssemblyAI is told, and what its answers mean."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assemblyai_client import ABILITIES, TRAITS, AssemblyAI, AssemblyAIProtocol, AssemblyAISettings
from relay.errors import Denied, Lost, Misspoke, Refused, ServiceError, SettingsError, Unavailable
from relay.events import (
    Complained,
    Finished,
    Heard,
    Ignored,
    Malformed,
    ServiceEvent,
    SessionBegun,
    SpeechStarted,
    Track,
    Transcript,
    Word,
)
from relay.protocol import CallInfo, Limits, SpeechService
from relay.settings import read

CALL = CallInfo("CA0123456789", "MZ0123456789", (Track.INBOUND, Track.OUTBOUND))
SETTINGS = AssemblyAISettings(api_key="secret-key")
ENGLISH, MULTILINGUAL = "universal-streaming-english", "universal-streaming-multilingual"
UNIVERSAL_3, WHISPER = "universal-3-6-pro", "whisper-rt"
BARE, FORMATTED = replace(SETTINGS, format_turns=False), SETTINGS


def talking(settings: AssemblyAISettings = SETTINGS) -> AssemblyAIProtocol:
    return AssemblyAI(settings).protocol(CALL, (Track.OUTBOUND,))


def query(settings: AssemblyAISettings = SETTINGS) -> dict[str, str]:
    asked = parse_qs(urlsplit(talking(settings).endpoint().url).query, strict_parsing=True)
    assert all(len(values) == 1 for values in asked.values())
    return {name: values[0] for name, values in asked.items()}


def word(text: str, start: int, end: int, *, is_final: bool = True) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end, "confidence": 0.9, "word_is_final": is_final}


def turn(order: int = 0, transcript: str = "hi my name", **changes: Any) -> dict[str, Any]:
    """An interim, unless it is changed to something else."""
    said = {
        "type": "Turn",
        "turn_order": order,
        "turn_is_formatted": False,
        "end_of_turn": False,
        "transcript": transcript,
        "utterance": "",
        "end_of_turn_confidence": 0.001,
        "words": [word("hi", 1920, 2000), word("my", 2800, 2880), word("name", 2960, 3040)],
    }
    return {**said, **changes}


def ended(order: int = 0, transcript: str = "hi my name", **changes: Any) -> dict[str, Any]:
    return turn(order, transcript, **{"end_of_turn": True, **changes})


def formatted(order: int = 0, transcript: str = "Hi, my name.", **changes: Any) -> dict[str, Any]:
    return ended(order, transcript, **{"turn_is_formatted": True, **changes})


def understood(message: object, protocol: AssemblyAIProtocol | None = None) -> list[ServiceEvent]:
    return (protocol or talking()).receive(json.dumps(message))


def told(settings: AssemblyAISettings, *messages: dict[str, Any]) -> list[tuple[str, str]]:
    """What came of messages, in short: interims and finals by their text, other events by their kind."""
    protocol = talking(settings)
    events = [event for message in messages for event in understood(message, protocol)]
    return [
        ("final" if event.is_final else "interim", event.text)
        if isinstance(event, Transcript)
        else (type(event).__name__, "")
        for event in events
    ]


# --- What is asked for --------------------------------------------------------------------------------------


def test_a_call_in_english_asks_for_phone_audio_and_formatted_turns() -> None:
    assert query() == {
        "sample_rate": "8000",
        "encoding": "pcm_mulaw",
        "speech_model": ENGLISH,
        "format_turns": "true",
    }


def test_the_address_is_that_of_the_third_version() -> None:
    url = urlsplit(talking(replace(SETTINGS, url="wss://streaming.eu.assemblyai.com")).endpoint().url)
    assert (url.scheme, url.netloc, url.path) == ("wss", "streaming.eu.assemblyai.com", "/v3/ws")


def test_the_bare_key_travels_in_a_header_and_shows_in_no_repr() -> None:
    endpoint = talking().endpoint()
    assert endpoint.headers == {"Authorization": "secret-key", "AssemblyAI-Version": "2025-05-12"}
    assert "secret-key" not in repr(endpoint) + repr(SETTINGS) + endpoint.url


def test_lists_are_asked_for_as_json() -> None:
    asked = query(
        replace(SETTINGS, speech_model=UNIVERSAL_3, language=("en", "es"), keyterms=("Harbor Books", "Zürich, 2"))
    )
    assert json.loads(asked["language_codes"]) == ["en", "es"]
    assert json.loads(asked["keyterms_prompt"]) == ["Harbor Books", "Zürich, 2"]


@pytest.mark.parametrize("model", [MULTILINGUAL, "u3-rt-pro", "universal-3-5-pro", UNIVERSAL_3, WHISPER])
def test_models_that_can_are_asked_which_language_they_hear(model: str) -> None:
    asked = query(replace(SETTINGS, speech_model=model, language_detection=True))
    assert asked["language_detection"] == "true"
    assert asked["speech_model"] == model


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [
        ("aggressive", ("0.4", "160", "400")),
        ("balanced", ("0.4", "400", "1280")),
        ("conservative", ("0.7", "800", "3600")),
    ],
)
def test_turn_detection_is_three_numbers_of_which_universal_3_takes_the_silences(
    preset: str, numbers: tuple[str, str, str]
) -> None:
    threshold, least, most = numbers
    silences = {"min_turn_silence": least, "max_turn_silence": most}
    asked = query(replace(SETTINGS, turn_detection=preset))
    assert asked.items() >= {"end_of_turn_confidence_threshold": threshold, **silences}.items()
    asked = query(replace(SETTINGS, turn_detection=preset, speech_model=UNIVERSAL_3))
    assert asked.items() >= silences.items()
    assert "end_of_turn_confidence_threshold" not in asked


@pytest.mark.parametrize("model", [UNIVERSAL_3, WHISPER])
def test_models_that_format_anyway_are_not_asked_to(model: str) -> None:
    assert "format_turns" not in query(replace(SETTINGS, speech_model=model))


def test_turns_need_not_be_formatted() -> None:
    assert query(BARE)["format_turns"] == "false"


# --- What is refused before AssemblyAI would refuse it ------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"ASSEMBLYAI_SPEECH_MODEL": "nova-3"}, "ASSEMBLYAI_SPEECH_MODEL"),
        ({"ASSEMBLYAI_LANGUAGE": "en"}, "ASSEMBLYAI_LANGUAGE"),
        ({"ASSEMBLYAI_LANGUAGE": "en", "ASSEMBLYAI_SPEECH_MODEL": MULTILINGUAL}, "ASSEMBLYAI_LANGUAGE"),
        ({"ASSEMBLYAI_LANGUAGE": "en", "ASSEMBLYAI_SPEECH_MODEL": WHISPER}, "ASSEMBLYAI_LANGUAGE"),
        ({"ASSEMBLYAI_LANGUAGE": "english", "ASSEMBLYAI_SPEECH_MODEL": UNIVERSAL_3}, "ASSEMBLYAI_LANGUAGE"),
        ({"ASSEMBLYAI_LANGUAGE": "en,multi", "ASSEMBLYAI_SPEECH_MODEL": UNIVERSAL_3}, "ASSEMBLYAI_LANGUAGE"),
        ({"ASSEMBLYAI_LANGUAGE": "en,tlh", "ASSEMBLYAI_SPEECH_MODEL": UNIVERSAL_3}, "ASSEMBLYAI_LANGUAGE"),
        ({"ASSEMBLYAI_LANGUAGE": ",".join(["en"] * 11), "ASSEMBLYAI_SPEECH_MODEL": UNIVERSAL_3}, "ASSEMBLYAI_LANGUAGE"),
        ({"ASSEMBLYAI_LANGUAGE_DETECTION": "true"}, "ASSEMBLYAI_LANGUAGE_DETECTION"),
        ({"ASSEMBLYAI_KEYTERMS": "snow", "ASSEMBLYAI_SPEECH_MODEL": WHISPER}, "ASSEMBLYAI_KEYTERMS"),
        ({"ASSEMBLYAI_KEYTERMS": ",".join(f"term {n}" for n in range(101))}, "ASSEMBLYAI_KEYTERMS"),
        ({"ASSEMBLYAI_KEYTERMS": "x" * 51}, "ASSEMBLYAI_KEYTERMS"),
        ({"ASSEMBLYAI_TURN_DETECTION": "0.4"}, "ASSEMBLYAI_TURN_DETECTION"),
        ({"ASSEMBLYAI_FORMAT_TURNS": "maybe"}, "ASSEMBLYAI_FORMAT_TURNS"),
        ({"ASSEMBLYAI_URL": "https://streaming.assemblyai.com"}, "ASSEMBLYAI_URL"),
        ({"ASSEMBLYAI_CONNECTIONS": "0"}, "ASSEMBLYAI_CONNECTIONS"),
        ({"ASSEMBLYAI_SESSIONS_PER_MINUTE": "some"}, "ASSEMBLYAI_SESSIONS_PER_MINUTE"),
    ],
)
def test_what_assemblyai_would_refuse_is_refused_first_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read(AssemblyAISettings, environ)


def test_everything_can_be_set() -> None:
    settings = read(
        AssemblyAISettings,
        {
            "ASSEMBLYAI_API_KEY": "key",
            "ASSEMBLYAI_URL": "wss://streaming.us.assemblyai.com/",
            "ASSEMBLYAI_SPEECH_MODEL": UNIVERSAL_3,
            "ASSEMBLYAI_LANGUAGE": "en, es",
            "ASSEMBLYAI_LANGUAGE_DETECTION": "yes",
            "ASSEMBLYAI_KEYTERMS": "Harbor Books, tretinoin",
            "ASSEMBLYAI_TURN_DETECTION": "balanced",
            "ASSEMBLYAI_FORMAT_TURNS": "no",
            "ASSEMBLYAI_CONNECTIONS": "8",
            "ASSEMBLYAI_SESSIONS_PER_MINUTE": "5",
        },
    )
    assert settings == AssemblyAISettings(
        api_key="key",
        url="wss://streaming.us.assemblyai.com",
        speech_model=UNIVERSAL_3,
        language=("en", "es"),
        language_detection=True,
        keyterms=("Harbor Books", "tretinoin"),
        turn_detection="balanced",
        format_turns=False,
        connections=8,
        sessions_per_minute=5,
    )


# --- The service --------------------------------------------------------------------------------------------


def test_it_is_a_service_of_one_track_that_counts_its_sessions() -> None:
    service: SpeechService = AssemblyAI(replace(SETTINGS, connections=8, sessions_per_minute=5))
    assert service.traits is TRAITS
    assert service.abilities is ABILITIES
    assert service.limits == Limits(connections=8, sessions_per_minute=5)
    assert (TRAITS.tracks, TRAITS.pace, TRAITS.catches_up, TRAITS.answers_silence) == (1, 1.0, False, False)
    assert (TRAITS.smallest_chunk_ms, TRAITS.largest_chunk_ms) == (50, 1000)


def tailored(settings: AssemblyAISettings, language: str | None, *keyterms: str) -> dict[str, str]:
    """What is asked for on behalf of such a call."""
    service = AssemblyAI(settings).tailored(language, keyterms)
    return parse_query(service.protocol(CALL, (Track.INBOUND,)))


def parse_query(protocol: AssemblyAIProtocol) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(protocol.endpoint().url).query).items()}


def test_a_call_as_configured_is_asked_for_as_configured() -> None:
    assert tailored(SETTINGS, None) == query()


def test_a_calls_own_terms_come_after_those_configured_and_none_comes_twice() -> None:
    asked = tailored(replace(SETTINGS, keyterms=("Harbor Books",)), None, "tretinoin", "Harbor Books")
    assert json.loads(asked["keyterms_prompt"]) == ["Harbor Books", "tretinoin"]


@pytest.mark.parametrize("language", ["en", "en-GB", "EN-us"])
def test_any_english_is_english(language: str) -> None:
    assert tailored(SETTINGS, language) == query()


def test_universal_3_is_told_the_calls_language_instead_of_the_configured_one() -> None:
    asked = tailored(replace(SETTINGS, speech_model=UNIVERSAL_3, language=("en", "es")), "fr-CA")
    assert json.loads(asked["language_codes"]) == ["fr"]


@pytest.mark.parametrize(("model", "language"), [(MULTILINGUAL, "pt-BR"), (MULTILINGUAL, "multi"), (WHISPER, "is")])
def test_other_models_find_the_language_out_by_themselves(model: str, language: str) -> None:
    settings = replace(SETTINGS, speech_model=model)
    assert tailored(settings, language) == query(settings)


@pytest.mark.parametrize(
    ("model", "language", "keyterms"),
    [
        (ENGLISH, "de", ()),
        (ENGLISH, "multi", ()),
        (MULTILINGUAL, "is", ()),
        (UNIVERSAL_3, "tlh", ()),
        (UNIVERSAL_3, "no such language", ()),
        (WHISPER, "no such language", ()),
        (ENGLISH, "", ()),
        (ENGLISH, None, ("tretinoin\x1b[2J",)),
        (ENGLISH, None, (" ",)),
        (WHISPER, None, ("tretinoin",)),
        (ENGLISH, None, ("tretinoin" * 6,)),
        (ENGLISH, None, tuple(f"tretinoin {n}" for n in range(101))),
    ],
)
def test_what_the_model_cannot_do_for_a_call_is_said_without_its_words(
    model: str, language: str | None, keyterms: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError, match="ASSEMBLYAI_") as refused:
        AssemblyAI(replace(SETTINGS, speech_model=model)).tailored(language, keyterms)
    assert "tretinoin" not in str(refused.value)
    assert "no such language" not in str(refused.value)


# --- What is said -------------------------------------------------------------------------------------------


def test_audio_goes_out_as_it_is() -> None:
    assert talking().audio(b"\x12" * 800) == [b"\x12" * 800]


def test_nothing_need_be_said_before_the_audio_or_in_a_pause() -> None:
    protocol = talking()
    assert protocol.before() is None
    assert protocol.opening() == []
    assert protocol.ready
    assert protocol.idle() == []
    assert not protocol.resumable


def test_the_end_is_said_as_text() -> None:
    assert talking().closing() == ['{"type":"Terminate"}']


# --- Turns --------------------------------------------------------------------------------------------------


def test_an_interim_has_the_word_that_is_being_spoken_though_the_transcript_has_not() -> None:
    said = turn(words=[word("hi", 1920, 2000), word("my", 2800, 2880, is_final=False)], transcript="hi")
    assert understood(said) == [
        Transcript(
            track=Track.OUTBOUND,
            text="hi my",
            start_ms=1920,
            end_ms=2880,
            is_final=False,
            words=(Word("hi", 1920, 2000, 0.9), Word("my", 2800, 2880, 0.9)),
            confidence=0.9,
        )
    ]


def test_a_final_is_a_transcript_and_what_was_heard() -> None:
    words = [word("Hi,", 1920, 2000), word("name.", 2960, 3040)]
    said = formatted(transcript="Hi, name.", words=words, language_code="en")
    assert understood(said) == [
        Transcript(
            track=Track.OUTBOUND,
            text="Hi, name.",
            start_ms=1920,
            end_ms=3040,
            is_final=True,
            words=(Word("Hi,", 1920, 2000, 0.9), Word("name.", 2960, 3040, 0.9)),
            confidence=0.9,
            language="en",
            ends_utterance=True,
        ),
        Heard(Track.OUTBOUND, 3040),
    ]


def test_universal_3_says_a_whole_text_and_it_stays_as_it_is() -> None:
    settings = replace(SETTINGS, speech_model=UNIVERSAL_3)
    words = [word("你", 0, 90, is_final=False), word("好", 90, 180, is_final=False)]
    assert told(settings, turn(transcript="你好—", words=words)) == [("interim", "你好—")]
    assert told(settings, turn(transcript="", words=words)) == [("interim", "你 好")]


def test_a_bare_end_is_shown_and_the_formatted_one_is_the_final() -> None:
    assert told(FORMATTED, turn(), ended(), formatted()) == [
        ("interim", "hi my name"),
        ("interim", "hi my name"),
        ("final", "Hi, my name."),
        ("Heard", ""),
    ]


def test_a_formatted_end_alone_is_final_at_once() -> None:
    assert told(FORMATTED, formatted()) == [("final", "Hi, my name."), ("Heard", "")]


def test_a_bare_end_is_final_when_another_turn_begins() -> None:
    assert told(FORMATTED, ended(0), turn(1, "i am")) == [
        ("interim", "hi my name"),
        ("final", "hi my name"),
        ("Heard", ""),
        ("interim", "hi my name"),  # its words are those of `turn`
    ]


def test_a_bare_end_is_final_when_the_session_ends() -> None:
    assert told(FORMATTED, ended(), {"type": "Termination"}) == [
        ("interim", "hi my name"),
        ("final", "hi my name"),
        ("Heard", ""),
        ("Finished", ""),
    ]


def test_a_held_final_says_when_its_utterance_ended() -> None:
    protocol = talking(FORMATTED)
    (interim,) = understood(ended(), protocol)
    final, heard, _finished = understood({"type": "Termination"}, protocol)
    assert isinstance(interim, Transcript)
    assert isinstance(final, Transcript)
    assert not interim.ends_utterance
    assert final == replace(interim, is_final=True, ends_utterance=True)
    assert heard == Heard(Track.OUTBOUND, 3040)


@pytest.mark.parametrize("late", [turn(), ended(), formatted()])
@pytest.mark.parametrize("settings", [BARE, FORMATTED])
def test_a_turn_that_is_final_says_nothing_more(settings: AssemblyAISettings, late: dict[str, Any]) -> None:
    said = told(settings, formatted(), late, turn(1), late)
    assert said == [("final", "Hi, my name."), ("Heard", ""), ("interim", "hi my name")]


def test_without_formatting_a_bare_end_is_final_at_once() -> None:
    assert told(BARE, ended(), formatted()) == [("final", "hi my name"), ("Heard", "")]


@pytest.mark.parametrize("model", [UNIVERSAL_3, WHISPER])
def test_models_that_format_anyway_are_not_waited_for(model: str) -> None:
    assert told(replace(SETTINGS, speech_model=model), ended()) == [("final", "hi my name"), ("Heard", "")]


def test_no_turn_is_lost_when_they_come_out_of_order() -> None:
    assert told(FORMATTED, formatted(1, "One."), formatted(0, "Zero.")) == [
        ("final", "One."),
        ("Heard", ""),
        ("final", "Zero."),
        ("Heard", ""),
    ]


def test_a_turn_without_words_is_a_pause_where_the_last_one_ended() -> None:
    protocol = talking()
    understood(formatted(), protocol)
    pause, heard = understood(formatted(1, "", words=[]), protocol)
    assert pause == Transcript(Track.OUTBOUND, "", 3040, 3040, is_final=True, ends_utterance=True)
    assert heard == Heard(Track.OUTBOUND, 3040)


def test_sounds_that_whisper_names_are_not_words() -> None:
    whisper = replace(SETTINGS, speech_model=WHISPER)
    sounds = ended(0, " silence  silence", utterance="[ Silence] [ Silence]", words=[word("silence", 6376, 6687)])
    assert told(whisper, sounds) == [("final", ""), ("Heard", "")]
    assert told(whisper, ended(0, "buenos días", utterance="Buenos días.")) == [("final", "buenos días"), ("Heard", "")]


# --- Other answers ------------------------------------------------------------------------------------------


def test_a_session_has_a_name_by_which_support_finds_it() -> None:
    protocol = talking()
    begin = {"type": "Begin", "id": "de5d9927-73a6", "expires_at": 1759796682, "configuration": {"model": ENGLISH}}
    assert understood(begin, protocol) == [SessionBegun("AssemblyAI", "de5d9927-73a6")]
    assert "de5d9927-73a6" in str(protocol.closed(3005, ""))


def test_the_last_word() -> None:
    said = {"type": "Termination", "audio_duration_seconds": 12, "session_duration_seconds": 14}
    assert understood(said) == [Finished()]


def test_speech_started() -> None:
    said = {"type": "SpeechStarted", "timestamp": 9540, "confidence": 0.9}
    assert understood(said) == [SpeechStarted(Track.OUTBOUND, 9540)]


@pytest.mark.parametrize(
    "said", [{"type": "Error", "error_code": 3008, "error": "Too\x1b long"}, {"error": "Too\x1b long"}]
)
def test_an_error_in_either_form_is_a_complaint_and_explains_the_close_that_follows(said: dict[str, Any]) -> None:
    protocol = talking()
    assert understood(said, protocol) == [Complained("Too  long")]
    assert "(3008 Too  long)" in str(protocol.closed(3008, "See Error message for details"))


def test_a_warning_is_a_complaint() -> None:
    said = {"type": "Warning", "warning_code": 1, "warning": "a keyterm was too long"}
    assert understood(said) == [Complained("a keyterm was too long")]


@pytest.mark.parametrize(
    "said",
    [
        {"type": "SpeakerRevision", "revisions": []},
        {"type": "Heartbeat", "total_audio_received_ms": 1},
        {"type": "Silence", "start_ms": 0, "end_ms": 1000},
        {"type": "LLMGatewayResponse", "turn_order": 0, "transcript": "", "data": {}},
        {"type": "Horoscope"},
    ],
)
def test_what_is_not_needed_is_ignored(said: dict[str, Any]) -> None:
    assert understood(said) == [Ignored(said["type"])]


@pytest.mark.parametrize(
    "message",
    [
        b"binary",
        "",
        "[1]",
        "[" * 100_000,
        "{}",
        '{"type": null}',
        '{"type": null, "error": "x"}',
        '{"type": "Begin"}',
        '{"type": "Begin", "id": 5}',
        '{"type": "Turn"}',
        '{"type": "Error"}',
        '{"type": "Error", "error": {"secret": "words"}}',
        '{"type": "Warning", "warning": null}',
        '{"type": "SpeechStarted"}',
        '{"type": "SpeechStarted", "timestamp": "soon"}',
        json.dumps(turn(turn_order=None)),
        json.dumps(turn(turn_order="0")),
        json.dumps({**turn(), "transcript": None}),
        json.dumps(turn(words=["hi"])),
        json.dumps(turn(words=5)),
        json.dumps(turn(words=[word("hi", -1, 20)])),
        json.dumps(turn(words=[{**word("hi", 0, 20), "end": 1e300}])),
        json.dumps(turn(words=[{**word("hi", 0, 20), "text": None}])),
        json.dumps(turn(words=[{**word("hi", 0, 20), "confidence": "high"}])),
        json.dumps({**turn(), "end_of_turn": None, "words": None, "transcript": 1}),
    ],
)
def test_what_cannot_be_read_is_malformed_and_not_repeated(message: str | bytes) -> None:
    (event,) = talking().receive(message)
    assert isinstance(event, Malformed)
    assert not any(spoken in event.reason for spoken in ("hi", "name", "words"))


def test_a_language_that_is_none_costs_no_words() -> None:
    assert told(SETTINGS, formatted(language_code=5)) == [("final", "Hi, my name."), ("Heard", "")]


def test_a_turn_that_cannot_be_read_changes_nothing() -> None:
    protocol = talking(FORMATTED)
    understood(ended(), protocol)
    understood(ended(1, words=5), protocol)
    (final, _heard) = understood(formatted(), protocol)
    assert isinstance(final, Transcript)
    assert final.text == "Hi, my name."


@given(st.text() | st.binary())
def test_nothing_is_raised_for_anything(message: str | bytes) -> None:
    talking().receive(message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
almost_words = st.lists(
    st.dictionaries(st.sampled_from(["text", "start", "end", "confidence", "word_is_final"]), json_values), max_size=3
)


@given(
    st.sampled_from(["Begin", "Turn", "SpeechStarted", "Termination", "Error", "Warning", "SpeakerRevision"]),
    st.sampled_from([ENGLISH, UNIVERSAL_3, WHISPER]),
    st.dictionaries(
        st.sampled_from(["id", "turn_order", "transcript", "utterance", "timestamp", "error", "warning", "words"]),
        json_values,
    ),
    almost_words | json_values,
)
def test_nothing_is_raised_for_almost_right_answers(kind: str, model: str, rest: dict[str, Any], words: object) -> None:
    protocol = talking(replace(SETTINGS, speech_model=model))
    protocol.receive(json.dumps({**rest, "type": kind}))
    protocol.receive(json.dumps({**ended(), **rest, "words": words, "type": kind}))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=12), st.booleans())
def test_each_turn_that_ended_is_final_exactly_once_whatever_comes(
    turns: list[tuple[int, bool, bool]], format_turns: bool
) -> None:
    protocol = talking(replace(SETTINGS, format_turns=format_turns))
    messages = [
        turn(order, f"turn {order}", end_of_turn=ends, turn_is_formatted=ends and is_formatted)
        for order, ends, is_formatted in turns
    ]
    events = [event for message in [*messages, {"type": "Termination"}] for event in understood(message, protocol)]
    finals = [event.text for event in events if isinstance(event, Transcript) and event.is_final]
    assert sorted(finals) == sorted({f"turn {order}" for order, ends, _ in turns if ends})


# --- What failures mean -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (400, Refused, "ASSEMBLYAI_ settings"),
        (401, Denied, "ASSEMBLYAI_API_KEY"),
        (402, Denied, "ASSEMBLYAI_API_KEY"),
        (403, Denied, "ASSEMBLYAI_API_KEY"),
        (404, Refused, "refused the request"),
        (408, Unavailable, "not available"),
        (429, Unavailable, "too many"),
        (500, Unavailable, "not available"),
        (503, Unavailable, "not available"),
    ],
)
def test_a_refused_handshake_says_what_to_do(status: int, error: type[ServiceError], says: str) -> None:
    refusal = talking().refused(status, {}, b'{"error":"Not\\u001b authorized"}')
    assert type(refusal) is error
    for expected in (says, str(status), "Not  authorized"):
        assert expected in str(refusal)
    assert "secret-key" not in str(refusal)


@pytest.mark.parametrize("body", [b'{"message":"No such model"}', b'{"detail":"No such model"}'])
def test_other_forms_of_a_reason_are_read_too(body: bytes) -> None:
    assert "No such model" in str(talking().refused(400, {}, body))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"error":{"message":1}}', b"{}"])
def test_a_bare_refusal_is_still_a_sentence(body: bytes) -> None:
    assert str(talking().refused(400, {}, body)).startswith("AssemblyAI refused the request (400);")


@pytest.mark.parametrize(
    ("code", "reason", "error", "says"),
    [
        (1008, "Unauthorized Connection: Missing Authorization header", Denied, "ASSEMBLYAI_API_KEY"),
        (1008, "Unauthorized connection: Too many concurrent sessions", Unavailable, "too many sessions"),
        (1013, "", Unavailable, "later"),
        (3005, "", Unavailable, "error of its own"),
        (3006, "Invalid Message Type", Refused, "ASSEMBLYAI_ settings"),
        (3007, "Input Duration Error: Input duration violation: 20 ms", Misspoke, "50 to 1000 ms"),
        (
            3007,
            "Input Duration Error: Audio Transmission Rate Exceeded: Received 314.9 sec. audio in 1.3 sec",
            Misspoke,
            "faster than real time",
        ),
        (3008, "Session Expired", Lost, "3 hours"),
        (3009, "Too many concurrent sessions", Unavailable, "too many sessions"),
        (4001, "", Denied, "ASSEMBLYAI_API_KEY"),
        (4002, "", Denied, "paid"),
        (4003, "", Denied, "paying"),
        (4008, "", Lost, "expired"),
        (4029, "", Misspoke, "faster than real time"),
        (4031, "", Lost, "idle"),
        (4032, "", Misspoke, "too short"),
        (4033, "", Misspoke, "too long"),
        (4100, "", Refused, "could not read"),
        (4101, "", Refused, "could not read"),
        (4102, "", Unavailable, "too many sessions"),
        (1000, "", Lost, "closed the connection"),
        (1001, "", Lost, "closed the connection"),
        (1005, "", Lost, "closed the connection"),
        (4999, "\x1b[2J", Lost, "closed the connection"),
    ],
)
def test_a_close_frame_has_a_meaning(code: int, reason: str, error: type[ServiceError], says: str) -> None:
    closed = talking().closed(code, reason)
    assert type(closed) is error
    assert says in str(closed)
    assert str(code) in str(closed)
    assert "\x1b" not in str(closed)


def test_the_fuller_text_of_an_error_tells_the_two_meanings_of_a_code_apart() -> None:
    protocol = talking()
    understood({"type": "Error", "error_code": 1008, "error": "Too many concurrent sessions"}, protocol)
    assert type(protocol.closed(1008, "See Error message for details")) is Unavailable

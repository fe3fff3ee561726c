"""What Flux is told, and what its turns mean."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgram_client import Deepgram, DeepgramSettings, FluxProtocol
from relay.errors import Denied, Lost, Refused, SettingsError, Unavailable
from relay.events import (
    Complained,
    Heard,
    Ignored,
    Malformed,
    ServiceEvent,
    SessionBegun,
    Track,
    Transcript,
    Word,
)
from relay.protocol import CallInfo
from relay.settings import read

CALL = CallInfo("CA0123456789", "MZ0123456789", (Track.INBOUND, Track.OUTBOUND))
FLUX = DeepgramSettings(api_key="secret-key", model="flux-general-en")
MULTI = replace(FLUX, model="flux-general-multi")


def talking(settings: DeepgramSettings = FLUX) -> FluxProtocol:
    protocol = Deepgram(settings).protocol(CALL, (Track.OUTBOUND,))
    assert isinstance(protocol, FluxProtocol)
    return protocol


def query(settings: DeepgramSettings = FLUX) -> dict[str, list[str]]:
    return parse_qs(urlsplit(talking(settings).endpoint().url).query)


def turn(event: str = "Update", **changes: Any) -> dict[str, Any]:
    said = {
        "type": "TurnInfo",
        "request_id": "r",
        "sequence_id": 11,
        "event": event,
        "turn_index": 0,
        "audio_window_start": 0.0,
        "audio_window_end": 1.9,
        "transcript": "Hello there.",
        "words": [
            {"word": "Hello", "confidence": 0.9, "start": 0.4, "end": 0.8},
            {"word": "there.", "confidence": 0.7, "start": 0.9, "end": 1.3},
        ],
        "end_of_turn_confidence": 0.81,
    }
    return {**said, **changes}


def silent(**changes: Any) -> dict[str, Any]:
    return turn(transcript="", words=[], **changes)


def understood(message: object, protocol: FluxProtocol | None = None) -> list[ServiceEvent]:
    return (protocol or talking()).receive(json.dumps(message))


def closing(*said: object) -> FluxProtocol:
    """A conversation that is over on our side, after these answers."""
    protocol = talking()
    for message in said:
        understood(message, protocol)
    protocol.closing()
    return protocol


# --- What is asked for --------------------------------------------------------------------------------------


def test_flux_is_spoken_to_at_an_address_of_its_own() -> None:
    assert talking().endpoint().url.startswith("wss://api.deepgram.com/v2/listen?model=flux-general-en&")


def test_by_default_only_what_must_be_said_is_asked_for() -> None:
    assert query() == {
        "model": ["flux-general-en"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "tag": ["CA0123456789"],
    }


def test_every_option_flux_has_is_passed_on() -> None:
    asked = query(
        replace(
            MULTI,
            language="pt-BR",
            keyterm=("Harbor Books", "tretinoin"),
            redact=("aggressive_numbers",),
            profanity_filter=True,
            numerals=True,
            tag=("shop",),
            eot_threshold=0.85,
            eot_timeout_ms=4000,
        )
    )
    assert asked == {
        "model": ["flux-general-multi"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "language_hint": ["pt-BR"],
        "keyterm": ["Harbor Books", "tretinoin"],
        "redact": ["aggressive_numbers"],
        "profanity_filter": ["true"],
        "numerals": ["true"],
        "tag": ["CA0123456789", "shop"],
        "eot_threshold": ["0.85"],
        "eot_timeout_ms": ["4000"],
    }


@pytest.mark.parametrize(
    "settings", [replace(MULTI, language="multi"), replace(FLUX, language="en-GB")], ids=["any language", "English"]
)
def test_a_hint_is_given_only_where_there_is_a_choice(settings: DeepgramSettings) -> None:
    assert "language_hint" not in query(settings)


def test_the_key_travels_in_a_header() -> None:
    endpoint = talking().endpoint()
    assert endpoint.headers == {"Authorization": "Token secret-key"}
    assert "secret-key" not in repr(endpoint) + endpoint.url


def test_it_takes_one_track_in_chunks_of_80_ms() -> None:
    traits = Deepgram(FLUX).traits
    assert (traits.name, traits.word, traits.tracks) == ("Deepgram Flux", "deepgram", 1)
    assert traits.smallest_chunk_ms == traits.largest_chunk_ms == 80
    assert Deepgram(FLUX).abilities != Deepgram(DeepgramSettings()).abilities


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"DEEPGRAM_MODEL": "flux-general-de"}, "DEEPGRAM_MODEL"),
        ({"DEEPGRAM_LANGUAGE": "de"}, "DEEPGRAM_LANGUAGE"),
        ({"DEEPGRAM_LANGUAGE": "multi"}, "DEEPGRAM_LANGUAGE"),
        ({"DEEPGRAM_MODEL": "flux-general-multi", "DEEPGRAM_LANGUAGE": "sv"}, "DEEPGRAM_LANGUAGE"),
        ({"DEEPGRAM_INTERIM_RESULTS": "false"}, "DEEPGRAM_INTERIM_RESULTS"),
        ({"DEEPGRAM_PUNCTUATE": "false"}, "DEEPGRAM_PUNCTUATE"),
        ({"DEEPGRAM_SMART_FORMAT": "false"}, "DEEPGRAM_SMART_FORMAT"),
        ({"DEEPGRAM_ENDPOINTING": "500"}, "DEEPGRAM_ENDPOINTING"),
        ({"DEEPGRAM_UTTERANCE_END_MS": "1000"}, "DEEPGRAM_UTTERANCE_END_MS"),
        ({"DEEPGRAM_VAD_EVENTS": "true"}, "DEEPGRAM_VAD_EVENTS"),
        ({"DEEPGRAM_DIARIZE_MODEL": "latest"}, "DEEPGRAM_DIARIZE_MODEL"),
        ({"DEEPGRAM_KEYWORDS": "snow:2"}, "DEEPGRAM_KEYWORDS"),
        ({"DEEPGRAM_KEYTERM": "x" * 101}, "DEEPGRAM_KEYTERM"),
        ({"DEEPGRAM_KEYTERM": ",".join(map(str, range(101)))}, "DEEPGRAM_KEYTERM"),
        ({"DEEPGRAM_KEYTERM": ",".join(["a b c d e f"] * 100)}, "DEEPGRAM_KEYTERM"),
        ({"DEEPGRAM_REDACT": "pci"}, "DEEPGRAM_REDACT"),
        ({"DEEPGRAM_REDACT": "numbers,aggressive_numbers"}, "DEEPGRAM_REDACT"),
        ({"DEEPGRAM_EOT_THRESHOLD": "0.4"}, "DEEPGRAM_EOT_THRESHOLD"),
        ({"DEEPGRAM_EOT_THRESHOLD": "nan"}, "DEEPGRAM_EOT_THRESHOLD"),
        ({"DEEPGRAM_EOT_TIMEOUT_MS": "499"}, "DEEPGRAM_EOT_TIMEOUT_MS"),
    ],
)
def test_what_flux_would_refuse_is_refused_first_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read(DeepgramSettings, {"DEEPGRAM_MODEL": "flux-general-en", **environ})


def test_other_options_at_their_defaults_are_no_trouble() -> None:
    settings = read(DeepgramSettings, {"DEEPGRAM_MODEL": "flux-general-en", "DEEPGRAM_ENDPOINTING": "300"})
    assert settings.is_flux


# --- For one call -------------------------------------------------------------------------------------------


def test_a_call_may_have_a_language_and_terms_of_its_own() -> None:
    service = Deepgram(replace(MULTI, keyterm=("snow",))).tailored("de", ("Hafenbuch",))
    asked = parse_qs(urlsplit(service.protocol(CALL, (Track.INBOUND,)).endpoint().url).query)
    assert asked["language_hint"] == ["de"]
    assert asked["keyterm"] == ["snow", "Hafenbuch"]


@pytest.mark.parametrize(
    ("language", "keyterms", "says"),
    [
        ("zu", (), "may be en with flux-general-en"),
        (None, ("zz" * 51,), "each of up to 100 characters"),
        (None, tuple(f"zz{number}" for number in range(101)), "may be 100 with flux-general-en"),
    ],
)
def test_what_a_call_may_not_have_is_refused_without_repeating_it(
    language: str | None, keyterms: tuple[str, ...], says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        Deepgram(FLUX).tailored(language, keyterms)
    assert "z" not in str(refused.value)


# --- What is said -------------------------------------------------------------------------------------------


def test_audio_goes_out_as_it_is_and_never_empty() -> None:
    assert talking().audio(b"abc") == [b"abc"]
    assert talking().audio(b"") == []


def test_a_pause_is_filled_with_silence_because_turns_end_by_audio_alone() -> None:
    assert talking().idle() == [b"\xff" * 960 * 8]


def test_the_silence_of_a_pause_lasts_no_longer_than_the_pause() -> None:
    (quiet,) = talking().idle()
    assert len(quiet) / 8000 <= Deepgram(FLUX).traits.idle_after_s


def test_the_end_is_said_as_text() -> None:
    assert talking().closing() == ['{"type":"CloseStream"}']


# --- What turns mean ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["Update", "StartOfTurn", "EagerEndOfTurn", "TurnResumed", "SomethingNew"])
def test_a_turn_that_goes_on_is_an_interim(event: str) -> None:
    assert understood(turn(event)) == [
        Transcript(
            track=Track.OUTBOUND,
            text="Hello there.",
            start_ms=400,
            end_ms=1900,
            is_final=False,
            words=(Word("Hello", 400, 800, 0.9), Word("there.", 900, 1300, 0.7)),
            confidence=0.8,
        )
    ]


def test_a_turn_that_ends_is_final_and_heard_up_to_its_last_word() -> None:
    transcript, heard = understood(turn("EndOfTurn", trigger="model", languages=["en"]))
    assert isinstance(transcript, Transcript)
    assert transcript.is_final
    assert transcript.ends_utterance
    assert transcript.text == "Hello there."
    assert transcript.language == "en"
    assert heard == Heard(Track.OUTBOUND, 1300)  # and not 1900: the next word may have begun by then


def test_a_turn_is_final_once() -> None:
    protocol = talking()
    understood(turn("EndOfTurn"), protocol)
    assert understood(turn("EndOfTurn"), protocol) == [Ignored("TurnInfo")]
    assert understood(turn("Update"), protocol) == [Ignored("TurnInfo")]
    transcript, _heard = understood(turn("EndOfTurn", turn_index=1), protocol)
    assert isinstance(transcript, Transcript)


def test_words_without_times_lie_in_their_turn() -> None:
    bare = [{"word": "Hi", "confidence": 0.9, "start": None, "end": None}, {"word": "I"}]
    transcript, heard = understood(turn("EndOfTurn", audio_window_start=0.5, transcript="Hi I", words=bare))
    assert isinstance(transcript, Transcript)
    assert transcript.words == (Word("Hi", 500, 1900, 0.9), Word("I", 500, 1900, 0.0))
    assert heard == Heard(Track.OUTBOUND, 1900)


def test_a_text_without_words_is_still_said() -> None:
    transcript, heard = understood(turn("EndOfTurn", words=[]))
    assert isinstance(transcript, Transcript)
    assert (transcript.start_ms, transcript.end_ms) == (0, 1900)
    assert heard == Heard(Track.OUTBOUND, 1900)


def test_silence_is_heard_up_to_where_a_word_may_have_begun() -> None:
    assert understood(silent(audio_window_end=61.5)) == [Heard(Track.OUTBOUND, 59_500)]
    assert understood(silent(audio_window_end=0.25)) == [Heard(Track.OUTBOUND, 0)]


def test_a_turn_that_ends_without_a_word_says_nothing() -> None:
    assert understood(silent(event="EndOfTurn", audio_window_end=5.0)) == [Heard(Track.OUTBOUND, 3000)]


def test_the_session_has_a_name() -> None:
    said = {"type": "Connected", "request_id": "abc-123", "sequence_id": 0}
    assert understood(said) == [SessionBegun("Deepgram Flux", "abc-123")]


@pytest.mark.parametrize("kind", ["Warning", "Error"])
def test_a_complaint_is_passed_on(kind: str) -> None:
    said = {"type": kind, "sequence_id": 4, "code": "SLOW_AUDIO", "description": "audio\x1b[2J comes slowly"}
    assert understood(said) == [Complained("SLOW_AUDIO audio [2J comes slowly")]


@pytest.mark.parametrize("kind", ["ConfigureSuccess", "ConfigureFailure", "Horoscope"])
def test_what_is_not_needed_is_ignored(kind: str) -> None:
    assert understood({"type": kind}) == [Ignored(kind)]


@pytest.mark.parametrize(
    "message",
    [
        b"binary",
        "",
        "[1]",
        "{}",
        '{"type": null}',
        '{"type": "TurnInfo"}',
        '{"type": "Connected"}',
        '{"type": "Connected", "request_id": 5}',
        json.dumps(turn(event="Update", transcript=None)),
        json.dumps(turn(turn_index=None)),
        json.dumps(turn(turn_index="first")),
        json.dumps(turn(audio_window_end=-1)),
        json.dumps(turn(audio_window_end=None)),
        json.dumps(turn(audio_window_start=1e300, words=[])),
        json.dumps(turn(words=["Hello"])),
        json.dumps(turn(words=[{"word": 5}])),
        json.dumps(turn(words=[{"word": "Hello", "start": "now"}])),
        json.dumps(turn(words=5)),
        json.dumps(turn(languages=5)),
    ],
)
def test_what_cannot_be_read_is_malformed(message: str | bytes) -> None:
    (event,) = talking().receive(message)
    assert isinstance(event, Malformed)
    assert "Hello" not in event.reason


def test_a_turn_that_cannot_be_read_leaves_the_next_one_readable() -> None:
    protocol = talking()
    understood(turn("EndOfTurn", words=["x"]), protocol)
    transcript, _heard = understood(turn("EndOfTurn"), protocol)
    assert isinstance(transcript, Transcript)


@given(st.text() | st.binary())
def test_nothing_is_raised_for_anything(message: str | bytes) -> None:
    talking().receive(message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.sampled_from(["TurnInfo", "Connected", "Warning", "Error", "ConfigureFailure"]),
    st.dictionaries(st.sampled_from([*turn(), "languages", "code", "description"]), json_values),
    st.booleans(),
)
def test_nothing_is_raised_for_almost_right_answers(kind: str, changes: dict[str, Any], is_closing: bool) -> None:
    protocol = closing() if is_closing else talking()
    protocol.receive(json.dumps({**turn(), **changes, "type": kind}))
    protocol.closed(1005, "")
    protocol.last_words()


# --- The end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["Update", "StartOfTurn", "EagerEndOfTurn"])
def test_what_was_said_last_is_final_once_flux_has_closed(event: str) -> None:
    """No turn is ended by CloseStream."""
    protocol = closing(turn(transcript="Hello"), turn(event))
    assert protocol.closed(1005, "") is None
    transcript, heard = protocol.last_words()
    assert isinstance(transcript, Transcript)
    assert (transcript.text, transcript.is_final, transcript.ends_utterance) == ("Hello there.", True, True)
    assert heard == Heard(Track.OUTBOUND, 1300)


def test_what_flux_says_after_the_end_was_said_replaces_what_it_said_before() -> None:
    protocol = closing(turn(transcript="Hello"))
    (transcript,) = understood(turn(), protocol)
    assert isinstance(transcript, Transcript)
    assert not transcript.is_final
    transcript, _heard = protocol.last_words()
    assert isinstance(transcript, Transcript)
    assert transcript.text == "Hello there."


@pytest.mark.parametrize(
    "said",
    [
        [],
        [silent()],
        [turn("EndOfTurn")],
        [turn("EndOfTurn"), turn("Update")],
        [turn("EndOfTurn"), silent(turn_index=1)],
        [turn("Update"), silent(event="EndOfTurn")],
    ],
)
def test_what_is_final_already_or_never_was_said_is_not_said_at_the_end(said: list[dict[str, Any]]) -> None:
    assert closing(*said).last_words() == []


@pytest.mark.parametrize("code", [1000, 1005])
def test_a_close_is_the_end_once_we_have_said_the_last(code: int) -> None:
    assert closing().closed(code, "") is None
    assert isinstance(talking().closed(code, ""), Lost)


def test_a_close_after_an_error_tells_the_error() -> None:
    protocol = closing({"type": "Error", "code": "INTERNAL_SERVER_ERROR", "description": "out of order"})
    closed = protocol.closed(1005, "")
    assert type(closed) is Lost
    assert "INTERNAL_SERVER_ERROR out of order" in str(closed)


@pytest.mark.parametrize(("code", "error"), [(1001, Lost), (1006, Lost), (1008, Refused), (1011, Unavailable)])
def test_other_closes_mean_what_they_do_elsewhere(code: int, error: type[Exception]) -> None:
    closed = closing().closed(code, "why")
    assert type(closed) is error
    assert str(closed).startswith("Deepgram Flux")


def test_a_refused_handshake_is_understood_as_elsewhere() -> None:
    refusal = talking().refused(401, {"dg-error": "Invalid credentials."}, b"")
    assert type(refusal) is Denied
    assert "DEEPGRAM_API_KEY" in str(refusal)

"""The stand-in for AssemblyAI enforces what is documented, misbehaves as told, and gets along with a published SDK."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from assemblyai.streaming.v3 import (
    BeginEvent,
    Encoding,
    SpeechModel,
    StreamingClient,
    StreamingClientOptions,
    StreamingError,
    StreamingEvents,
    StreamingParameters,
    StreamingSessionParameters,
    TerminationEvent,
    TurnEvent,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from relay.audio import encode_mulaw, silence
from relay.events import Track
from standins.assemblyai import AssemblyAIServer, CloseFrame, Drop, Fault, Faults, Refusal, Rules
from standins.assemblyai_messages import GARBAGE
from standins.conversation import Pace
from standins.ear import Ear, EarFactory, EarOptions, Heard, Phrase, SpeechBegan, UtteranceOver, Word
from tests.numbered import frame_words, number_ears, numbered

KEY = "a-key-for-tests"
PHONE = {"speech_model": "universal-streaming-english", "sample_rate": "8000", "encoding": "pcm_mulaw"}
FORMATTED = PHONE | {"format_turns": "true"}
UNIVERSAL_3 = PHONE | {"speech_model": "universal-3-6-pro"}
AT_ONCE = Rules(pace=math.inf)
SOON = 30.0  # seconds; nothing here takes nearly so long, unless it never happens
IN = Track.INBOUND
ROOT = Path(__file__).parent.parent

Answer = dict[str, Any]


@contextmanager
def listening(
    ear: EarFactory | None = None, *, key: str | None = KEY, rules: Rules = AT_ONCE, faults: Faults = ()
) -> Iterator[AssemblyAIServer]:
    with AssemblyAIServer(ear=ear or number_ears(), key=key, rules=rules, faults=faults) as server:
        yield server


def dial(
    server: AssemblyAIServer,
    options: dict[str, str] | list[tuple[str, str]] = PHONE,
    *,
    path: str = "/v3/ws",
    authorization: str | None = KEY,
) -> ClientConnection:
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"{server.url}{path}?{urlencode(options)}"
    return connect(
        url, additional_headers=headers, compression=None, ping_interval=None, open_timeout=SOON, close_timeout=1
    )


def tell(client: ClientConnection, kind: str, **fields: Any) -> None:
    client.send(json.dumps({"type": kind} | fields))


def answer(client: ClientConnection) -> Answer:
    said: Answer = json.loads(client.recv(timeout=SOON))
    return said


def answers(client: ClientConnection) -> list[Answer]:
    """Everything the service still says, until it closes."""
    said = []
    with suppress(ConnectionClosed):
        while True:
            said.append(answer(client))
    return said


def begun(client: ClientConnection) -> None:
    assert answer(client)["type"] == "Begin"


def turns(said: list[Answer]) -> list[Answer]:
    return [message for message in said if message["type"] == "Turn"]


def ends(said: list[Answer]) -> list[Answer]:
    return [turn for turn in turns(said) if turn["end_of_turn"]]


def words_of(said: list[Answer]) -> list[str]:
    """The words of all turns that ended, once each."""
    once = {turn["turn_order"]: turn for turn in ends(said)}
    return [word["text"] for turn in once.values() for word in turn["words"]]


def closing(client: ClientConnection) -> tuple[int | None, str | None]:
    answers(client)
    return client.close_code, client.close_reason


def speak(client: ClientConnection, length_ms: int, *, start_ms: int = 0, chunk_ms: int = 100) -> None:
    for at in range(start_ms, start_ms + length_ms, chunk_ms):
        client.send(numbered(IN, at, chunk_ms))


class Parrot:
    """An ear that says the same whatever it hears, once; keeps what it hears, and finishes when it may."""

    def __init__(self, *what: Heard, may_finish: threading.Event | None = None) -> None:
        self.heard: list[list[bytes]] = []
        self._left = list(what)
        self._may_finish = may_finish

    def __call__(self, options: EarOptions, emit: Callable[[Heard], None]) -> Ear:
        self._emit = emit
        return self

    def hear(self, channels: list[bytes]) -> None:
        self.heard.append(channels)
        while self._left:
            self._emit(self._left.pop(0))

    def flush(self, channel: int | None = None) -> None:
        """Has nothing more to say."""

    def finish(self) -> None:
        if self._may_finish is not None:
            self._may_finish.wait(SOON)

    def close(self) -> None:
        """Holds nothing that needs freeing."""


HI = Word("hi", 1920, 2000, 0.9)
MY = Word("my", 2800, 2880, 0.8)
NAME = Word("name", 2960, 3040, 0.7)


def interim(*words: Word) -> Phrase:
    return Phrase(0, 0, 4000, words, is_final=False)


def final(*words: Word) -> Phrase:
    return Phrase(0, 0, 4000, words, is_final=True)


def said_of(options: dict[str, str], *heard: Heard) -> list[Answer]:
    """What the service says when its ear says that; without the first message and the last."""
    with listening(Parrot(*heard)) as server, dial(server, options) as client:
        client.send(silence(800))
        tell(client, "Terminate")
        first, *rest, last = answers(client)
        assert (first["type"], last["type"], client.close_code) == ("Begin", "Termination", 1000)
        return rest


# --- The handshake, and the first word ----------------------------------------------------------------------


def test_a_session_begins_with_its_name_and_its_end() -> None:
    with listening() as server, dial(server) as client:
        said = answer(client)
        assert said["type"] == "Begin"
        assert said["id"] == server.connections[0].request_id
        assert abs(said["expires_at"] - time.time() - 3 * 3600) < 60
        assert said["configuration"]["model"] == "universal-streaming-english"
        tell(client, "Terminate")
        assert closing(client) == (1000, "")
        assert server.violations == []


@pytest.mark.parametrize("authorization", [None, "", "another-key", f"Bearer {KEY}", f"Token {KEY}", f"{KEY}, {KEY}"])
def test_without_the_right_key_it_closes_with_1008_and_says_why(authorization: str | None) -> None:
    with listening() as server, dial(server, authorization=authorization) as client:
        (error,) = answers(client)
        assert (error["type"], error["error_code"]) == ("Error", 1008)
        assert error["error"].startswith("Unauthorized Connection")
        assert (client.close_code, client.close_reason) == (1008, error["error"])
        assert server.violations == []


def test_a_wrong_key_may_be_refused_at_the_handshake_instead() -> None:
    rules = replace(AT_ONCE, wrong_key=Refusal(401, "", "Not authorized"))
    with listening(rules=rules) as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server, authorization="another-key")
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body) == {"error": "Not authorized"}
        assert server.violations == []


def test_with_no_key_of_its_own_it_takes_any_but_wants_one() -> None:
    with listening(key=None) as server:
        with dial(server, authorization="anything") as client:
            begun(client)
        for no_bare_key in (None, "Bearer anything"):
            with dial(server, authorization=no_bare_key) as client:
                assert closing(client)[0] == 1008


def test_a_token_in_the_query_does_for_a_key_and_is_not_kept() -> None:
    with listening() as server, dial(server, PHONE | {"token": KEY}, authorization=None) as client:
        begun(client)
        assert KEY not in server.connections[0].path


def test_the_key_is_not_kept() -> None:
    with listening() as server, dial(server) as client:
        begun(client)
        assert KEY not in repr(server.connections[0])


@pytest.mark.parametrize("path", ["/", "/v3/ws/", "/v2/realtime/ws"])
def test_other_paths_are_404(path: str) -> None:
    with listening() as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server, path=path)
        assert refused.value.response.status_code == 404
        assert server.violations


TERMS = json.dumps(["Harbor Books"])
BAD_QUERIES: list[tuple[str, dict[str, str]]] = [
    ("unknown parameter 'model'", {"model": "universal-streaming-english"}),
    ("unknown parameter 'Sample_rate'", {"Sample_rate": "8000"}),
    ("speech_model", {"speech_model": "nova-3"}),
    ("sample_rate", {"sample_rate": "8k"}),
    ("sample_rate must be 8000 here", {"sample_rate": "16000"}),
    ("encoding", {"encoding": "mulaw"}),
    ("encoding must be", {"encoding": "opus"}),
    ("format_turns", {"format_turns": "yes"}),
    ("format_turns is not for", {"format_turns": "true", "speech_model": "whisper-rt"}),
    ("format_turns is not for", {"format_turns": "true", "speech_model": "u3-rt-pro"}),
    ("end_of_turn_confidence_threshold", {"end_of_turn_confidence_threshold": "1.1"}),
    ("end_of_turn_confidence_threshold", {"end_of_turn_confidence_threshold": "nan"}),
    ("end_of_turn_confidence_threshold", {"end_of_turn_confidence_threshold": "much"}),
    ("end_of_turn_confidence_threshold", {"end_of_turn_confidence_threshold": "1", "speech_model": "u3-rt-pro"}),
    ("min_turn_silence", {"min_turn_silence": "0.4"}),
    ("keyterms_prompt must be a JSON", {"keyterms_prompt": "Harbor Books"}),
    ("keyterms_prompt must be a JSON", {"keyterms_prompt": "[1]"}),
    ("keyterms_prompt must not exceed 100", {"keyterms_prompt": json.dumps(["x"] * 101)}),
    ("keyterms_prompt must not have", {"keyterms_prompt": json.dumps(["x" * 51])}),
    ("keyterms_prompt is not for", {"keyterms_prompt": TERMS, "speech_model": "whisper-rt"}),
    ("language_detection is not for", {"language_detection": "true"}),
    ("language_codes is not for", {"language_codes": '["en"]'}),
    ("language_codes is not for", {"language_codes": '["en"]', "speech_model": "whisper-rt"}),
    ("language_codes must be a JSON", {"language_codes": "en", "speech_model": "u3-rt-pro"}),
    ("language_codes must be a JSON", {"language_codes": json.dumps(["en"] * 11), "speech_model": "u3-rt-pro"}),
    ("language_codes must be lang", {"language_codes": '["en", "multi"]', "speech_model": "u3-rt-pro"}),
    ("language_codes must be lang", {"language_codes": '["english"]', "speech_model": "u3-rt-pro"}),
    ("inactivity_timeout", {"inactivity_timeout": "4"}),
    ("max_speakers", {"max_speakers": "11"}),
    ("mode", {"mode": "fast", "speech_model": "u3-rt-pro"}),
    ("agent_context", {"agent_context": "x" * 1751, "speech_model": "u3-rt-pro"}),
    ("webhook_url is not served here", {"webhook_url": "https://example.com"}),
]


def refusal_of(server: AssemblyAIServer, query: dict[str, str] | list[tuple[str, str]]) -> str:
    with pytest.raises(InvalidStatus) as refused:
        dial(server, query)
    assert refused.value.response.status_code == 400
    said: str = json.loads(refused.value.response.body)["error"]
    return said


@pytest.mark.parametrize(("rule", "query"), BAD_QUERIES)
def test_a_query_that_breaks_a_rule_is_400(rule: str, query: dict[str, str]) -> None:
    with listening() as server:
        assert refusal_of(server, PHONE | query).startswith(rule)
        assert len(server.violations) == 1


@pytest.mark.parametrize("missing", ["speech_model", "sample_rate"])
def test_what_must_be_there_must_be_there(missing: str) -> None:
    with listening() as server:
        query = {name: value for name, value in PHONE.items() if name != missing}
        assert refusal_of(server, query) == f"{missing} is missing"


def test_a_query_that_is_not_text_is_refused() -> None:
    with listening() as server, pytest.raises(InvalidStatus) as refused:
        connect(f"{server.url}/v3/ws?speech_model=%ff", additional_headers={"Authorization": KEY})
    assert refused.value.response.status_code == 400


def test_nothing_may_be_asked_for_twice() -> None:
    with listening() as server:
        assert refusal_of(server, [*PHONE.items(), ("sample_rate", "8000")]) == "a parameter may be given only once"


GOOD_QUERIES: list[dict[str, str]] = [
    {"encoding": "pcm_s16le", "vad_threshold": "0.4", "filter_profanity": "true", "domain": "medical-v1"},
    {"format_turns": "True", "end_of_turn_confidence_threshold": "0.4", "min_turn_silence": "400"},
    {"max_turn_silence": "1280", "inactivity_timeout": "3600", "keyterms_prompt": json.dumps(["x" * 50] * 100)},
    {"speech_model": "universal-streaming-multilingual", "language_detection": "true", "language": "es"},
    {"speech_model": "whisper-rt", "language_detection": "true", "min_turn_silence": "100"},
    {"redact_pii": "true", "redact_pii_policies": '["date", "password"]', "redact_pii_sub": "hash"},
    {"speech_model": "u3-rt-pro", "language_codes": '["multi"]', "keyterms_prompt": TERMS, "prompt": "a call"},
    {"speech_model": "universal-3-6-pro", "language_codes": '["en", "yue"]', "mode": "min_latency"},
    {"speech_model": "universal-3-5-pro", "speaker_labels": "true", "max_speakers": "2", "language_detection": "true"},
]


@pytest.mark.parametrize("query", GOOD_QUERIES)
def test_what_is_documented_is_accepted(query: dict[str, str]) -> None:
    with listening() as server, dial(server, PHONE | query) as client:
        begun(client)
        assert server.violations == []


# --- Audio --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_ms", [0, 20, 49, 1001])
def test_a_chunk_may_have_50_to_1000_ms(length_ms: int) -> None:
    with listening() as server, dial(server) as client:
        begun(client)
        client.send(silence(8 * length_ms))
        (error,) = answers(client)
        assert error == {"type": "Error", "error_code": 3007, "error": client.close_reason}
        assert client.close_code == 3007
        assert "Input duration violation" in error["error"]
        assert len(server.violations) == 1


@pytest.mark.parametrize("length_ms", [50, 1000])
def test_the_shortest_and_the_longest_chunk_are_taken(length_ms: int) -> None:
    with listening() as server, dial(server) as client:
        client.send(silence(8 * length_ms))
        tell(client, "Terminate")
        assert closing(client)[0] == 1000
        assert server.violations == []


def test_samples_of_16_bits_are_heard_as_well() -> None:
    ear = Parrot()
    with listening(ear) as server, dial(server, PHONE | {"encoding": "pcm_s16le"}) as client:
        client.send(b"\x00\x10" * 800)
        tell(client, "Terminate")
        assert closing(client)[0] == 1000
    assert ear.heard == [[encode_mulaw([0x1000] * 800)]]


def sent(moments: list[tuple[float, float]], rules: Rules | None = None) -> bool:
    """Whether audio of these lengths, at these moments, was ever too fast."""
    pace = Pace(rules or Rules())
    return any(pace.is_exceeded(audio_s=audio_s, now=now) for now, audio_s in moments)


@pytest.mark.parametrize(("speed", "too_fast"), [(0.9, False), (1.0, False), (1.1, True), (2.0, True)])
def test_no_more_seconds_of_audio_may_come_than_seconds_pass(speed: float, too_fast: bool) -> None:
    assert sent([(n * 0.1 / speed, 0.1) for n in range(600)]) is too_fast


def test_the_whole_session_counts_and_not_the_last_moment() -> None:
    steady = [(n * 0.1, 0.1) for n in range(100)]
    assert not sent([*steady, *((40.0, 0.1) for _ in range(300))])  # after a pause of 30 s
    assert sent([*steady, *((40.0, 0.1) for _ in range(320))])


def test_a_replay_all_at_once_is_too_fast() -> None:
    assert sent([(0.0, 0.1)] * 12)
    assert not sent([(0.0, 0.1)] * 12, Rules(pace_slack_s=2.0))


def test_a_client_that_is_too_fast_is_closed_and_told_by_how_much() -> None:
    with listening(rules=Rules()) as server, dial(server) as client:
        begun(client)
        with suppress(ConnectionClosed):
            for second in range(60):
                client.send(numbered(IN, 1000 * second, 1000))
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        error = answers(client)[-1]
        assert error["error_code"] == server.connections[0].close_code == 3007
        assert "Audio Transmission Rate Exceeded: Received " in error["error"]
        assert "faster than 1.0" in server.violations[0]


# --- Text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "[" * 5000,
        '{"type":"Horoscope"}',
        '{"type":"terminate_session"}',
        '{"terminate_session":true}',
        '{"audio_data":"/////w=="}',
        '{"type":"UpdateConfiguration","speech_model":"u3-rt-pro"}',
        '{"type":"UpdateConfiguration","min_turn_silence":"400"}',
        '{"type":"UpdateConfiguration","min_turn_silence":-1}',
        '{"type":"UpdateConfiguration","prompt":"a call"}',
        '{"type":"UpdateConfiguration","keyterms_prompt":"Harbor Books"}',
        '{"type":"UpdateConfiguration","format_turns":"true"}',
    ],
)
def test_text_that_is_not_understood_ends_the_session(text: str) -> None:
    with listening() as server, dial(server) as client:
        begun(client)
        client.send(text)
        (error,) = answers(client)
        assert error["error_code"] == client.close_code == 3006
        assert len(server.violations) == 1


def test_universal_3_can_be_told_more_while_it_listens() -> None:
    with listening() as server, dial(server, UNIVERSAL_3) as client:
        tell(client, "UpdateConfiguration", prompt="a call", keyterms_prompt=["Harbor Books"], max_turn_silence=900)
        tell(client, "UpdateConfiguration", agent_context="she was asked for her name", language_codes=["en"])
        tell(client, "Terminate")
        assert closing(client)[0] == 1000
        assert server.violations == []


def test_formatting_can_be_ended_while_it_listens() -> None:
    with listening(number_ears(final_ms=1000)) as server, dial(server, FORMATTED) as client:
        speak(client, 1000)
        tell(client, "UpdateConfiguration", format_turns=False, min_turn_silence=160)
        speak(client, 1000, start_ms=1000)
        tell(client, "Terminate")
        said = ends(answers(client))
        assert [(turn["turn_order"], turn["turn_is_formatted"]) for turn in said] == [(0, False), (0, True), (1, False)]
        assert server.violations == []


def test_a_turn_can_be_ended_by_force() -> None:
    with listening() as server, dial(server) as client:
        begun(client)
        speak(client, 500)
        tell(client, "ForceEndpoint")
        assert words_of([answer(client)]) == frame_words(IN, 0, 500)
        assert server.violations == []


# --- Turns --------------------------------------------------------------------------------------------------


def word(one: Word, *, is_final: bool) -> Answer:
    return {
        "start": one.start_ms,
        "end": one.end_ms,
        "text": one.text,
        "confidence": one.confidence,
        "word_is_final": is_final,
    }


def test_a_turn_grows_and_its_newest_word_is_not_in_the_transcript_yet() -> None:
    first, second = said_of(PHONE, interim(HI), interim(HI, MY))
    assert (first["transcript"], first["words"]) == ("", [word(HI, is_final=False)])
    assert second == {
        "turn_order": 0,
        "turn_is_formatted": False,
        "end_of_turn": False,
        "transcript": "hi",
        "end_of_turn_confidence": 0.01,
        "words": [word(HI, is_final=True), word(MY, is_final=False)],
        "utterance": "",
        "type": "Turn",
    }


def test_without_formatting_a_turn_ends_once() -> None:
    (end,) = said_of(PHONE, final(HI, MY))
    assert end == {
        "turn_order": 0,
        "turn_is_formatted": False,
        "end_of_turn": True,
        "transcript": "hi my",
        "end_of_turn_confidence": 0.8,
        "words": [word(HI, is_final=True), word(MY, is_final=True)],
        "utterance": "hi my",
        "type": "Turn",
    }


def test_with_formatting_a_turn_ends_bare_and_then_formatted() -> None:
    bare, formatted = said_of(FORMATTED, final(HI, MY))
    assert (bare["transcript"], bare["turn_is_formatted"], bare["end_of_turn"]) == ("hi my", False, True)
    changed = {"transcript": "Hi my.", "turn_is_formatted": True, "utterance": ""}
    assert formatted == bare | changed


def test_universal_3_says_whole_pieces_and_ends_a_turn_once() -> None:
    began, partial, end = said_of(UNIVERSAL_3, SpeechBegan(0, 1900), interim(HI, MY), final(HI, MY, NAME))
    assert began == {"type": "SpeechStarted", "timestamp": 1900, "confidence": 0.9}
    assert (partial["transcript"], partial["end_of_turn"]) == ("Hi my—", False)
    assert {one["word_is_final"] for one in partial["words"]} == {False}
    assert (end["transcript"], end["utterance"], end["turn_is_formatted"]) == ("Hi my name.", "Hi my name.", True)


def test_turns_are_counted() -> None:
    said = said_of(PHONE, interim(HI), final(HI), final(MY), interim(NAME))
    assert [turn["turn_order"] for turn in said] == [0, 0, 1, 2]


def test_nothing_is_said_in_silence() -> None:
    assert said_of(PHONE, interim(), final(), SpeechBegan(0, 0), UtteranceOver(0, 0), final(HI))[0]["turn_order"] == 0
    with listening(number_ears(final_ms=1000)) as server, dial(server) as client:
        for _ in range(10):
            client.send(silence(8000))
        tell(client, "Terminate")
        assert [message["type"] for message in answers(client)] == ["Begin", "Termination"]


def test_a_language_is_told_with_the_end_of_a_turn_if_it_is_asked_for() -> None:
    partial, end = said_of(UNIVERSAL_3 | {"language_detection": "true"}, interim(HI), final(HI))
    assert "language_code" not in partial
    assert (end["language_code"], end["language_confidence"]) == ("en", 0.99)


# --- The end ------------------------------------------------------------------------------------------------


def test_terminate_brings_the_last_turns_and_what_is_billed() -> None:
    with listening() as server, dial(server) as client:
        speak(client, 4000)
        tell(client, "Terminate")
        said = answers(client)
        assert words_of(said) == frame_words(IN, 0, 4000)
        assert (said[-1]["type"], said[-1]["audio_duration_seconds"]) == ("Termination", 4)
        assert isinstance(said[-1]["session_duration_seconds"], int)
        assert client.close_code == 1000
        assert server.violations == []


def test_audio_after_terminate_is_noted() -> None:
    was_sent = threading.Event()
    with listening(Parrot(may_finish=was_sent)) as server, dial(server) as client:
        tell(client, "Terminate")
        speak(client, 100)
        was_sent.set()
        server.wait_for(lambda: server.violations, within=SOON)
        assert "audio after Terminate" in server.violations[0]


@pytest.mark.parametrize("leave", [lambda client: client.close(), lambda client: client.close_socket()])
def test_a_session_that_is_left_without_terminate_is_noted(leave: Callable[[ClientConnection], None]) -> None:
    with listening() as server, dial(server) as client:
        begun(client)
        speak(client, 500)
        leave(client)
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        assert "without Terminate" in server.violations[0]


def test_whoever_is_driven_away_need_not_say_terminate() -> None:
    faults = [Fault(drop=Drop(100, "mute")), Fault(no_pong=True), Fault(drop=Drop(100, "reset"))]
    with listening(faults=faults) as server:
        for _ in faults:
            with dial(server) as client:
                begun(client)
                with suppress(ConnectionClosed):
                    speak(client, 500)
        server.wait_for(lambda: all(connection.is_over for connection in server.connections), within=SOON)
        assert server.violations == []


def test_a_session_ends_when_its_time_is_up() -> None:
    with listening(rules=replace(AT_ONCE, session_s=1, second_s=0.2)) as server, dial(server) as client:
        begun(client)
        (error,) = answers(client)
        assert error["error_code"] == client.close_code == 3008
        assert server.violations == []


def test_a_session_that_asked_for_it_ends_when_it_is_idle() -> None:
    with listening(rules=replace(AT_ONCE, second_s=0.02)) as server:
        with dial(server, PHONE | {"inactivity_timeout": "5"}) as client:
            begun(client)
            assert answers(client)[0]["error_code"] == 4031


def test_keepalive_keeps_an_idle_session_open() -> None:
    with listening() as server:
        with dial(server, PHONE | {"inactivity_timeout": "60"}) as client:
            begun(client)
            (conversation,) = server._lines.values()
            told_at = time.monotonic()
            tell(client, "KeepAlive")
            server.wait_for(lambda: server.connections[0].texts, within=SOON)
            assert conversation.deadline() >= told_at + 60
            tell(client, "Terminate")
            assert closing(client)[0] == 1000
            assert server.violations == []


# --- How many sessions there may be -------------------------------------------------------------------------


def test_so_many_sessions_may_begin_within_a_minute() -> None:
    with listening(rules=replace(AT_ONCE, sessions_per_minute=2)) as server:
        for _ in range(2):
            with dial(server) as client:
                tell(client, "Terminate")
                assert closing(client)[0] == 1000
        with dial(server) as client:
            code, reason = closing(client)
            assert (code, reason) == (1008, "Unauthorized connection: Too many concurrent sessions")
        assert "2 new sessions within a minute" in server.violations[0]


def test_a_minute_later_more_may_begin() -> None:
    with listening(rules=replace(AT_ONCE, sessions_per_minute=1, minute_s=0)) as server:
        for _ in range(3):
            with dial(server) as client:
                tell(client, "Terminate")
                assert closing(client)[0] == 1000
        assert server.violations == []


def test_so_many_sessions_may_be_open_at_once() -> None:
    rules = replace(AT_ONCE, sessions=1, too_many=Refusal(3009, "", "Too many concurrent sessions"))
    with listening(rules=rules) as server:
        with dial(server) as client:
            begun(client)
            with dial(server) as too_many:
                assert closing(too_many) == (3009, "Too many concurrent sessions")
            tell(client, "Terminate")
            assert closing(client)[0] == 1000
        server.wait_for(lambda: all(connection.is_over for connection in server.connections), within=SOON)
        with dial(server) as client:
            begun(client)
        assert "1 sessions at once" in server.violations[0]


# --- Faults -------------------------------------------------------------------------------------------------


def test_a_client_may_be_refused_with_an_http_error_or_with_a_close_frame() -> None:
    faults = [Fault(refuse=Refusal(503, "", "Later")), Fault(refuse=Refusal(3005, "", "Server Error"))]
    with listening(faults=faults) as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server)
        assert refused.value.response.status_code == 503
        with dial(server) as client:
            assert [message["error_code"] for message in answers(client)] == [3005]
            assert (client.close_code, client.close_reason) == (3005, "Server Error")
        assert server.violations == []


@pytest.mark.parametrize("frame", [CloseFrame(), CloseFrame(1000, ""), CloseFrame(4000, "odd")])
def test_a_fault_can_close_at_once(frame: CloseFrame) -> None:
    with listening(faults=[Fault(drop=Drop(0, frame))]) as server, dial(server) as client:
        assert closing(client) == (frame.code, frame.reason)


def test_a_drop_comes_after_exactly_so_much_audio() -> None:
    faults = [Fault(drop=Drop(1010, CloseFrame(1000, "")))]
    with listening(number_ears(final_ms=20), faults=faults) as server, dial(server) as client:
        speak(client, 2000, chunk_ms=250)
        said = answers(client)
        assert words_of(said) == frame_words(IN, 0, 1000)  # the last frame was heard by half
        assert said[-1]["type"] == "Turn"


def test_answers_may_be_late_and_stay_in_order() -> None:
    with listening(number_ears(final_ms=100), faults=[Fault(answer_late_s=0.3)]) as server, dial(server) as client:
        before = time.monotonic()
        speak(client, 1000)
        tell(client, "Terminate")
        said = answers(client)
        assert time.monotonic() - before >= 0.3
        assert words_of(said) == frame_words(IN, 0, 1000)
        assert (said[0]["type"], said[-1]["type"]) == ("Begin", "Termination")


def test_garbage_comes_before_sense() -> None:
    with listening(faults=[Fault(garbage=True)]) as server, dial(server) as client:
        assert tuple(client.recv(timeout=SOON) for _ in GARBAGE) == GARBAGE
        speak(client, 1000)
        tell(client, "Terminate")
        assert words_of(answers(client)) == frame_words(IN, 0, 1000)


def test_terminate_may_be_ignored() -> None:
    with listening(faults=[Fault(on_end="ignore")]) as server:
        with dial(server) as client:
            begun(client)
            tell(client, "Terminate")
            speak(client, 500)
            tell(client, "ForceEndpoint")
            assert words_of([answer(client)]) == frame_words(IN, 0, 500)
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        assert server.violations == []


def test_terminate_may_cut_the_last_turns_or_be_answered_by_a_reset() -> None:
    with listening(faults=[Fault(on_end="cut"), Fault(on_end="reset")]) as server:
        with dial(server) as client:
            speak(client, 500)
            tell(client, "Terminate")
            assert [message["type"] for message in answers(client)] == ["Begin", "Termination"]
            assert client.close_code == 1000
        with dial(server) as client:
            tell(client, "Terminate")
            assert closing(client)[0] == 1006


def test_stopping_says_goodbye() -> None:
    with listening() as server, dial(server) as client:
        speak(client, 1000)
        threading.Thread(target=server.stop).start()
        assert closing(client)[0] == 1001
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        assert server.violations == []


def test_many_clients_are_heard_at_once() -> None:
    clients, length_ms = 50, 1000
    said: list[list[Answer]] = []

    def call(server: AssemblyAIServer) -> None:
        with dial(server, FORMATTED) as client:
            speak(client, length_ms)
            tell(client, "Terminate")
            said.append(answers(client))

    with listening() as server:
        calls = [threading.Thread(target=call, args=(server,)) for _ in range(clients)]
        for one in calls:
            one.start()
        for one in calls:
            one.join(60)
        server.wait_for(lambda: all(connection.is_over for connection in server.connections), within=SOON)
        assert [words_of(answered) for answered in said] == [frame_words(IN, 0, length_ms)] * clients
        assert server.violations == []


# --- The published SDK as a client --------------------------------------------------------------------------


class Sdk:
    """The SDK's client, and what it was told, in order."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.told: list[Any] = []
        self.client = StreamingClient(StreamingClientOptions(api_key=key, api_host=url, connect_timeout=SOON))
        for event in StreamingEvents:
            self.client.on(event, lambda _client, what: self.told.append(what))

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.told if isinstance(one, kind)]


def parameters(**more: Any) -> StreamingParameters:
    return StreamingParameters(
        sample_rate=8000,
        encoding=Encoding.pcm_mulaw,
        **{"speech_model": SpeechModel.universal_streaming_english} | more,
    )


def test_the_sdk_reads_turns_and_the_termination() -> None:
    with listening() as server:
        sdk = Sdk(server.url)
        sdk.client.connect(
            parameters(
                format_turns=True,
                keyterms_prompt=["order number", "relay"],
                end_of_turn_confidence_threshold=0.4,
                min_turn_silence=400,
                max_turn_silence=1280,
            )
        )
        sdk.client.stream(numbered(IN, at, 100) for at in range(0, 4000, 100))
        sdk.client.keep_alive()  # type: ignore[no-untyped-call]
        sdk.client.set_params(StreamingSessionParameters(max_turn_silence=2400))
        sdk.client.force_endpoint()  # type: ignore[no-untyped-call]
        sdk.client.disconnect(terminate=True)
        assert isinstance(sdk.told[0], BeginEvent)
        assert isinstance(sdk.told[-1], TerminationEvent)
        assert sdk.told[-1].audio_duration_seconds == 4
        formatted = [turn for turn in sdk.of(TurnEvent) if turn.turn_is_formatted]
        assert [word.text for turn in formatted for word in turn.words] == frame_words(IN, 0, 4000)
        assert [turn.turn_order for turn in sdk.of(TurnEvent) if turn.end_of_turn] == [0, 0, 1, 1]
        assert {type(one) for one in sdk.told} == {BeginEvent, TurnEvent, TerminationEvent}
        assert server.violations == []


def test_the_sdk_speaks_to_universal_3() -> None:
    with listening() as server:
        sdk = Sdk(server.url)
        sdk.client.connect(
            parameters(speech_model=SpeechModel.universal_3_6_pro, language_codes=["en"], language_detection=True)
        )
        sdk.client.stream(numbered(IN, at, 100) for at in range(0, 2000, 100))
        sdk.client.disconnect(terminate=True)
        (end,) = [turn for turn in sdk.of(TurnEvent) if turn.end_of_turn]
        assert (end.language_code, end.turn_is_formatted) == ("en", True)
        assert server.violations == []


@pytest.mark.parametrize("refusal", [Refusal(1008, "", "Unauthorized Connection"), Refusal(401, "", "Not authorized")])
def test_the_sdk_is_told_of_a_wrong_key(refusal: Refusal) -> None:
    with listening(rules=replace(AT_ONCE, wrong_key=refusal)) as server:
        sdk = Sdk(server.url, "wrong")
        sdk.client.connect(parameters())
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        sdk.client.disconnect()
        (error,) = sdk.of(StreamingError)
        assert error.code == refusal.status


def test_the_sdk_is_told_of_a_chunk_that_is_too_short() -> None:
    with listening() as server:
        sdk = Sdk(server.url)
        sdk.client.connect(parameters())
        sdk.client.stream(silence(160))
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        sdk.client.disconnect()
        (error,) = sdk.of(StreamingError)
        assert error.code == 3007


# --- In a process of its own --------------------------------------------------------------------------------

ALONE = """
import math, sys, threading
from assemblyai.streaming.v3 import *
from standins.assemblyai import AssemblyAIServer, Rules
from tests.numbered import frame_words, number_ears, numbered
from relay.events import Track

assert "gevent" not in sys.modules
words, over = [], threading.Event()
with AssemblyAIServer(ear=number_ears(), rules=Rules(pace=math.inf)) as server:
    client = StreamingClient(StreamingClientOptions(api_key="any", api_host=server.url, connect_timeout=10))
    client.on(StreamingEvents.Turn, lambda _, turn: turn.end_of_turn and words.extend(w.text for w in turn.words))
    client.on(StreamingEvents.Termination, lambda *_: over.set())
    client.connect(StreamingParameters(
        sample_rate=8000, encoding="pcm_mulaw", speech_model="universal-streaming-english"))
    client.stream(numbered(Track.INBOUND, at, 100) for at in range(0, 4000, 100))
    client.disconnect(terminate=True)
    assert over.wait(10)
    assert words == frame_words(Track.INBOUND, 0, 4000), words
    assert server.violations == [], server.violations
"""


def test_it_works_with_threads_as_they_are() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

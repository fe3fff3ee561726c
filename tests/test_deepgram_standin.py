"""The stand-in for Deepgram enforces what is documented, misbehaves as told, and gets along with a published client."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from deepgram import DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v1.types import ListenV1Metadata, ListenV1Results
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from relay.audio import silence
from relay.events import Track
from standins.conversation import Pace
from standins.deepgram import CloseFrame, Drop, Fault, Faults, ListenServer, Refusal, Rules
from standins.ear import Ear, EarFactory, EarOptions, Heard, Phrase, SpeechBegan, UtteranceOver, Word
from standins.listen_messages import GARBAGE
from standins.listen_options import ListenOptions
from tests.numbered import FRAME_MS, NOISE, NumberEar, frame_of, frame_words, number_ears, numbered
from tests.storing import eventually

KEY = "a-key-for-tests"
PHONE = {"model": "nova-3", "encoding": "mulaw", "sample_rate": "8000"}
STEREO = PHONE | {"channels": "2", "multichannel": "true"}
AT_ONCE = Rules(pace=math.inf)
SOON = 30.0  # seconds; nothing here takes nearly so long, unless it never happens
IN, OUT = Track.INBOUND, Track.OUTBOUND

Answer = dict[str, Any]


@contextmanager
def listening(
    ear: EarFactory | None = None, *, key: str | None = KEY, rules: Rules = AT_ONCE, faults: Faults = ()
) -> Iterator[ListenServer]:
    with ListenServer(ear=ear or number_ears(), key=key, rules=rules, faults=faults) as server:
        yield server


def dial(
    server: ListenServer,
    options: dict[str, str] | list[tuple[str, str]] = PHONE,
    *,
    path: str = "/v1/listen",
    authorization: str | None = f"Token {KEY}",
) -> ClientConnection:
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"{server.url}{path}?{urlencode(options)}"
    return connect(
        url, additional_headers=headers, compression=None, ping_interval=None, open_timeout=SOON, close_timeout=1
    )


def interleaved(left: bytes, right: bytes) -> bytes:
    both = bytearray(2 * len(left))
    both[::2], both[1::2] = left, right
    return bytes(both)


def tell(client: ClientConnection, kind: str, **fields: Any) -> None:
    client.send(json.dumps({"type": kind} | fields))


def answers(client: ClientConnection) -> list[Answer]:
    """Everything the service still says, until it closes."""
    said = []
    try:
        while True:
            said.append(json.loads(client.recv(timeout=SOON)))
    except ConnectionClosed:
        return said


def answer(client: ClientConnection) -> Answer:
    said: Answer = json.loads(client.recv(timeout=SOON))
    return said


def of_kind(kind: str, said: list[Answer]) -> list[Answer]:
    return [message for message in said if message["type"] == kind]


def words_of(said: list[Answer], channel: int = 0) -> list[str]:
    """The words of all finals of a channel."""
    return [
        word["word"]
        for result in of_kind("Results", said)
        if result["is_final"] and result["channel_index"][0] == channel
        for word in result["channel"]["alternatives"][0]["words"]
    ]


def closing(client: ClientConnection) -> tuple[int | None, str | None]:
    answers(client)
    return client.close_code, client.close_reason


# --- The handshake ------------------------------------------------------------------------------------------


def test_a_good_request_is_accepted_and_named() -> None:
    with listening() as server, dial(server) as client:
        assert client.response is not None
        assert client.response.headers["dg-request-id"] == server.connections[0].request_id
        assert server.violations == []


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Token", "Token ", "Token another-key", f"Bearer {KEY}", KEY, f"Token {KEY}, Token {KEY}"],
)
def test_without_the_right_key_it_is_401(authorization: str | None) -> None:
    with listening() as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server, authorization=authorization)
        response = refused.value.response
        assert response.status_code == 401
        assert response.headers["dg-error"] == "Invalid credentials."
        assert json.loads(response.body) == {
            "err_code": "INVALID_AUTH",
            "err_msg": "Invalid credentials.",
            "request_id": response.headers["dg-request-id"],
        }


@pytest.mark.parametrize("authorization", ["Token anything", "token anything"])
def test_with_no_key_of_its_own_it_takes_any_but_wants_one(authorization: str) -> None:
    with listening(key=None) as server:
        with dial(server, authorization=authorization):
            pass
        with pytest.raises(InvalidStatus):
            dial(server, authorization=None)


def test_the_key_is_not_kept() -> None:
    with listening() as server:
        with dial(server):
            pass
        assert KEY not in repr(server.connections[0])
        assert "authorization" not in server.connections[0].headers


@pytest.mark.parametrize("path", ["/", "/v1/listen/", "/v2/listen", "/v1/speak"])
def test_other_paths_are_404(path: str) -> None:
    with listening() as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server, path=path)
        assert refused.value.response.status_code == 404
        assert server.violations


BAD_QUERIES: list[tuple[str, list[tuple[str, str]]]] = [
    ("unknown parameter 'is_final'", [("is_final", "true")]),
    ("unknown parameter 'Model'", [("Model", "nova-3")]),
    ("multichannel", [("multichannel", "True")]),
    ("multichannel", [("multichannel", "1")]),
    ("interim_results", [("interim_results", "")]),
    ("interim_results", [("interim_results", "true"), ("interim_results", "true")]),
    ("language", [("language", "english")]),
    ("language", [("language", "en_US")]),
    ("language=multi", [("language", "multi"), ("model", "nova")]),
    ("model", [("model", "nova3")]),
    ("model", [("model", "nova-3-phonecall")]),
    ("model", [("model", "whisper")]),
    ("keywords", [("keywords", "relay:2"), ("model", "nova-3")]),
    ("keyterm", [("keyterm", "relay"), ("model", "nova-2")]),
    ("keyterm", [("keyterm", "a relay " * 250), ("keyterm", "more")]),
    ("utterance_end_ms", [("utterance_end_ms", "1000")]),
    ("utterance_end_ms", [("utterance_end_ms", "999"), ("interim_results", "true")]),
    ("utterance_end_ms", [("utterance_end_ms", "soon"), ("interim_results", "true")]),
    ("endpointing", [("endpointing", "-1")]),
    ("encoding", [("encoding", "mp3")]),
    ("encoding", [("encoding", "opus")]),
    ("sample_rate", [("sample_rate", "8k")]),
    ("sample_rate", [("sample_rate", "16000")]),
    ("channels", [("channels", "21")]),
    ("channels", [("channels", "0")]),
    ("tag", [("tag", "x" * 129)]),
    ("extra", [("extra", "k:" + "x" * 2047)]),
    ("extra", [("extra", "callSid")]),
    ("diarize_model", [("diarize_model", "v2")]),
    ("dictation", [("dictation", "true")]),
    ("redact", [("redact", "names")]),
    ("callback", [("callback", "ftp://example.com")]),
    ("callback", [("callback", "https://example.com:8000/words")]),
    ("callback_method", [("callback_method", "PATCH")]),
]


@pytest.mark.parametrize(("rule", "query"), BAD_QUERIES)
def test_a_query_that_breaks_a_rule_is_400(rule: str, query: list[tuple[str, str]]) -> None:
    named = {name for name, _ in query}
    with listening() as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server, [(name, value) for name, value in PHONE.items() if name not in named] + query)
        response = refused.value.response
        assert response.status_code == 400
        assert response.headers["dg-error"].startswith(rule)
        body = json.loads(response.body)
        assert (body["err_code"], body["request_id"]) == ("INVALID_QUERY_PARAMETER", response.headers["dg-request-id"])
        assert len(server.violations) == 1


@pytest.mark.parametrize("missing", ["sample_rate", "encoding"])
def test_raw_audio_needs_its_encoding_and_its_rate(missing: str) -> None:
    with listening() as server, pytest.raises(InvalidStatus):
        dial(server, {name: value for name, value in STEREO.items() if name != missing})


def test_channels_needs_encoding() -> None:
    with listening() as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server, {"model": "nova-3", "channels": "2"})
        assert refused.value.response.headers["dg-error"] == "channels needs encoding"


GOOD_QUERIES: list[list[tuple[str, str]]] = [
    [("model", "nova-2-phonecall"), ("keywords", "relay:2"), ("keywords", "call")],
    [("model", "nova-3-medical"), ("keyterm", "angina"), ("keyterm", "order number")],
    [("model", "1abfe86b-e047-4eed-858a-35e5625b41ee")],
    [("language", "multi"), ("endpointing", "100")],
    [("language", "zh-Hant-TW"), ("endpointing", "false")],
    [("language", "es-419")],
    [("interim_results", "true"), ("utterance_end_ms", "1000"), ("vad_events", "true")],
    [("punctuate", "true"), ("dictation", "true"), ("smart_format", "true"), ("numerals", "false")],
    [("redact", "pci"), ("redact", "ssn"), ("tag", "x" * 128), ("tag", "second"), ("mip_opt_out", "true")],
    [("extra", "callSid:CA1"), ("extra", "url:https://example.com"), ("version", "latest"), ("diarize_model", "v1")],
    [("channels", "20"), ("multichannel", "true")],
]


@pytest.mark.parametrize("query", GOOD_QUERIES)
def test_what_is_documented_is_accepted(query: list[tuple[str, str]]) -> None:
    named = {name for name, _ in query}
    with listening() as server:
        with dial(server, [(name, value) for name, value in PHONE.items() if name not in named] + query):
            assert server.violations == []


def test_an_error_cannot_smuggle_a_header() -> None:
    with listening() as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server, PHONE | {"x\r\nset-cookie: \N{SNOWMAN}": "1"})
        assert refused.value.response.headers["dg-error"] == r"unknown parameter 'x\r\nset-cookie: \u2603'"
        assert "set-cookie" not in refused.value.response.headers


# --- Silence ------------------------------------------------------------------------------------------------


def test_no_audio_after_opening_ends_in_net_0001() -> None:
    with listening(rules=Rules(first_audio_within_s=0.2)) as server, dial(server) as client:
        code, reason = closing(client)
        assert code == 1011
        assert reason
        assert reason.startswith("NET-0001")
        assert len(server.violations) == 1


def test_keepalive_alone_does_not_stand_in_for_the_first_audio() -> None:
    with listening(rules=Rules(first_audio_within_s=0.5)) as server, dial(server) as client:
        with suppress(ConnectionClosed):
            while True:
                tell(client, "KeepAlive")
                time.sleep(0.05)  # the pace of the keepalives, not a wait for anything
        assert client.close_code == 1011


def test_silence_after_audio_ends_in_net_0001() -> None:
    with listening(rules=Rules(silence_limit_s=0.2)) as server, dial(server) as client:
        client.send(silence(800))
        assert closing(client)[0] == 1011


def test_keepalive_after_audio_keeps_the_stream_open() -> None:
    with listening(rules=Rules(silence_limit_s=60)) as server, dial(server) as client:
        (conversation,) = server._lines.values()
        client.send(silence(800))
        eventually(lambda: conversation.heard_at is not None)
        told_at = time.monotonic()
        tell(client, "KeepAlive")
        server.wait_for(lambda: server.connections[0].texts, within=SOON)
        assert conversation.deadline() >= told_at + 60
        tell(client, "CloseStream")
        assert closing(client)[0] == 1000
        assert server.violations == []


# --- Pace ---------------------------------------------------------------------------------------------------


def sent(pace: Pace, moments: list[tuple[float, float]]) -> bool:
    """Whether audio of these lengths, at these moments, was ever too fast."""
    return any(pace.is_exceeded(audio_s=audio_s, now=now) for now, audio_s in moments)


@pytest.mark.parametrize(("speed", "too_fast"), [(1.0, False), (1.25, False), (1.4, True), (2.0, True), (10.0, True)])
def test_what_is_sent_steadily_may_be_a_quarter_faster_than_real_time(speed: float, too_fast: bool) -> None:
    assert sent(Pace(Rules()), [(n * 0.1 / speed, 0.1) for n in range(200)]) is too_fast


def test_a_short_pause_may_be_caught_up_at_once_and_a_long_one_may_not() -> None:
    steady = [(n * 0.1, 0.1) for n in range(100)]
    assert not sent(Pace(Rules()), [*steady, (10.0 + 1.0, 0.1), *((11.0, 0.1) for _ in range(10))])
    assert sent(Pace(Rules()), [*steady, (10.0 + 30.0, 0.1), *((40.0, 0.1) for _ in range(300))])


def test_a_replay_all_at_once_is_too_fast() -> None:
    assert sent(Pace(Rules()), [(0.0, 0.1)] * 30)


def test_a_client_that_is_too_fast_is_closed() -> None:
    with listening(rules=Rules()) as server, dial(server) as client:
        with suppress(ConnectionClosed):
            for second in range(60):
                client.send(numbered(IN, 1000 * second, 1000))
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        assert server.connections[0].close_code == 1008
        assert "faster than 1.25" in server.violations[0]


# --- Audio --------------------------------------------------------------------------------------------------


def test_audio_comes_back_as_results_and_metadata_ends_the_stream() -> None:
    with listening() as server, dial(server) as client:
        client.send(numbered(IN, 0, 5000))
        tell(client, "CloseStream")
        said = answers(client)
        assert words_of(said) == frame_words(IN, 0, 5000)
        assert [message["type"] for message in said] == ["Results", "Results", "Metadata"]
        assert (said[-1]["duration"], said[-1]["channels"]) == (5.0, 1)
        assert client.close_code == 1000
        assert server.violations == []


def test_each_channel_is_heard_by_itself() -> None:
    with listening() as server, dial(server, STEREO) as client:
        client.send(interleaved(numbered(IN, 0, 4000), numbered(OUT, 60_000, 4000)))
        tell(client, "CloseStream")
        said = answers(client)
        assert words_of(said, 0) == frame_words(IN, 0, 4000)
        assert words_of(said, 1) == frame_words(OUT, 60_000, 4000)
        assert {result["channel_index"][1] for result in of_kind("Results", said)} == {2}
        assert (said[-1]["duration"], said[-1]["channels"]) == (4.0, 2)


def test_without_multichannel_there_is_one_mix() -> None:
    with listening() as server, dial(server, PHONE | {"channels": "2"}) as client:
        client.send(interleaved(numbered(IN, 0, 1000), numbered(OUT, 0, 1000)))
        tell(client, "CloseStream")
        said = answers(client)
        assert words_of(said) == frame_words(IN, 0, 1000)
        assert {tuple(result["channel_index"]) for result in of_kind("Results", said)} == {(0, 1)}


def test_linear16_is_heard_too() -> None:
    heard: list[bytes] = []
    with listening(ear=recording_ears(heard)) as server, dial(server, STEREO | {"encoding": "linear16"}) as client:
        client.send(b"\x00\x00\x84\x7b\x7c\x84\x00\x00")  # 0 and the loudest samples, channel by channel
        tell(client, "CloseStream")
        assert answers(client)[-1]["duration"] == 0.0
        assert heard == [b"\xff\x00", b"\x80\xff"]


def test_an_empty_binary_message_ends_the_stream() -> None:
    with listening() as server, dial(server) as client:
        client.send(numbered(IN, 0, 1000))
        client.send(b"")
        said = answers(client)
        assert words_of(said) == frame_words(IN, 0, 1000)
        assert said[-1]["type"] == "Metadata"
        assert client.close_code == 1000
        assert "empty" in server.violations[0]


def test_a_control_message_in_a_binary_frame_is_audio() -> None:
    with listening() as server, dial(server) as client:
        client.send(b'{"type":"CloseStream"}')
        client.send(numbered(IN, 0, 1000))
        tell(client, "CloseStream")
        said = answers(client)
        assert NOISE in words_of(said)
        assert "binary" in server.violations[0]


def test_a_message_that_parts_the_channels_is_a_violation_and_the_next_one_mends_it() -> None:
    audio = interleaved(numbered(IN, 0, 1000), numbered(OUT, 0, 1000))
    with listening() as server, dial(server, STEREO) as client:
        client.send(audio[:1601])
        client.send(audio[1601:])
        tell(client, "CloseStream")
        said = answers(client)
        assert words_of(said, 1) == frame_words(OUT, 0, 1000)
        assert len(server.violations) == 2


def test_audio_after_close_stream_is_a_violation() -> None:
    with listening() as server, dial(server) as client:
        tell(client, "CloseStream")
        client.send(numbered(IN, 0, 1000))
        assert [message["type"] for message in answers(client)] == ["Metadata"]
        server.wait_for(lambda: server.violations, within=SOON)
        assert "after CloseStream" in server.violations[0]


# --- Text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "KeepAlive", "[]", "null", "{}", '{"type":"Close"}', '{"type":null}', '{"type":"Finalize","channel":7}',
     '{"type":"Configure","keyterms":"one"}', '{"type":"Configure","features":{"numerals":"yes"}}', "[" * 100_000],
)  # fmt: skip
def test_text_that_is_not_understood_is_a_schema_error_and_the_stream_goes_on(text: str) -> None:
    with listening() as server, dial(server) as client:
        client.send(text)
        error = answer(client)
        assert (error["type"], error["variant"], error["message"]) == ("Error", "SchemaError", text)
        client.send(numbered(IN, 0, 1000))
        tell(client, "CloseStream")
        assert words_of(answers(client)) == frame_words(IN, 0, 1000)
        assert len(server.violations) == 1


def test_finalize_flushes_and_the_stream_goes_on() -> None:
    with listening() as server, dial(server) as client:
        client.send(numbered(IN, 0, 400))
        tell(client, "Finalize")
        flushed = answer(client)
        assert (flushed["is_final"], flushed["from_finalize"], flushed["duration"]) == (True, True, 0.4)
        client.send(numbered(IN, 400, 600))
        tell(client, "CloseStream")
        rest = answers(client)
        assert words_of([flushed, *rest]) == frame_words(IN, 0, 1000)
        assert rest[0]["from_finalize"] is False


def test_finalize_can_mean_one_channel() -> None:
    with listening() as server, dial(server, STEREO) as client:
        client.send(interleaved(numbered(IN, 0, 400), numbered(OUT, 0, 400)))
        tell(client, "Finalize", channel=1)
        assert answer(client)["channel_index"] == [1, 2]
        tell(client, "CloseStream")
        assert [result["channel_index"] for result in of_kind("Results", answers(client))] == [[0, 2]]


@pytest.mark.parametrize(
    ("model", "change", "expected"),
    [
        ("nova-3", {"keyterms": ["relay"]}, {"type": "ConfigureSuccess", "keyterms": ["relay"]}),
        ("nova-3", {"keyterms": []}, {"type": "ConfigureSuccess", "keyterms": []}),
        ("nova-2", {"features": {"numerals": True}}, {"type": "ConfigureSuccess"}),
        ("nova-2", {"keyterms": ["a"]}, {"type": "ConfigureFailure", "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED"}),
        ("nova-3", {"keyterms": ["a"] * 501}, {"type": "ConfigureFailure", "code": "CONFIGURE_KEYTERM_LIMIT_EXCEEDED"}),
    ],
)
def test_configure_is_answered(model: str, change: dict[str, Any], expected: Answer) -> None:
    with listening() as server, dial(server, PHONE | {"model": model}) as client:
        tell(client, "Configure", **change)
        said = answer(client)
        assert expected.items() <= said.items()
        assert ("keyterms" in said) == ("keyterms" in expected)
        assert server.violations == []


# --- What it says -------------------------------------------------------------------------------------------


def recording_ears(heard: list[bytes], says: tuple[Heard, ...] = ()) -> Callable[..., Ear]:
    """Ears that keep what they hear, and say the same each time."""

    class RecordingEar:
        def __init__(self, options: EarOptions, emit: Callable[[Heard], None]) -> None:
            self._emit = emit

        def hear(self, channels: list[bytes]) -> None:
            heard.extend(channels)
            for one in says:
                self._emit(one)

        def flush(self, channel: int | None = None) -> None: ...
        def finish(self) -> None: ...
        def close(self) -> None: ...

    return RecordingEar


def test_results_have_deepgrams_shape() -> None:
    said = Phrase(1, 1250, 3500, (Word("hello", 1300, 1600, 0.5), Word("there", 1600, 2000, 1.0)), True, True)
    query = [*STEREO.items(), ("extra", "callSid:CA1"), ("extra", "part:2:3")]
    with listening(ear=recording_ears([], (said,))) as server, dial(server, query) as client:
        client.send(silence(160))
        result = answer(client)
        metadata = result.pop("metadata")
        assert result == {
            "type": "Results",
            "channel_index": [1, 2],
            "start": 1.25,
            "duration": 2.25,
            "is_final": True,
            "speech_final": True,
            "from_finalize": False,
            "channel": {
                "alternatives": [
                    {
                        "transcript": "hello there",
                        "confidence": 0.75,
                        "words": [
                            {"word": "hello", "start": 1.3, "end": 1.6, "confidence": 0.5, "punctuated_word": "hello"},
                            {"word": "there", "start": 1.6, "end": 2.0, "confidence": 1.0, "punctuated_word": "there"},
                        ],
                    }
                ]
            },
        }
        assert metadata["request_id"] == server.connections[0].request_id
        assert metadata["model_info"]["arch"] == "nova-3"
        assert metadata["model_uuid"]
        assert metadata["extra"] == {"callSid": "CA1", "part": "2:3"}


EVERYTHING: tuple[Heard, ...] = (
    SpeechBegan(0, 40),
    Phrase(0, 0, 1000, (), is_final=False),
    Phrase(0, 0, 2000, (), is_final=True),
    UtteranceOver(0, 990),
)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, ["final"]),
        ({"interim_results": "true"}, ["interim", "final"]),
        ({"vad_events": "true"}, ["SpeechStarted", "final"]),
        ({"interim_results": "true", "utterance_end_ms": "1000"}, ["interim", "final", "UtteranceEnd"]),
    ],
)
def test_only_what_was_asked_for_is_said(options: dict[str, str], kinds: list[str]) -> None:
    with listening(ear=recording_ears([], EVERYTHING)) as server, dial(server, PHONE | options) as client:
        client.send(silence(160))
        tell(client, "CloseStream")
        *said, metadata = answers(client)
        assert metadata["type"] == "Metadata"
        named = {True: "final", False: "interim"}
        assert [named[one["is_final"]] if one["type"] == "Results" else one["type"] for one in said] == kinds
        for one in of_kind("SpeechStarted", said):
            assert one == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.04}
        for one in of_kind("UtteranceEnd", said):
            assert one == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 0.99}


def test_what_a_client_did_is_kept() -> None:
    with listening() as server:
        with dial(server, PHONE | {"tag": "CA1"}) as client:
            client.send(numbered(IN, 0, 100))
            client.send(numbered(IN, 100, 100))
            tell(client, "KeepAlive")
            tell(client, "CloseStream")
            answers(client)
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        connection = server.connections[0]
        assert (connection.number, connection.status, connection.close_code) == (0, 101, 1000)
        assert (connection.audio_messages, connection.audio_bytes, connection.audio_ms) == (2, 1600, 200)
        assert connection.audio == numbered(IN, 0, 200)
        assert [json.loads(text)["type"] for text in connection.texts] == ["KeepAlive", "CloseStream"]
        assert connection.options is not None
        assert connection.options.given["tag"] == ("CA1",)
        assert connection.answers == 2


def test_waiting_for_what_does_not_happen_ends() -> None:
    with listening() as server, pytest.raises(TimeoutError):
        server.wait_for(lambda: server.connections, within=0.05)


# --- Faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [Refusal(429, "TOO_MANY_REQUESTS", "Too many."), Refusal(402, "ASR_PAYMENT_REQUIRED", "No credit."),
     Refusal(503, "Service Unavailable", "Later.")],
)  # fmt: skip
def test_a_fault_can_refuse_and_the_next_connection_is_sound(refusal: Refusal) -> None:
    with listening(faults=[Fault(refuse=refusal)]) as server:
        with pytest.raises(InvalidStatus) as refused:
            dial(server)
        assert refused.value.response.status_code == refusal.status
        assert refused.value.response.headers["dg-error"] == refusal.message
        assert json.loads(refused.value.response.body)["err_code"] == refusal.err_code
        with dial(server):
            assert server.violations == []


def test_faults_can_be_a_rule_for_each_connection() -> None:
    with listening(faults=lambda n: Fault(drop=Drop(0, CloseFrame(1011, "odd"))) if n % 2 else None) as server:
        for n in range(4):
            with dial(server) as client:
                if n % 2 == 0:
                    tell(client, "CloseStream")
                assert closing(client)[0] == (1011 if n % 2 else 1000)


@pytest.mark.parametrize("frame", [CloseFrame(), CloseFrame(1000), CloseFrame(1008, "DATA-0000"), CloseFrame(4000)])
def test_a_fault_can_close_at_once(frame: CloseFrame) -> None:
    with listening(faults=[Fault(drop=Drop(0, frame))]) as server, dial(server) as client:
        assert closing(client) == (frame.code, frame.reason)


def test_a_drop_comes_after_exactly_so_much_audio() -> None:
    faults = [Fault(drop=Drop(1010, CloseFrame(1000)))]
    ears = number_ears(final_ms=20)
    with listening(faults=faults, ear=ears) as server, dial(server, STEREO) as client:
        for at in range(0, 2000, 250):
            client.send(interleaved(numbered(IN, at, 250), numbered(OUT, at, 250)))
        said = answers(client)
        assert words_of(said, 0) == frame_words(IN, 0, 1000)  # the last frame was heard by half
        assert words_of(said, 1) == frame_words(OUT, 0, 1000)
        assert not of_kind("Metadata", said)


def test_a_reset_says_no_goodbye() -> None:
    with listening(faults=[Fault(drop=Drop(500, "reset"))]) as server, dial(server) as client:
        client.send(numbered(IN, 0, 1000))
        with pytest.raises(ConnectionClosedError) as lost:
            client.recv(timeout=SOON)
        assert lost.value.rcvd is None
        assert isinstance(lost.value.__cause__, ConnectionResetError)
        server.wait_for(lambda: server.connections[0].close_code == 1006, within=SOON)


def test_a_mute_service_reads_and_pongs_and_says_nothing() -> None:
    with listening(faults=[Fault(drop=Drop(500, "mute"))], ear=number_ears(final_ms=100)) as server:
        with dial(server) as client:
            client.send(numbered(IN, 0, 1000))
            assert len([answer(client) for _ in range(5)]) == 5
            client.send(numbered(IN, 1000, 1000))
            tell(client, "CloseStream")
            server.wait_for(lambda: server.connections[0].texts, within=SOON)
            assert client.ping().wait(SOON)
            with pytest.raises(TimeoutError):
                client.recv(timeout=0)  # the pong came after all that was said before it
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)


def test_an_abandoned_connection_is_not_read_and_does_not_pong() -> None:
    with listening(faults=[Fault(drop=Drop(500, "abandon"))]) as server:
        with dial(server) as client:
            client.send(numbered(IN, 0, 1000))
            server.wait_for(lambda: server.connections[0].audio_messages, within=SOON)
            pong = client.ping()
            client.send(numbered(IN, 1000, 1000))
            assert not pong.wait(0.3)
            assert server.connections[0].audio_messages == 1
            assert not server.connections[0].is_over
            server.stop()
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)


def test_pings_may_stay_unanswered_while_all_else_works() -> None:
    with listening(faults=[Fault(no_pong=True)]) as server, dial(server) as client:
        pong = client.ping()
        client.send(numbered(IN, 0, 1000))
        tell(client, "Finalize")
        assert words_of([answer(client)]) == frame_words(IN, 0, 1000)
        assert not pong.is_set()


def test_answers_may_be_late_and_stay_in_order() -> None:
    with listening(faults=[Fault(answer_late_s=0.3)], ear=number_ears(final_ms=100)) as server, dial(server) as client:
        began = time.monotonic()
        client.send(numbered(IN, 0, 1000))
        tell(client, "CloseStream")
        said = [answer(client)]
        assert time.monotonic() - began >= 0.3
        said += answers(client)
        assert words_of(said) == frame_words(IN, 0, 1000)
        assert said[-1]["type"] == "Metadata"
        assert client.close_code == 1000


def test_garbage_comes_before_sense() -> None:
    with listening(faults=[Fault(garbage=True)]) as server, dial(server) as client:
        assert tuple(client.recv(timeout=SOON) for _ in GARBAGE) == GARBAGE
        client.send(numbered(IN, 0, 1000))
        tell(client, "CloseStream")
        assert words_of(answers(client)) == frame_words(IN, 0, 1000)


def test_close_stream_may_be_ignored() -> None:
    with listening(faults=[Fault(on_end="ignore")]) as server, dial(server) as client:
        tell(client, "CloseStream")
        client.send(numbered(IN, 0, 1000))
        tell(client, "Finalize")
        assert words_of([answer(client)]) == frame_words(IN, 0, 1000)


def test_close_stream_may_be_answered_by_a_reset() -> None:
    with listening(faults=[Fault(on_end="reset")]) as server, dial(server) as client:
        tell(client, "CloseStream")
        assert closing(client)[0] == 1006


def test_close_stream_may_cut_the_last_results() -> None:
    with listening(faults=[Fault(on_end="cut")]) as server, dial(server) as client:
        client.send(numbered(IN, 0, 1000))
        tell(client, "CloseStream")
        assert [message["type"] for message in answers(client)] == ["Metadata"]
        assert client.close_code == 1000


# --- Its end, and many at once ------------------------------------------------------------------------------


def test_stopping_says_goodbye() -> None:
    with listening() as server, dial(server) as client:
        client.send(numbered(IN, 0, 1000))
        threading.Thread(target=server.stop).start()
        assert closing(client)[0] == 1001


def test_stopping_does_not_wait_for_a_client_that_reads_nothing() -> None:
    loud = tuple(Phrase(0, 0, 20, (Word("x" * 100_000, 0, 20),), is_final=True) for _ in range(100))
    with listening(ear=recording_ears([], loud)) as server:
        with dial(server) as client:
            with client.recv_flow_control:  # the client's own reader waits for this lock, and reads nothing
                client.send(numbered(IN, 0, 20))
                server.wait_for(lambda: server.connections[0].answers > 10, within=SOON)
                began = time.monotonic()
                server.stop()
                assert time.monotonic() - began < SOON
            server.wait_for(lambda: server.connections[0].is_over, within=SOON)


def test_an_ear_that_fails_ends_its_connection_only() -> None:
    def deaf(options: EarOptions, emit: Callable[[Heard], None]) -> Ear:
        raise OSError("no ears left")

    with listening(ear=deaf) as server, dial(server) as client:
        assert closing(client)[0] == 1011


def test_a_hundred_clients_are_heard_at_once() -> None:
    clients, length_ms = 100, 1000
    said: list[list[Answer]] = []

    def call(server: ListenServer) -> None:
        with dial(server, STEREO) as client:
            for at in range(0, length_ms, 100):
                client.send(interleaved(numbered(IN, at, 100), numbered(OUT, at, 100)))
            tell(client, "CloseStream")
            said.append(answers(client))

    with listening() as server:
        calls = [threading.Thread(target=call, args=(server,)) for _ in range(clients)]
        for one in calls:
            one.start()
        for one in calls:
            one.join(60)
        server.wait_for(lambda: all(connection.is_over for connection in server.connections), within=SOON)
        assert len(said) == clients
        for answered in said:
            assert words_of(answered, 0) == frame_words(IN, 0, length_ms)
            assert words_of(answered, 1) == frame_words(OUT, 0, length_ms)
        assert server.violations == []


# --- The published SDK as a client --------------------------------------------------------------------------


def sdk(server: ListenServer, key: str = KEY) -> DeepgramClient:
    http = server.url.replace("ws", "http", 1)
    here = DeepgramClientEnvironment(base=http, production=server.url, agent=server.url, agent_rest=http)
    return DeepgramClient(api_key=key, environment=here)


def test_the_sdk_reads_results_and_metadata() -> None:
    with listening() as server:
        with sdk(server).listen.v1.connect(
            model="nova-3",
            encoding="mulaw",
            sample_rate=8000,
            channels=2,
            multichannel="true",
            interim_results="true",
            utterance_end_ms=1000,
            keyterm=["order number", "relay"],
            tag=["CA1"],
            extra=["callSid:CA1"],
        ) as socket:
            for at in range(0, 4000, 100):
                socket.send_media(interleaved(numbered(IN, at, 100), numbered(OUT, at, 100)))
            socket.send_keep_alive()
            socket.send_finalize()
            socket.send_close_stream()
            said = list(socket)
        results = [message for message in said if isinstance(message, ListenV1Results)]
        assert isinstance(said[-1], ListenV1Metadata)
        assert said[-1].duration == 4.0
        assert {type(message) for message in said} == {ListenV1Results, ListenV1Metadata}
        assert {result.is_final for result in results} == {True, False}
        for channel, track in enumerate((IN, OUT)):
            words = [
                word.word
                for result in results
                if result.is_final and result.channel_index[0] == channel
                for word in result.channel.alternatives[0].words
            ]
            assert words == frame_words(track, 0, 4000)
        for message in said:  # the SDK builds its models unchecked; here they are checked
            type(message).model_validate(message.model_dump())
        assert server.violations == []


def test_the_sdk_is_refused_with_a_wrong_key() -> None:
    with listening() as server:
        refused = sdk(server, "wrong").listen.v1.connect(model="nova-3", encoding="mulaw", sample_rate=8000)
        # The SDK means to raise its ApiError, but knows only an exception that websockets raises no more.
        with pytest.raises((ApiError, InvalidStatus), match="401"), refused:
            pass


# --- The ear that hears numbers -----------------------------------------------------------------------------


def heard_numbers(
    chunks: list[bytes], *, final_ms: int | range = 3000, interim_ms: int = 1000, seed: str = "0"
) -> list[Phrase]:
    said: list[Heard] = []
    ear = NumberEar(ListenOptions(), said.append, final_ms=final_ms, interim_ms=interim_ms, seed=seed)
    for chunk in chunks:
        ear.hear([chunk])
    ear.finish()
    return [one for one in said if isinstance(one, Phrase)]


def cut(audio: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(audio[:size])
        audio = audio[size:]
    return [*chunks, audio]


@given(
    sizes=st.lists(st.integers(1, 3000), max_size=20),
    final_ms=st.one_of(st.integers(1, 200).map(lambda n: n * FRAME_MS), st.just(range(20, 4000, 20))),
    pause_ms=st.integers(0, 3000),
    seed=st.text(max_size=2),
)
def test_however_audio_is_cut_every_frame_is_heard_once(
    sizes: list[int], final_ms: int | range, pause_ms: int, seed: str
) -> None:
    audio = numbered(IN, 400, 1000) + silence(8 * pause_ms) + numbered(IN, 1400, 1000)
    phrases = heard_numbers(cut(audio, sizes), final_ms=final_ms, seed=seed)
    finals = [phrase for phrase in phrases if phrase.is_final]
    words = [word for final in finals for word in final.words]
    assert [word.text for word in words] == frame_words(IN, 400, 2000)
    assert [word.start_ms for word in words[:50]] == list(range(0, 1000, FRAME_MS))
    assert words[50].start_ms == 1000 + pause_ms
    assert [final.start_ms for final in finals] == [0, *(final.end_ms for final in finals[:-1])]
    assert finals[-1].end_ms == 2000 + pause_ms
    for final in finals:
        assert all(final.start_ms <= word.start_ms and word.end_ms <= final.end_ms for word in final.words)


@given(at=st.integers(0, 8 * 1000 - 1), byte=st.integers(0, 255))
def test_one_wrong_byte_is_noise_or_another_frame(at: int, byte: int) -> None:
    audio = bytearray(numbered(IN, 0, 1000))
    is_changed = audio[at] != byte
    audio[at] = byte
    words = [word.text for phrase in heard_numbers([bytes(audio)]) if phrase.is_final for word in phrase.words]
    assert (words != frame_words(IN, 0, 1000)) is is_changed
    assert (NOISE in words) is is_changed


@given(start=st.integers(1, 8000), length=st.integers(1, 400))
def test_lost_audio_shows(start: int, length: int) -> None:
    audio = numbered(OUT, 0, 2000)
    cut_out = audio[:start] + audio[start + length :]
    words = [word.text for phrase in heard_numbers([cut_out]) if phrase.is_final for word in phrase.words]
    assert words != frame_words(OUT, 0, 2000)
    assert NOISE in words or len(words) < 100


def test_a_final_ends_before_a_frame_rather_than_in_it() -> None:
    audio = silence(8 * 10) + numbered(IN, 0, 1000)  # frames begin at 10 ms, so no border at 100 ms fits
    finals = [phrase for phrase in heard_numbers([audio], final_ms=100) if phrase.is_final]
    assert [final.end_ms for final in finals[:3]] == [90, 190, 290]
    assert [word.text for final in finals for word in final.words] == frame_words(IN, 0, 1000)


def test_interims_grow_until_the_final() -> None:
    chunks = [numbered(IN, at, 100) for at in range(0, 3000, 100)]
    phrases = heard_numbers(chunks, final_ms=2500, interim_ms=1000)
    assert [(phrase.start_ms, phrase.end_ms, phrase.is_final) for phrase in phrases] == [
        (0, 1000, False),
        (0, 2000, False),
        (0, 2500, True),
        (2500, 3000, True),
    ]


def test_half_a_frame_at_the_end_is_noise() -> None:
    (final,) = heard_numbers([numbered(IN, 0, 50)])
    assert [word.text for word in final.words] == ["in0", "in1", NOISE]


def test_silence_is_a_final_without_words() -> None:
    finals = heard_numbers([silence(8 * 7000)], final_ms=3000, interim_ms=10_000)
    assert [(final.start_ms, final.end_ms, final.words) for final in finals] == [
        (0, 3000, ()),
        (3000, 6000, ()),
        (6000, 7000, ()),
    ]


def test_channels_may_have_borders_of_their_own() -> None:
    said: list[Heard] = []
    stereo = ListenOptions(channels=2, multichannel=True)
    ear = NumberEar(stereo, said.append, final_ms=range(100, 3000, 20), interim_ms=99_999, seed="7")
    ear.hear([numbered(IN, 0, 20_000), numbered(OUT, 0, 20_000)])
    borders = [[one.end_ms for one in said if isinstance(one, Phrase) and one.channel == channel] for channel in (0, 1)]
    assert borders[0] != borders[1]
    assert all(border % FRAME_MS == 0 for border in borders[0] + borders[1])


def test_a_word_names_its_track_and_its_frame() -> None:
    assert [frame_of(word) for word in frame_words(OUT, 100, 40)] == [(OUT, 5), (OUT, 6)]
    with pytest.raises(ValueError, match="noise"):
        frame_of(NOISE)

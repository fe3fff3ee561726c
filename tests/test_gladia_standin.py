"""The stand-in for Gladia enforces what is documented, misbehaves as told, and gets along with Gladia's own client."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit

import pytest
from gladiaio_sdk import GladiaClient
from gladiaio_sdk.client_options import HttpRetryOptions
from gladiaio_sdk.network.http_client import HttpError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from relay.audio import silence
from relay.events import Track
from standins.ear import Ear, EarFactory, EarOptions, Heard, Phrase, SpeechBegan, Word
from standins.gladia import CloseFrame, Drop, Fault, Faults, GladiaServer, Refusal, Rules
from standins.gladia_messages import GARBAGE
from tests.numbered import NOISE, frame_words, number_ears, numbered
from tests.storing import eventually

KEY = "a-key-for-tests"
PHONE: dict[str, Any] = {"encoding": "wav/ulaw", "bit_depth": 8, "sample_rate": 8000, "channels": 1}
STEREO = PHONE | {"channels": 2}
SOON = 30.0  # seconds; nothing here takes nearly so long, unless it never happens
IN, OUT = Track.INBOUND, Track.OUTBOUND

EVERYTHING = dict.fromkeys(
    [
        *("receive_partial_transcripts", "receive_final_transcripts", "receive_speech_events"),
        *("receive_pre_processing_events", "receive_realtime_processing_events", "receive_post_processing_events"),
        *("receive_acknowledgments", "receive_errors", "receive_lifecycle_events"),
    ],
    True,
)
ADDITIONS: dict[str, Any] = {
    "realtime_processing": {
        "translation": True,
        "translation_config": {"target_languages": ["es", "de"]},
        "named_entity_recognition": True,
        "sentiment_analysis": True,
    },
    "post_processing": {"summarization": True},
}

Answer = dict[str, Any]


@contextmanager
def listening(
    ear: EarFactory | None = None,
    *,
    key: str | None = KEY,
    rules: Rules | None = None,
    faults: Faults = (),
    session_faults: Faults = (),
) -> Iterator[GladiaServer]:
    ears = ear or number_ears()
    with GladiaServer(ear=ears, key=key, rules=rules, faults=faults, session_faults=session_faults) as server:
        yield server


def ask(
    server: GladiaServer,
    method: str,
    path: str,
    body: object = None,
    *,
    key: str | None = KEY,
    kind: str = "application/json",
) -> tuple[int, Answer]:
    """The status and the body of an HTTP answer."""
    http = HTTPConnection(urlsplit(server.http_url).netloc, timeout=SOON)
    headers = {"content-type": kind} | ({} if key is None else {"x-gladia-key": key})
    http.request(method, path, body if isinstance(body, bytes) else json.dumps(body), headers)
    response = http.getresponse()
    said: Answer = json.loads(response.read())
    http.close()
    return response.status, said


def begin(server: GladiaServer, asked: dict[str, Any] = PHONE) -> Answer:
    """A session's id, and its WebSocket's address."""
    status, said = ask(server, "POST", "/v2/live", asked)
    assert status == 201, said
    return said


def dial(made: Answer) -> ClientConnection:
    return connect(made["url"], compression=None, ping_interval=None, open_timeout=SOON, close_timeout=1)


@contextmanager
def talking(server: GladiaServer, asked: dict[str, Any] = PHONE) -> Iterator[ClientConnection]:
    """The only connection of a new session."""
    with dial(begin(server, asked)) as client:
        yield client


def asking(**fields: Any) -> dict[str, Any]:
    return PHONE | fields


def receiving(*names: str, **fields: Any) -> dict[str, Any]:
    """What asks for these kinds of messages, and for no others."""
    wanted = {f"receive_{name}" for name in names}
    return PHONE | fields | {"messages_config": {name: name in wanted for name in EVERYTHING}}


def interleaved(left: bytes, right: bytes) -> bytes:
    both = bytearray(2 * len(left))
    both[::2], both[1::2] = left, right
    return bytes(both)


def stop(client: ClientConnection) -> None:
    client.send('{"type":"stop_recording"}')


def answer(client: ClientConnection) -> Answer:
    said: Answer = json.loads(client.recv(timeout=SOON))
    return said


def answers(client: ClientConnection) -> list[Answer]:
    """Everything the service still says, until it closes."""
    said = []
    try:
        while True:
            said.append(answer(client))
    except ConnectionClosed:
        return said


def said_until_closed(client: ClientConnection) -> list[Answer]:
    """Stops, and hears the end of it."""
    stop(client)
    return answers(client)


def closing(client: ClientConnection) -> tuple[int | None, str | None]:
    answers(client)
    return client.close_code, client.close_reason


def kinds(said: list[Answer]) -> list[str]:
    return [message["type"] for message in said]


def of_kind(kind: str, said: list[Answer]) -> list[Answer]:
    return [message for message in said if message["type"] == kind]


def ranges(said: list[Answer]) -> list[list[int]]:
    return [message["data"]["byte_range"] for message in of_kind("audio_chunk", said)]


def words_of(said: list[Answer], channel: int = 0) -> list[str]:
    """The words of all finals of a channel."""
    return [
        word["word"].strip()
        for message in of_kind("transcript", said)
        if message["data"]["is_final"] and message["data"]["utterance"]["channel"] == channel
        for word in message["data"]["utterance"]["words"]
    ]


# --- Asking for a session -----------------------------------------------------------------------------------


def test_a_session_has_an_id_and_an_address() -> None:
    with listening() as server:
        made = begin(server)
        assert set(made) == {"id", "created_at", "url"}
        assert urlsplit(made["url"]).path == "/v2/live"
        assert made["url"].startswith("ws://")
        assert begin(server)["url"] != made["url"]
        assert (server.posts, server.violations) == (2, [])


@pytest.mark.parametrize("key", [None, "", "another-key"])
def test_without_the_right_key_it_is_401(key: str | None) -> None:
    with listening() as server:
        for method, path in (("POST", "/v2/live"), ("GET", "/v2/live/some-id")):
            status, said = ask(server, method, path, PHONE, key=key)
            assert status == 401
            assert said["message"]
            assert said["request_id"].startswith("G-")
        assert server.violations == []


def test_with_no_key_of_its_own_it_takes_any_but_wants_one() -> None:
    with listening(key=None) as server:
        assert ask(server, "POST", "/v2/live", PHONE, key="anything")[0] == 201
        assert ask(server, "POST", "/v2/live", PHONE, key=None)[0] == 401


def test_neither_key_nor_token_is_kept() -> None:
    with listening() as server:
        made = begin(server)
        with dial(made):
            pass
        token = made["url"].partition("=")[2]
        assert KEY not in repr((server.requests, server.connections))
        assert token not in repr((server.requests, server.connections))
        assert "x-gladia-key" not in server.requests[0].headers


BAD_BODIES: list[tuple[str, object]] = [
    ("body", []),
    ("body", b"{"),
    ("body", b"[" * 100_000),
    ("is_final", asking(is_final=True)),
    ("diarization", asking(diarization=True)),
    ("encoding", asking(encoding="mulaw")),
    ("encoding", asking(encoding=None)),
    ("encoding", asking(encoding="wav/alaw")),
    ("bit_depth", asking(encoding="wav/pcm", bit_depth=24)),
    ("bit_depth", asking(bit_depth=True)),
    ("bit_depth", asking(bit_depth=16)),
    ("bit_depth", {"encoding": "wav/ulaw", "sample_rate": 8000}),
    ("sample_rate", asking(sample_rate="8000")),
    ("sample_rate", asking(sample_rate=11_025)),
    ("sample_rate", asking(sample_rate=16_000)),
    ("sample_rate", {"encoding": "wav/ulaw", "bit_depth": 8}),
    ("channels", asking(channels=0)),
    ("channels", asking(channels=9)),
    ("channels", asking(channels=2.0)),
    ("model", asking(model="solaria-9")),
    ("endpointing", asking(endpointing=0)),
    ("endpointing", asking(endpointing=10.5)),
    ("endpointing", asking(endpointing=True)),
    ("endpointing", b'{"endpointing": NaN}'),
    ("maximum_duration_without_endpointing", asking(maximum_duration_without_endpointing=4.9)),
    ("language_config", asking(language_config=["en"])),
    ("language_config.languages.1", asking(language_config={"languages": ["en", "en-US"]})),
    ("language_config.code_switching", asking(language_config={"code_switching": "true"})),
    ("language_config.language", asking(language_config={"language": "en"})),
    ("pre_processing.speech_threshold", asking(pre_processing={"speech_threshold": 1.1})),
    ("realtime_processing.custom_vocabulary_config", asking(realtime_processing={"custom_vocabulary": True})),
    ("realtime_processing.translation_config", asking(realtime_processing={"translation": True})),
    (
        "realtime_processing.translation_config.target_languages",
        asking(realtime_processing={"translation": True, "translation_config": {"target_languages": []}}),
    ),
    (
        "realtime_processing.translation_config.target_languages is required",
        asking(realtime_processing={"translation_config": {"model": "base"}}),
    ),
    (
        "realtime_processing.custom_vocabulary_config.vocabulary.1.value is required",
        asking(realtime_processing={"custom_vocabulary_config": {"vocabulary": ["relay", {"intensity": 1}]}}),
    ),
    (
        "realtime_processing.custom_vocabulary_config.vocabulary.0.intensity",
        asking(realtime_processing={"custom_vocabulary_config": {"vocabulary": [{"value": "relay", "intensity": 2}]}}),
    ),
    (
        "realtime_processing.custom_spelling_config.spelling_dictionary.Gladia",
        asking(realtime_processing={"custom_spelling_config": {"spelling_dictionary": {"Gladia": "gladya"}}}),
    ),
    ("post_processing.summarization_config.type", asking(post_processing={"summarization_config": {"type": "long"}})),
    ("messages_config.receive_partials", asking(messages_config={"receive_partials": True})),
    ("messages_config.receive_errors", asking(messages_config={"receive_errors": 1})),
    ("callback", asking(callback=True, callback_config={"url": "https://example.com"})),
    ("callback_config.url", asking(callback_config={"url": 1})),
    ("custom_metadata", asking(custom_metadata="CA1")),
    ("custom_metadata", asking(custom_metadata={"call": "x" * 2000})),
]


@pytest.mark.parametrize(("rule", "body"), BAD_BODIES)
def test_a_body_that_breaks_a_rule_is_400(rule: str, body: object) -> None:
    with listening() as server:
        status, said = ask(server, "POST", "/v2/live", body)
        assert status == 400
        assert len(said["validation_errors"]) == 1
        assert said["validation_errors"][0].startswith(rule)
        assert said["request_id"]
        assert len(server.violations) == 1
        assert not server.sessions


def test_every_rule_that_is_broken_is_named() -> None:
    with listening() as server:
        _, said = ask(server, "POST", "/v2/live", {"channels": 0, "endpointing": 99, "colour": "red"})
        assert [rule.split()[0] for rule in said["validation_errors"]] == ["channels", "endpointing", "colour"]


GOOD_BODIES: list[dict[str, Any]] = [
    {"encoding": "wav/pcm", "bit_depth": 16, "sample_rate": 8000, "channels": 8, "model": "solaria-1"},
    {"sample_rate": 8000},  # the rest is 16-bit PCM of one channel by default
    asking(endpointing=0.01, maximum_duration_without_endpointing=60, language_config={"languages": []}),
    asking(language_config={"languages": ["en", "haw"], "code_switching": True}),
    asking(pre_processing={"audio_enhancer": True, "speech_threshold": 0}),
    asking(messages_config=EVERYTHING, custom_metadata={"call_sid": "CA1", "legs": [1, 2]}),
    asking(callback=False, callback_config={"url": "https://example.com"} | EVERYTHING),
    asking(
        realtime_processing={
            "custom_vocabulary": True,
            "custom_vocabulary_config": {
                "vocabulary": ["relay", {"value": "Gladia", "pronunciations": ["gladya"], "language": "fr"}],
                "default_intensity": 0.4,
            },
            "custom_spelling": True,
            "custom_spelling_config": {"spelling_dictionary": {"Gladia": ["gladya", "glad ya"]}},
            "translation": True,
            "translation_config": {
                "target_languages": ["wo", "fr"],
                "model": "enhanced",
                "match_original_utterances": True,
                "lipsync": False,
                "context_adaptation": True,
                "context": "A call.",
                "informal": True,
            },
            "named_entity_recognition": True,
            "sentiment_analysis": False,
        },
        post_processing={
            "summarization": True,
            "summarization_config": {"type": "bullet_points"},
            "chapterization": False,
        },
    ),
]


@pytest.mark.parametrize("body", GOOD_BODIES)
def test_what_is_documented_is_accepted(body: dict[str, Any]) -> None:
    with listening() as server:
        session = server.sessions[begin(server, body)["id"]]
        assert session.options.given == body
        assert server.violations == []


def test_a_body_must_say_that_it_is_json() -> None:
    with listening() as server:
        assert ask(server, "POST", "/v2/live", PHONE, kind="text/plain")[0] == 400
        assert ask(server, "POST", "/v2/live", PHONE, kind="application/json; charset=utf-8")[0] == 201


@pytest.mark.parametrize("length", ["many", "-1", str(1 << 30)])
def test_a_request_whose_body_has_no_sensible_length_is_400(length: str) -> None:
    with listening() as server:
        http = HTTPConnection(urlsplit(server.http_url).netloc, timeout=SOON)
        http.request("POST", "/v2/live", headers={"content-length": length})
        assert http.getresponse().status == 400
        http.close()


@pytest.mark.parametrize(
    ("query", "status"),
    [("region=eu-west", 201), ("region=us-west", 201), ("region=eu", 400), ("region=", 400), ("zone=eu-west", 400)],
)
def test_regions_are_two(query: str, status: int) -> None:
    with listening() as server:
        assert ask(server, "POST", f"/v2/live?{query}", PHONE)[0] == status
        assert bool(server.violations) is (status == 400)


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), ("POST", "/v2/live/"), ("GET", "/v2/live"), ("GET", "/")])
def test_other_paths_are_404(method: str, path: str) -> None:
    with listening() as server:
        assert ask(server, method, path, PHONE)[0] == 404
        assert server.violations


def test_only_so_many_sessions_may_be_open_at_once() -> None:
    with listening(rules=Rules(concurrency=2)) as server:
        first, _ = begin(server), begin(server)
        assert ask(server, "POST", "/v2/live", PHONE)[0] == 429
        with dial(first) as client:
            said_until_closed(client)
        assert ask(server, "POST", "/v2/live", PHONE)[0] == 201
        assert server.posts == 4
        assert server.violations == []


# --- Asking about a session ---------------------------------------------------------------------------------


def job_of(server: GladiaServer, made: Answer) -> Answer:
    status, said = ask(server, "GET", f"/v2/live/{made['id']}")
    assert status == 200
    return said


def test_a_session_is_queued_and_processing_and_done() -> None:
    with listening() as server:
        made = begin(server, asking(custom_metadata={"call_sid": "CA1"}))
        assert job_of(server, made)["status"] == "queued"
        with dial(made) as client:
            client.send(numbered(IN, 0, 1000))
            answer(client)
            assert job_of(server, made)["status"] == "processing"
            said_until_closed(client)
        asked = [job_of(server, made) for _ in range(3)]
        assert [job["status"] for job in asked] == ["processing", "done", "done"]
        assert asked[0]["result"] is None
        done = asked[1]
        assert {name: done[name] for name in ("id", "version", "kind", "custom_metadata", "error_code")} == {
            "id": made["id"],
            "version": 2,
            "kind": "live",
            "custom_metadata": {"call_sid": "CA1"},
            "error_code": None,
        }
        assert done["request_params"] == PHONE
        assert done["completed_at"] >= done["created_at"]
        assert (done["file"]["audio_duration"], done["file"]["number_of_channels"]) == (1.0, 1)
        assert "custom_metadata" not in done["request_params"]


def test_the_result_holds_all_that_was_said() -> None:
    with listening(rules=Rules(processing_answers=0)) as server:
        made = begin(server, STEREO | ADDITIONS)
        with dial(made) as client:
            client.send(interleaved(numbered(IN, 0, 4000), numbered(OUT, 0, 4000)))
            said = said_until_closed(client)
        result = job_of(server, made)["result"]
        assert result["metadata"]["audio_duration"] == 4.0
        assert result["metadata"]["billing_time"] == 8.0  # each channel is billed
        assert sorted(result["transcription"]["full_transcript"].split()) == sorted(
            frame_words(IN, 0, 4000) + frame_words(OUT, 0, 4000)
        )
        finals = [message["data"]["utterance"] for message in of_kind("transcript", said)]
        assert result["transcription"]["utterances"] == sorted(finals, key=lambda said: said["start"])
        assert [one["languages"] for one in result["translation"]["results"]] == [["es"], ["de"]]
        assert result["summarization"]["results"]
        assert result["named_entity_recognition"]["success"] is True
        assert result["sentiment_analysis"]["results"] == "neutral"
        (final,) = of_kind("post_final_transcript", said)
        assert {name: value for name, value in result.items() if name != "messages"} == final["data"]
        assert json.loads(result["messages"][0])["type"] == "speech_start"


def test_a_session_nobody_knows_is_404() -> None:
    with listening() as server:
        assert ask(server, "GET", "/v2/live/00000000-0000-0000-0000-000000000000")[0] == 404


# --- The WebSocket ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "status"), [("/v2/live?token=guess", 401), ("/v2/live", 401), ("/v2/live?token=", 401), ("/", 404)]
)
def test_an_address_nobody_was_given_is_refused(address: str, status: int) -> None:
    with listening() as server:
        host = urlsplit(begin(server)["url"]).netloc
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{host}{address}")
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["message"]


def test_audio_comes_back_as_transcripts_and_the_session_ends_with_1000() -> None:
    with listening() as server, talking(server) as client:
        client.send(numbered(IN, 0, 5000))
        said = said_until_closed(client)
        assert words_of(said) == frame_words(IN, 0, 5000)
        assert client.close_code == 1000
        assert server.violations == []


def test_each_channel_is_heard_by_itself() -> None:
    with listening() as server, talking(server, STEREO) as client:
        client.send(interleaved(numbered(IN, 0, 4000), numbered(OUT, 60_000, 4000)))
        said = said_until_closed(client)
        assert words_of(said, 0) == frame_words(IN, 0, 4000)
        assert words_of(said, 1) == frame_words(OUT, 60_000, 4000)


def test_linear_audio_is_heard_too() -> None:
    heard: list[bytes] = []
    asked = {"encoding": "wav/pcm", "bit_depth": 16, "sample_rate": 8000, "channels": 2}
    with listening(ears_that_say((), heard)) as server, talking(server, asked) as client:
        client.send(b"\x00\x00\x84\x7b\x7c\x84\x00\x00")  # 0 and the loudest samples, channel by channel
        said_until_closed(client)
        assert heard == [b"\xff\x00", b"\x80\xff"]


def test_audio_may_come_in_texts_and_in_binary_messages() -> None:
    with listening() as server, talking(server) as client:
        client.send(numbered(IN, 0, 1000))
        chunk = base64.b64encode(numbered(IN, 1000, 1000)).decode()
        client.send(json.dumps({"type": "audio_chunk", "data": {"chunk": chunk}}))
        client.send(numbered(IN, 2000, 1000))
        said = said_until_closed(client)
        assert words_of(said) == frame_words(IN, 0, 3000)
        assert ranges(said) == [[0, 7999], [8000, 15_999], [16_000, 23_999]]
        assert server.connections[0].audio == numbered(IN, 0, 3000)


@pytest.mark.parametrize(("is_inclusive", "ends"), [(True, [799, 1599]), (False, [800, 1600])])
def test_acknowledgments_count_the_sessions_bytes(is_inclusive: bool, ends: list[int]) -> None:
    with listening(rules=Rules(acks_inclusive=is_inclusive)) as server, talking(server, STEREO) as client:
        client.send(silence(800))
        client.send(silence(800))
        acks = of_kind("audio_chunk", said_until_closed(client))
        assert [ack["data"]["byte_range"] for ack in acks] == [[0, ends[0]], [800, ends[1]]]
        assert [ack["data"]["time_range"] for ack in acks] == [[0.0, 0.05], [0.05, 0.1]]
        assert {(ack["acknowledged"], ack["error"]) for ack in acks} == {(True, None)}


def test_a_message_of_more_than_a_mebibyte_is_too_big() -> None:
    with listening() as server, talking(server) as client:
        client.send(silence(1 << 20))
        client.send(silence((1 << 20) + 1))
        assert closing(client)[0] == 1009
        server.wait_for(lambda: server.violations, within=SOON)
        assert "too long" in server.violations[0]


def test_a_message_that_parts_the_channels_is_a_violation_and_the_next_one_mends_it() -> None:
    audio = interleaved(numbered(IN, 0, 1000), numbered(OUT, 0, 1000))
    with listening() as server, talking(server, STEREO) as client:
        client.send(audio[:1601])
        client.send(audio[1601:])
        assert words_of(said_until_closed(client), 1) == frame_words(OUT, 0, 1000)
        assert len(server.violations) == 2


@pytest.mark.parametrize(
    "text",
    ["", "stop_recording", "[]", "null", "{}", '{"type":"stop"}', '{"type":null}', '{"type":"audio_chunk"}',
     '{"type":"audio_chunk","data":{"chunk":7}}', '{"type":"audio_chunk","chunk":"AAAA"}', "[" * 100_000],
)  # fmt: skip
def test_text_that_is_not_known_is_an_error_and_the_session_goes_on(text: str) -> None:
    with listening() as server, talking(server) as client:
        client.send(text)
        assert answer(client)["type"] == "error"
        client.send(numbered(IN, 0, 1000))
        assert words_of(said_until_closed(client)) == frame_words(IN, 0, 1000)
        assert len(server.violations) == 1


def test_audio_that_is_not_base64_is_not_acknowledged() -> None:
    with listening() as server, talking(server) as client:
        client.send('{"type":"audio_chunk","data":{"chunk":"?"}}')
        said = answer(client)
        assert (said["type"], said["acknowledged"], said["data"]) == ("audio_chunk", False, None)
        assert said["error"]["message"]
        assert len(server.violations) == 1


def test_audio_after_stop_recording_is_a_violation() -> None:
    for audio in (numbered(IN, 0, 1000), '{"type":"audio_chunk","data":{"chunk":"AAAA"}}'):
        with listening() as server, talking(server) as client:
            stop(client)
            client.send(audio)
            assert words_of(answers(client)) == []
            server.wait_for(lambda: server.violations, within=SOON)
            assert "after stop_recording" in server.violations[0]


# --- Silence, and other ends --------------------------------------------------------------------------------


@pytest.mark.parametrize("audio", [b"", silence(800)])
def test_without_audio_the_connection_is_closed(audio: bytes) -> None:
    with listening(rules=Rules(silence_limit_s=0.2)) as server, talking(server) as client:
        client.send(audio)
        assert closing(client)[0] == 4408
        assert len(server.violations) == 1


def test_a_chunk_without_audio_keeps_the_connection_open() -> None:
    with listening(rules=Rules(silence_limit_s=60)) as server, talking(server) as client:
        (conversation,) = server._lines.values()
        sent_at = time.monotonic()
        client.send('{"type":"audio_chunk","data":{"chunk":""}}')
        eventually(lambda: conversation.heard_at is not None)
        assert conversation.deadline() >= sent_at + 60
        said = said_until_closed(client)
        assert client.close_code == 1000
        assert not of_kind("audio_chunk", said)
        assert server.violations == []


def test_a_session_may_not_last_too_long() -> None:
    with listening(rules=Rules(session_limit_s=0.2)) as server, talking(server) as client:
        assert closing(client)[0] == 4408
        assert "more than 0.2 s" in server.violations[0]


# --- What it says -------------------------------------------------------------------------------------------


def ears_that_say(says: tuple[Heard, ...], heard: list[bytes] | None = None) -> Callable[..., Ear]:
    """Ears that say the same whenever they hear something, and keep it."""

    class TalkingEar:
        def __init__(self, options: EarOptions, emit: Callable[[Heard], None]) -> None:
            self._emit = emit

        def hear(self, channels: list[bytes]) -> None:
            if heard is not None:
                heard.extend(channels)
            for one in says:
                self._emit(one)

        def flush(self, channel: int | None = None) -> None: ...
        def finish(self) -> None: ...
        def close(self) -> None: ...

    return TalkingEar


HELLO = (Word("Hello", 1300, 1600, 0.5), Word("there", 1600, 2000, 1.0))
A_SENTENCE: tuple[Heard, ...] = (
    SpeechBegan(1, 1250),
    Phrase(1, 1000, 1600, HELLO[:1], is_final=False),
    Phrase(1, 1000, 2500, HELLO, is_final=True, ends_speech=True),
)


def test_a_transcript_has_gladias_shape() -> None:
    asked = receiving("final_transcripts", channels=2)
    with listening(ears_that_say(A_SENTENCE)) as server, talking(server, asked) as client:
        client.send(silence(320))
        said = answer(client)
        assert said["session_id"] == next(iter(server.sessions))
        assert said["created_at"].endswith("Z")
        assert said["data"] == {
            "id": "01_00000000",
            "is_final": True,
            "utterance": {
                "start": 1.3,
                "end": 2.0,
                "confidence": 0.75,
                "channel": 1,
                "language": "en",
                "text": " Hello there",
                "words": [
                    {"word": " Hello", "start": 1.3, "end": 1.6, "confidence": 0.5},
                    {"word": " there", "start": 1.6, "end": 2.0, "confidence": 1.0},
                ],
            },
        }


def test_the_partials_and_the_final_of_an_utterance_share_its_id() -> None:
    asked = receiving("partial_transcripts", "final_transcripts", channels=2)
    with listening(ears_that_say(A_SENTENCE)) as server, talking(server, asked) as client:
        client.send(silence(320))
        client.send(silence(320))
        said = [message["data"] for message in said_until_closed(client)]
        assert [(one["id"], one["is_final"]) for one in said] == [
            ("01_00000000", False),
            ("01_00000000", True),
            ("01_00000001", False),
            ("01_00000001", True),
        ]


SAID_OF_A_SENTENCE = {
    "acknowledgments": ["audio_chunk", "stop_recording"],
    "speech_events": ["speech_start", "speech_end"],
    "partial_transcripts": ["transcript"],
    "final_transcripts": ["transcript"],
    "realtime_processing_events": [*["translation"] * 2, "named_entity_recognition", "sentiment_analysis"],
    "post_processing_events": ["post_transcript", "post_summarization", "post_final_transcript"],
    "lifecycle_events": ["start_session", "start_recording", "end_recording", "end_session"],
    "pre_processing_events": [],
    "errors": ["error"],
}


@pytest.mark.parametrize(("name", "expected"), SAID_OF_A_SENTENCE.items())
def test_each_kind_of_message_comes_when_it_is_asked_for_and_else_not(name: str, expected: list[str]) -> None:
    with listening(ears_that_say(A_SENTENCE)) as server:
        with talking(server, receiving(name, channels=2, **ADDITIONS)) as client:
            client.send("nonsense")
            client.send(silence(320))
            assert kinds(said_until_closed(client)) == expected


def test_by_default_neither_partials_nor_lifecycle_events_come() -> None:
    with listening(ears_that_say(A_SENTENCE)) as server, talking(server, STEREO) as client:
        client.send("nonsense")
        client.send(silence(320))
        said = said_until_closed(client)
        assert kinds(said) == [
            *("error", "audio_chunk", "speech_start", "speech_end", "transcript"),
            *("stop_recording", "post_transcript", "post_final_transcript"),
        ]
        assert said[4]["data"]["is_final"] is True


def test_everything_comes_in_order() -> None:
    asked = STEREO | ADDITIONS | {"messages_config": EVERYTHING}
    with listening(ears_that_say(A_SENTENCE)) as server, talking(server, asked) as client:
        client.send(silence(320))
        said = said_until_closed(client)
        assert kinds(said) == [
            *("start_session", "start_recording", "audio_chunk", "speech_start", "transcript", "speech_end"),
            *("transcript", "translation", "translation", "named_entity_recognition", "sentiment_analysis"),
            *("stop_recording", "end_recording", "post_transcript", "post_summarization", "post_final_transcript"),
            "end_session",
        ]
        by_kind: dict[str, Any] = {message["type"]: message.get("data") for message in said}
        assert by_kind["speech_start"] == {"time": 1.25, "channel": 1}
        assert by_kind["speech_end"] == {"time": 2.0, "channel": 1}
        assert by_kind["stop_recording"] == {"recording_duration": 0.02, "recording_left_to_process": 0.0}
        assert by_kind["end_recording"] == {"recording_duration": 0.02}
        assert by_kind["post_transcript"]["full_transcript"] == "Hello there"
        assert "data" not in said[0]


def test_add_ons_speak_of_a_final() -> None:
    asked = receiving("final_transcripts", "realtime_processing_events", channels=2, **ADDITIONS)
    with listening(ears_that_say(A_SENTENCE)) as server, talking(server, asked) as client:
        client.send(silence(320))
        transcript, spanish, german, entities, sentiment = said_until_closed(client)
        utterance = transcript["data"]["utterance"]
        for message in (spanish, german, entities, sentiment):
            assert message["error"] is None
            assert message["data"]["utterance_id"] == transcript["data"]["id"]
            assert message["data"]["utterance"] == utterance
        assert (spanish["data"]["original_language"], spanish["data"]["target_language"]) == ("en", "es")
        assert spanish["data"]["translated_utterance"]["text"] == " [es] Hello there"
        assert german["data"]["target_language"] == "de"
        assert entities["data"]["results"] == [{"entity_type": "NAME", "text": "Hello", "start": 1.3, "end": 1.6}]
        assert sentiment["data"]["results"][0]["sentiment"] == "neutral"
        assert sentiment["data"]["results"][0]["channel"] == 1


def test_nothing_is_said_of_silence() -> None:
    with listening() as server, talking(server, asking(messages_config=EVERYTHING)) as client:
        client.send(silence(8 * 7000))
        said = said_until_closed(client)
        assert not of_kind("transcript", said)
        assert not of_kind("speech_start", said)


def test_speech_is_in_the_language_that_was_named() -> None:
    with listening() as server, talking(server, asking(language_config={"languages": ["fr"]})) as client:
        client.send(numbered(IN, 0, 1000))
        said = said_until_closed(client)
        assert of_kind("transcript", said)[0]["data"]["utterance"]["language"] == "fr"
        assert of_kind("post_transcript", said)[0]["data"]["languages"] == ["fr"]


def test_a_session_may_not_last_too_long_with_audio_either() -> None:
    both_sent = threading.Event()

    class SlowEar(PatientEar):
        def hear(self, channels: list[bytes]) -> None:
            both_sent.wait(SOON)
            for _ in range(3):  # until the next message is there; more than once, as a pause may swallow one
                time.sleep(0.05)
            (session,) = server.sessions.values()
            session.ends_at = 0.0  # so long did it hear

    with listening(SlowEar, rules=Rules(session_limit_s=60)) as server, talking(server) as client:
        client.send(silence(800))
        client.send(silence(800))
        both_sent.set()
        assert closing(client)[0] == 4408
        assert "more than 60 s" in server.violations[0]
        assert server.connections[0].audio_messages == 2
        assert server.left_sessions == []


# --- Coming back --------------------------------------------------------------------------------------------


def test_a_session_goes_on_from_where_its_connection_was_lost() -> None:
    with listening() as server:
        made = begin(server, asking(messages_config=EVERYTHING))
        with dial(made) as client:
            client.send(numbered(IN, 0, 1010))  # half of a frame is for the next connection
            first = [answer(client) for _ in range(5)]
            client.close(4000)
        server.wait_for(lambda: server.left_sessions, within=SOON)
        with dial(made) as client:
            client.send(numbered(IN, 1010, 990))
            rest = said_until_closed(client)
        assert words_of(first + rest) == frame_words(IN, 0, 2000)
        assert ranges(first + rest) == [[0, 8079], [8080, 15_999]]
        assert of_kind("transcript", rest)[0]["data"]["utterance"]["start"] == 0.0
        assert len(of_kind("start_session", first + rest)) == 1
        server.wait_for(lambda: server.connections[1].is_over, within=SOON)
        assert [connection.close_code for connection in server.connections] == [4000, 1000]
        assert (server.posts, server.violations, server.left_sessions) == (1, [], [])


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_session_that_was_stopped_is_over(how: str) -> None:
    with listening(rules=Rules(processing_answers=0)) as server:
        made = begin(server)
        with dial(made) as client:
            client.send(numbered(IN, 0, 1000))
            answer(client)
            if how == "stop":
                said_until_closed(client)
            else:
                client.close(1000)  # as good as stop_recording, but for the answers
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        with pytest.raises(InvalidStatus) as refused:
            dial(made)
        assert refused.value.response.status_code == 404
        assert job_of(server, made)["result"]["transcription"]["full_transcript"].split() == frame_words(IN, 0, 1000)


def test_a_session_that_is_left_is_noted_and_times_out() -> None:
    with listening(rules=Rules(concurrency=1, resumable_for_s=60, processing_answers=0)) as server:
        made = begin(server)
        with dial(made) as client:
            client.send(numbered(IN, 0, 1000))
            answer(client)
            client.close(1001)
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        assert [session.id for session in server.left_sessions] == [made["id"]]
        server.sessions[made["id"]]._left_at -= 60  # the time-out itself
        assert job_of(server, made)["status"] == "done"
        assert server.left_sessions == []
        with pytest.raises(InvalidStatus):
            dial(made)
        begin(server)


class PatientEar:
    """Hears nothing, and says what it is told to, when it is told to."""

    def __init__(self, options: EarOptions, emit: Callable[[Heard], None]) -> None:
        self.emit = emit

    def hear(self, channels: list[bytes]) -> None: ...
    def flush(self, channel: int | None = None) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


@pytest.mark.parametrize("holds_answers", [True, False])
def test_what_is_said_to_nobody_is_said_later_or_only_on_request(holds_answers: bool) -> None:
    with listening(PatientEar, rules=Rules(holds_answers=holds_answers, processing_answers=0)) as server:
        made = begin(server, receiving("final_transcripts"))
        with dial(made) as client:
            client.close(1001)
        server.wait_for(lambda: server.left_sessions, within=SOON)
        ear = server.connections[0].ear
        assert isinstance(ear, PatientEar)
        ear.emit(Phrase(0, 0, 1000, HELLO, is_final=True))
        with dial(made) as client:
            said = said_until_closed(client)
        assert words_of(said) == (["Hello", "there"] if holds_answers else [])
        assert job_of(server, made)["result"]["transcription"]["full_transcript"] == "Hello there"


def test_the_newest_connection_is_the_one_that_is_heard() -> None:
    with listening() as server:
        made = begin(server)
        with dial(made) as older:
            older.send(numbered(IN, 0, 500))
            answer(older)
            with dial(made) as newer:
                assert closing(older)[0] == 1006
                newer.send(numbered(IN, 500, 500))
                assert words_of(said_until_closed(newer)) == frame_words(IN, 0, 1000)
        assert server.violations == []


# --- Faults -------------------------------------------------------------------------------------------------


REFUSALS = [Refusal(429, "TOO_MANY_REQUESTS", "Too many."), Refusal(403, "FORBIDDEN", "No."), Refusal(503, "BUSY", "")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_a_session_can_be_refused_and_the_next_is_made(refusal: Refusal) -> None:
    with listening(session_faults=[Fault(refuse=refusal)]) as server:
        status, said = ask(server, "POST", "/v2/live", PHONE)
        assert (status, said["message"]) == (refusal.status, refusal.message)
        with dial(begin(server)) as client:
            said_until_closed(client)
        assert server.violations == []


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
def test_a_connection_can_be_refused_and_the_next_one_is_sound(refusal: Refusal) -> None:
    with listening(faults=[Fault(refuse=refusal)]) as server:
        made = begin(server)
        with pytest.raises(InvalidStatus) as refused:
            dial(made)
        assert refused.value.response.status_code == refusal.status
        with dial(made) as client:
            said_until_closed(client)


def test_the_answer_to_a_request_may_be_late_or_nonsense_or_missing() -> None:
    faults = [Fault(answer_late_s=0.3), Fault(garbage=True), Fault(drop=Drop(0, "reset"))]
    with listening(session_faults=faults) as server:
        began = time.monotonic()
        begin(server)
        assert time.monotonic() - began >= 0.3
        with pytest.raises(json.JSONDecodeError):
            begin(server)
        with pytest.raises((RemoteDisconnected, ConnectionError)):
            begin(server)
        assert [request.status for request in server.requests] == [201, 201, 0]


def test_a_request_may_never_be_answered() -> None:
    with listening(session_faults=[Fault(drop=Drop(0, "abandon"))]) as server:
        over = threading.Event()

        def ask_in_vain() -> None:
            with pytest.raises((RemoteDisconnected, ConnectionError)):
                begin(server)
            over.set()

        threading.Thread(target=ask_in_vain).start()
        server.wait_for(lambda: server.sessions, within=SOON)
        assert not over.wait(0.3)
        server.stop()
        assert over.wait(SOON)


def test_audio_beyond_a_drop_is_neither_taken_nor_acknowledged() -> None:
    drop = Drop(1010, CloseFrame(1011, "trouble"))
    with listening(faults=[Fault(drop=drop)], ear=number_ears(final_ms=20)) as server:
        made = begin(server, STEREO)
        audio = [interleaved(numbered(IN, at, 250), numbered(OUT, at, 250)) for at in range(0, 2000, 250)]
        with dial(made) as client:
            for chunk in audio:
                client.send(chunk)
            said = answers(client)
            assert (client.close_code, client.close_reason) == (1011, "trouble")
        assert ranges(said) == [[4000 * n, 4000 * n + 3999] for n in range(4)]
        assert words_of(said) == frame_words(IN, 0, 1000)
        with dial(made) as client:
            for chunk in audio[4:]:
                client.send(chunk)
            rest = said_until_closed(client)
        assert ranges(rest)[0] == [16_000, 19_999]
        assert words_of(said + rest, 1) == frame_words(OUT, 0, 2000)


def test_audio_can_be_taken_and_its_acknowledgment_lost() -> None:
    with listening(faults=[Fault(drop=Drop(1000, "reset"), acks_lost_ms=500)]) as server:
        made = begin(server)
        with dial(made) as client:
            for at in range(0, 1000, 250):
                client.send(numbered(IN, at, 250))
            assert ranges(answers(client)) == [[0, 1999], [2000, 3999]]
        with dial(made) as client:
            client.send(numbered(IN, 1000, 250))
            rest = said_until_closed(client)
        assert ranges(rest) == [[8000, 9999]]
        assert words_of(rest) == [*frame_words(IN, 0, 1240), NOISE]


@pytest.mark.parametrize("how", ["mute", "abandon"])
def test_a_client_can_come_back_from_a_connection_that_died_in_silence(how: str) -> None:
    with listening(faults=[Fault(drop=Drop(1000, how))]) as server:  # type: ignore[arg-type]
        made = begin(server, receiving("acknowledgments", "final_transcripts"))
        with dial(made) as client:
            client.send(numbered(IN, 0, 1000))
            client.send(numbered(IN, 1000, 1000))
            assert answer(client)["type"] == "audio_chunk"
            if how == "mute":
                assert client.ping().wait(SOON)
            with pytest.raises(TimeoutError):
                client.recv(timeout=0.2)
            with dial(made) as again:
                again.send(numbered(IN, 1000, 1000))
                assert words_of(said_until_closed(again)) == frame_words(IN, 0, 2000)


def test_garbage_comes_before_sense() -> None:
    with listening(faults=[Fault(garbage=True)]) as server, talking(server) as client:
        assert tuple(client.recv(timeout=SOON) for _ in GARBAGE) == GARBAGE
        client.send(numbered(IN, 0, 1000))
        assert words_of(said_until_closed(client)) == frame_words(IN, 0, 1000)


def test_stop_recording_may_be_ignored() -> None:
    with listening(faults=[Fault(on_end="ignore")]) as server, talking(server) as client:
        stop(client)
        client.send(numbered(IN, 0, 1000))
        assert answer(client)["type"] == "audio_chunk"


def test_stop_recording_may_be_answered_by_a_reset_and_the_session_waits() -> None:
    with listening(faults=[Fault(on_end="reset")]) as server:
        made = begin(server, receiving("acknowledgments", "final_transcripts"))
        with dial(made) as client:
            client.send(numbered(IN, 0, 1000))
            stop(client)
            assert kinds(answers(client)) == ["audio_chunk"]
            assert client.close_code == 1006
        with dial(made) as client:
            assert words_of(said_until_closed(client)) == frame_words(IN, 0, 1000)


def test_the_last_results_may_be_cut_and_are_only_to_be_asked_for() -> None:
    with listening(faults=[Fault(on_end="cut")], rules=Rules(processing_answers=0)) as server:
        made = begin(server, receiving("acknowledgments", "final_transcripts"))
        with dial(made) as client:
            client.send(numbered(IN, 0, 1000))
            assert kinds(said_until_closed(client)) == ["audio_chunk"]
            assert client.close_code == 1000
        assert job_of(server, made)["result"]["transcription"]["full_transcript"].split() == frame_words(IN, 0, 1000)


def test_answers_may_be_late_and_stay_in_order() -> None:
    with listening(faults=[Fault(answer_late_s=0.3)], ear=number_ears(final_ms=100)) as server:
        with talking(server) as client:
            began = time.monotonic()
            client.send(numbered(IN, 0, 1000))
            said = said_until_closed(client)
            assert time.monotonic() - began >= 0.3
            assert words_of(said) == frame_words(IN, 0, 1000)


def test_pings_may_stay_unanswered_while_all_else_works() -> None:
    with listening(faults=[Fault(no_pong=True)]) as server, talking(server) as client:
        pong = client.ping()
        client.send(numbered(IN, 0, 1000))
        assert words_of(said_until_closed(client)) == frame_words(IN, 0, 1000)
        assert not pong.is_set()


# --- Many at once, and its end ------------------------------------------------------------------------------


def test_stopping_says_goodbye() -> None:
    with listening() as server, talking(server) as client:
        client.send(numbered(IN, 0, 1000))
        threading.Thread(target=server.stop).start()
        assert closing(client)[0] == 1001


def test_the_ears_are_closed_at_the_end_whether_their_sessions_are_over_or_not() -> None:
    closed: list[str] = []

    class CountedEar(PatientEar):
        def close(self) -> None:
            closed.append("closed")

    with listening(CountedEar) as server:
        made = begin(server)
        with dial(made) as client:
            client.close(1001)
        server.wait_for(lambda: server.left_sessions, within=SOON)
        assert not closed
    assert closed


def test_an_ear_that_fails_ends_its_connection_only() -> None:
    def deaf(options: EarOptions, emit: Callable[[Heard], None]) -> Ear:
        raise OSError("no ears left")

    with listening(deaf) as server, talking(server) as client:
        assert closing(client)[0] == 1011


def test_fifty_clients_are_heard_at_once() -> None:
    clients, length_ms = 50, 1000
    said: list[list[Answer]] = []

    def call(server: GladiaServer) -> None:
        with talking(server, STEREO) as client:
            for at in range(0, length_ms, 100):
                client.send(interleaved(numbered(IN, at, 100), numbered(OUT, at, 100)))
            said.append(said_until_closed(client))

    with listening() as server:
        calls = [threading.Thread(target=call, args=(server,)) for _ in range(clients)]
        for one in calls:
            one.start()
        for one in calls:
            one.join(60)
        assert len(said) == clients
        for answered in said:
            assert words_of(answered, 0) == frame_words(IN, 0, length_ms)
            assert words_of(answered, 1) == frame_words(OUT, 0, length_ms)
        assert server.violations == []


# --- Gladia's own SDK as a client ---------------------------------------------------------------------------


class SdkSession:
    """A session of the SDK, and what came of it."""

    def __init__(self, server: GladiaServer, asked: dict[str, Any], key: str = KEY) -> None:
        client = GladiaClient(api_key=key, api_url=server.http_url, http_retry=HttpRetryOptions(max_attempts=1))
        self.said: list[Answer] = []
        self.errors: list[Exception] = []
        self.connected = 0
        self.over = threading.Event()
        self._changed = threading.Condition()
        self._session = client.live_v2().start_session(asked)
        self._session.on("message", lambda message: self._note(lambda: self.said.append(message.to_dict())))
        self._session.on("error", lambda error: self._note(lambda: self.errors.append(error)))
        self._session.on("connected", lambda message: self._note(self._count))
        self._session.on("ended", lambda message: self.over.set())

    def _note(self, happened: Callable[[], None]) -> None:
        with self._changed:
            happened()
            self._changed.notify_all()

    def _count(self) -> None:
        self.connected += 1

    def wait_for(self, predicate: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(predicate, SOON), (self.said, self.errors)

    def send(self, audio: bytes) -> None:
        self._session.send_audio(audio)

    def stop(self) -> None:
        self._session.stop_recording()
        assert self.over.wait(SOON)


def test_the_sdk_reads_all_that_is_said() -> None:
    asked = STEREO | ADDITIONS | {"messages_config": EVERYTHING}
    with listening() as server:
        session = SdkSession(server, asked)
        session.wait_for(lambda: session.connected)
        for at in range(0, 4000, 100):
            session.send(interleaved(numbered(IN, at, 100), numbered(OUT, at, 100)))
        session.stop()
        assert session.errors == []
        assert words_of(session.said, 0) == frame_words(IN, 0, 4000)
        assert words_of(session.said, 1) == frame_words(OUT, 0, 4000)
        assert set(kinds(session.said)) == {
            *("start_session", "start_recording", "audio_chunk", "speech_start", "transcript", "translation"),
            *("named_entity_recognition", "sentiment_analysis", "stop_recording", "end_recording"),
            *("post_transcript", "post_summarization", "post_final_transcript", "end_session"),
        }
        assert server.violations == []


def test_the_sdk_comes_back_and_no_word_is_lost() -> None:
    """It takes the end of an acknowledged range for an offset: with an end that is inclusive it sends a byte twice."""
    faults = [Fault(drop=Drop(950, "reset"))]
    with listening(rules=Rules(acks_inclusive=False), faults=faults) as server:
        session = SdkSession(server, asking(messages_config=EVERYTHING))
        session.wait_for(lambda: session.connected == 1)
        for at in range(0, 900, 100):
            session.send(numbered(IN, at, 100))
        session.wait_for(lambda: len(of_kind("audio_chunk", session.said)) == 9)
        session.send(numbered(IN, 900, 100))  # is lost with the connection
        session.wait_for(lambda: session.connected == 2)
        for at in range(1000, 5000, 100):
            session.send(numbered(IN, at, 100))
        session.stop()
        assert words_of(session.said) == frame_words(IN, 0, 5000)
        assert len(server.connections) == 2
        assert server.posts == 1
        assert server.violations == []


# The SDK tells of the error, forgets who listens, and tells once more: then its thread ends with it.
raises_in_its_thread = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@raises_in_its_thread
def test_the_sdk_is_refused_with_a_wrong_key() -> None:
    with listening() as server:
        session = SdkSession(server, PHONE, key="wrong")
        assert session.over.wait(SOON)
        assert isinstance(session.errors[0], HttpError)
        assert session.errors[0].status == 401


@raises_in_its_thread
def test_the_sdk_names_the_fields_that_are_refused() -> None:
    with listening() as server:
        session = SdkSession(server, asking(channels=9))
        assert session.over.wait(SOON)
        assert isinstance(session.errors[0], HttpError)
        assert session.errors[0].invalid_parameters == ["channels"]


def test_the_sdk_reads_the_result() -> None:
    with listening() as server:
        session = SdkSession(server, STEREO | ADDITIONS)
        session.wait_for(lambda: session.connected)
        session.send(interleaved(numbered(IN, 0, 1000), numbered(OUT, 0, 1000)))
        session.stop()
        live = GladiaClient(api_key=KEY, api_url=server.http_url).live_v2()
        session_id = next(iter(server.sessions))
        assert live.get(session_id).status == "processing"
        job = live.get(session_id)
        assert job.status == "done"
        assert job.result is not None
        assert job.result.transcription is not None
        assert job.result.metadata.billing_time == 2.0
        assert len(job.result.transcription.utterances) == 2

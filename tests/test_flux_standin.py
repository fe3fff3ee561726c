"""The stand-in for Flux enforces what is documented, misbehaves as told, and gets along with a published client and
ours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import pytest
from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.listen.v2.types import ListenV2ConfigureSuccess, ListenV2Connected, ListenV2TurnInfo
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from deepgram_client import FLUX_TRAITS, Deepgram, DeepgramSettings
from relay.audio import silence
from relay.connection import Patience
from relay.events import Gap, SessionBegun, Track, Transcript
from standins.ear import Ear, EarFactory, EarOptions, Heard, Phrase, Word
from standins.flux import CloseFrame, Drop, Fault, Faults, FluxServer, Refusal, Rules
from standins.flux_messages import GARBAGE
from tests.numbered import frame_words, number_ears, numbered
from tests.talking import HASTE, SPEED, Hasty, client_of, speak, whole
from tests.talking import Heard as Told

KEY = "a-key-for-tests"
PHONE = {"model": "flux-general-en", "encoding": "mulaw", "sample_rate": "8000"}
MULTI = PHONE | {"model": "flux-general-multi"}
AT_ONCE = Rules(pace=math.inf)
SOON = 30.0  # seconds; nothing here takes nearly so long, unless it never happens
IN = Track.INBOUND

Answer = dict[str, Any]


@contextmanager
def listening(
    ear: EarFactory | None = None, *, key: str | None = KEY, rules: Rules = AT_ONCE, faults: Faults = ()
) -> Iterator[FluxServer]:
    with FluxServer(ear=ear or number_ears(interim_ms=240), key=key, rules=rules, faults=faults) as server:
        yield server


def dial(
    server: FluxServer,
    options: dict[str, str] | list[tuple[str, str]] = PHONE,
    *,
    path: str = "/v2/listen",
    authorization: str | None = f"Token {KEY}",
) -> ClientConnection:
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"{server.url}{path}?{urlencode(options)}"
    return connect(
        url, additional_headers=headers, compression=None, ping_interval=None, open_timeout=SOON, close_timeout=1
    )


def tell(client: ClientConnection, kind: str, **fields: Any) -> None:
    client.send(json.dumps({"type": kind} | fields))


def send(client: ClientConnection, audio: bytes) -> None:
    """In messages of 80 ms."""
    for at in range(0, len(audio), 640):
        client.send(audio[at : at + 640])


def answers(client: ClientConnection) -> list[Answer]:
    """Everything the service still says, until it closes."""
    said = []
    try:
        while True:
            said.append(json.loads(client.recv(timeout=SOON)))
    except ConnectionClosed:
        return said


def answer(client: ClientConnection, kind: str) -> Answer:
    """The next message of a kind; others are passed over."""
    while True:
        said: Answer = json.loads(client.recv(timeout=SOON))
        if said["type"] == kind:
            return said


def closing(client: ClientConnection) -> list[Answer]:
    """What comes after CloseStream."""
    tell(client, "CloseStream")
    return answers(client)


def turns(said: list[Answer], *events: str) -> list[Answer]:
    return [one for one in said if one["type"] == "TurnInfo" and (not events or one["event"] in events)]


def words_of(*said: Answer) -> list[str]:
    return [word["word"] for one in said for word in one["words"]]


# --- The handshake ------------------------------------------------------------------------------------------


def test_a_good_request_is_accepted_and_named() -> None:
    with listening() as server, dial(server) as client:
        assert client.response is not None
        request_id = server.connections[0].request_id
        assert client.response.headers["dg-request-id"] == request_id
        assert json.loads(client.recv(timeout=SOON)) == {
            "type": "Connected",
            "request_id": request_id,
            "sequence_id": 0,
        }
        assert server.violations == []


@pytest.mark.parametrize("authorization", [None, "", "Token", "Token another-key", f"Bearer {KEY}", KEY])
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
        assert server.violations == []


def refusal_of(server: FluxServer, options: dict[str, str] | list[tuple[str, str]], path: str = "/v2/listen") -> str:
    with pytest.raises(InvalidStatus) as refused:
        dial(server, options, path=path)
    (violation,) = server.violations
    response = refused.value.response
    assert response.status_code == (400 if path == "/v2/listen" else 404)
    said: str = json.loads(response.body)["err_msg"]
    assert said in violation
    return said


def test_flux_is_not_spoken_to_at_the_other_address() -> None:
    with listening() as server:
        assert refusal_of(server, PHONE, "/v1/listen") == "There is nothing at this path."


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoding": "mulaw", "sample_rate": "8000"}, "model must be given"),
        ({"model": "flux-general-en", "sample_rate": "8000"}, "encoding must be given here"),
        ({"model": "flux-general-en", "encoding": "mulaw"}, "sample_rate must be given here"),
        (PHONE | {"model": "nova-3"}, "model must be"),
        (PHONE | {"encoding": "opus"}, "encoding must be mulaw or linear16 here"),
        (PHONE | {"sample_rate": "16000"}, "sample_rate must be 8000 here"),
        (PHONE | {"channels": "1"}, "unknown parameter 'channels'"),
        (PHONE | {"language": "en"}, "unknown parameter 'language'"),
        (PHONE | {"interim_results": "true"}, "unknown parameter 'interim_results'"),
        (PHONE | {"punctuate": "true"}, "unknown parameter 'punctuate'"),
        (PHONE | {"extra": "a:b"}, "unknown parameter 'extra'"),
        (PHONE | {"eot_threshold": "0.4"}, "eot_threshold must be a number from 0.5 to 1"),
        (PHONE | {"eot_threshold": "nan"}, "eot_threshold must be a number from 0.5 to 1"),
        (PHONE | {"eager_eot_threshold": "0.95"}, "eager_eot_threshold must be a number from 0.3 to 0.9"),
        (PHONE | {"eager_eot_threshold": "0.8"}, "eager_eot_threshold must not exceed eot_threshold"),
        (PHONE | {"eot_timeout_ms": "499"}, "eot_timeout_ms must be a whole number from 500 to 60000"),
        (PHONE | {"redact": "pci"}, "redact must be"),
        (PHONE | {"numerals": "yes"}, "numerals must be true or false"),
        (PHONE | {"language_hint": "de"}, "language_hint needs flux-general-multi"),
        (MULTI | {"language_hint": "sv"}, "language_hint must be one of"),
        (PHONE | {"keyterm": ""}, "keyterm must not be empty"),
        (PHONE | {"keyterm": "x" * 101}, "nor exceed 100 characters"),
        (PHONE | {"tag": "x" * 129}, "nor exceed 128 characters"),
        ([*PHONE.items(), ("model", "flux-general-en")], "model may be given only once"),
        ([*PHONE.items(), *[("keyterm", "x")] * 101], "keyterm may be given 100 times"),
        ([*PHONE.items(), *[("keyterm", "a b c d e f")] * 100], "keyterm must not exceed 500 tokens"),
    ],
)
def test_what_is_not_documented_is_400(options: dict[str, str] | list[tuple[str, str]], says: str) -> None:
    with listening() as server:
        assert says in refusal_of(server, options)


def test_everything_documented_may_be_asked_for() -> None:
    options = [
        *MULTI.items(),
        ("eot_threshold", "1.0"),
        ("eager_eot_threshold", "0.9"),
        ("eot_timeout_ms", "60000"),
        *(("keyterm", f"term {number}") for number in range(100)),
        ("language_hint", "en"),
        ("language_hint", "pt-BR"),
        ("mip_opt_out", "true"),
        ("numerals", "true"),
        ("profanity_filter", "false"),
        ("redact", "numbers"),
        ("tag", "one"),
        ("tag", "two"),
    ]
    with listening() as server, dial(server, options) as client:
        assert answer(client, "Connected")
        assert server.violations == []


def test_a_fault_may_refuse() -> None:
    busy = Refusal(429, "TOO_MANY_REQUESTS", "Too many requests.")
    with listening(faults=[Fault(refuse=busy)]) as server:
        with pytest.raises(InvalidStatus, match="429"):
            dial(server)
        with dial(server) as client:
            assert answer(client, "Connected")
        assert server.violations == []


# --- Turns --------------------------------------------------------------------------------------------------


def test_every_message_is_numbered() -> None:
    with listening() as server, dial(server) as client:
        send(client, numbered(IN, 0, 4000))
        tell(client, "Configure", numerals=True)
        said = closing(client)
        assert [one["sequence_id"] for one in said] == list(range(len(said)))


def test_updates_come_in_silence_too() -> None:
    with listening() as server, dial(server) as client:
        send(client, silence(8 * 4000))
        updates = turns(closing(client), "Update")
        assert len(updates) >= 16
        assert {one["transcript"] for one in updates} == {""}
        assert {one["turn_index"] for one in updates} == {0}


def test_a_turn_begins_with_words_and_grows_until_it_ends() -> None:
    with listening() as server, dial(server) as client:
        send(client, numbered(IN, 0, 3000))
        said: list[Answer] = []
        while not turns(said, "EndOfTurn"):
            said.append(answer(client, "TurnInfo"))
        started, ended = turns(said, "StartOfTurn"), turns(said, "EndOfTurn")
        assert len(started) == len(ended) == 1
        assert words_of(*started)
        texts = [one["transcript"] for one in said]
        assert all(after.startswith(before) for before, after in pairwise(texts))
        assert words_of(*ended) == frame_words(IN, 0, 3000)
        assert ended[0]["trigger"] == "model"
        assert all("trigger" not in one for one in said[:-1])
        assert (ended[0]["audio_window_start"], ended[0]["audio_window_end"]) == (0.0, 3.0)


def test_the_next_turn_follows_the_one_before() -> None:
    with listening(number_ears(final_ms=1000, interim_ms=240)) as server, dial(server) as client:
        send(client, numbered(IN, 0, 4000))
        ended = turns(closing(client), "EndOfTurn")
        assert [one["turn_index"] for one in ended] == [0, 1, 2, 3]
        assert [(one["audio_window_start"], one["audio_window_end"]) for one in ended] == [
            (0, 1),
            (1, 2),
            (2, 3),
            (3, 4),
        ]
        assert words_of(*ended) == frame_words(IN, 0, 4000)


def test_an_eager_end_is_told_to_those_who_asked_for_it() -> None:
    with listening() as server, dial(server, PHONE | {"eager_eot_threshold": "0.5"}) as client:
        send(client, numbered(IN, 0, 3000))
        events = turns(closing(client))
        at = next(place for place, one in enumerate(events) if one["event"] == "EndOfTurn")
        assert events[at - 1]["event"] == "EagerEndOfTurn"
        assert events[at - 1]["transcript"] == events[at]["transcript"]


def test_languages_are_told_by_the_multilingual_model() -> None:
    with listening() as server:
        with dial(server, MULTI | {"language_hint": "de"}) as client:
            send(client, numbered(IN, 0, 3000))
            (ended,) = turns(closing(client), "EndOfTurn")
            assert (ended["languages"], ended["languages_hinted"]) == (["en"], ["de"])
        with dial(server) as client:
            send(client, numbered(IN, 0, 3000))
            (ended,) = turns(closing(client), "EndOfTurn")
            assert not {"languages", "languages_hinted"} & ended.keys()


def test_a_turn_can_be_ended_by_force() -> None:
    with listening() as server, dial(server) as client:
        send(client, numbered(IN, 0, 960))
        tell(client, "ForceEndTurn")
        while (ended := answer(client, "TurnInfo"))["event"] != "EndOfTurn":
            pass
        assert ended["trigger"] == "manual"
        assert words_of(ended) == frame_words(IN, 0, 960)


def test_without_a_turn_there_is_nothing_to_end() -> None:
    with listening() as server, dial(server) as client:
        send(client, silence(8 * 960))
        tell(client, "ForceEndTurn")
        assert turns(closing(client), "EndOfTurn", "StartOfTurn") == []
        assert server.violations == []


def test_sixteen_bits_are_heard_as_well() -> None:
    heard: list[bytes] = []

    class Keeping:
        def __init__(self, options: EarOptions, emit: Callable[[Heard], None]) -> None:
            assert options.voices == 1

        def hear(self, channels: list[bytes]) -> None:
            heard.extend(channels)

        def flush(self, channel: int | None = None) -> None: ...

        def finish(self) -> None: ...

        def close(self) -> None: ...

    with listening(Keeping) as server, dial(server, PHONE | {"encoding": "linear16"}) as client:
        client.send(bytes(1280))
        closing(client)
        assert b"".join(heard) == silence(640)
        assert server.connections[0].audio_ms == 80


# --- Configure ----------------------------------------------------------------------------------------------


def test_configure_tells_everything_as_it_now_is() -> None:
    asked = [*MULTI.items(), ("keyterm", "old"), ("language_hint", "en")]
    with listening() as server, dial(server, asked) as client:
        tell(client, "Configure", thresholds={"eot_threshold": 0.8}, keyterms=["new", "newer"], numerals=True)
        said = answer(client, "ConfigureSuccess")
        assert said["thresholds"] == {"eot_threshold": 0.8, "eot_timeout_ms": 5000}
        assert (said["keyterms"], said["language_hints"], said["numerals"]) == (["new", "newer"], ["en"], True)
        tell(client, "Configure", thresholds={"eager_eot_threshold": 0.6}, keyterms="one", language_hints=["de"])
        said = answer(client, "ConfigureSuccess")
        assert said["thresholds"] == {"eot_threshold": 0.8, "eot_timeout_ms": 5000, "eager_eot_threshold": 0.6}
        assert (said["keyterms"], said["language_hints"], said["numerals"]) == (["one"], ["de"], True)
        assert server.violations == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"thresholds": {"eot_threshold": 0.4}},
        {"thresholds": {"eot_threshold": True}},
        {"thresholds": {"eot_threshold": "0.8"}},
        {"thresholds": {"eager_eot_threshold": 0.8}},
        {"thresholds": {"eot_timeout_ms": 500.5}},
        {"thresholds": {"patience": 1}},
        {"thresholds": [0.8]},
        {"keyterms": ["x" * 101]},
        {"keyterms": ["x"] * 101},
        {"keyterms": [5]},
        {"keyterms": {}},
        {"language_hints": ["de"]},
        {"numerals": "true"},
    ],
)
def test_what_cannot_be_configured_stays_as_it_was(wanted: dict[str, Any]) -> None:
    with listening() as server, dial(server) as client:
        tell(client, "Configure", **wanted)
        failure = answer(client, "ConfigureFailure")
        assert failure["code"]
        assert failure["description"] in server.violations[0]
        tell(client, "Configure")
        assert answer(client, "ConfigureSuccess")["thresholds"] == {"eot_threshold": 0.7, "eot_timeout_ms": 5000}


# --- What ends a conversation -------------------------------------------------------------------------------


def test_close_stream_ends_no_turn_and_closes_without_a_code() -> None:
    with listening() as server, dial(server) as client:
        send(client, numbered(IN, 0, 1000))
        said = closing(client)
        assert turns(said, "EndOfTurn") == []
        assert said[-1]["event"] == "Update"
        assert words_of(said[-1]) == frame_words(IN, 0, 1000)
        assert said[-1]["audio_window_end"] == 1.0
        assert client.close_code == 1005
        assert server.violations == []


def saying(*phrases: Phrase) -> EarFactory:
    """Ears that say the same to everything, at the end."""

    class Saying:
        def __init__(self, options: EarOptions, emit: Callable[[Heard], None]) -> None:
            self._emit = emit

        def hear(self, channels: list[bytes]) -> None: ...

        def flush(self, channel: int | None = None) -> None: ...

        def finish(self) -> None:
            for phrase in phrases:
                self._emit(phrase)

        def close(self) -> None: ...

    def ear(options: EarOptions, emit: Callable[[Heard], None]) -> Ear:
        return Saying(options, emit)

    return ear


def test_the_last_update_has_all_words_however_many_finals_they_came_in() -> None:
    first = Phrase(0, 0, 500, (Word("one", 0, 400),), is_final=True)
    second = Phrase(0, 500, 900, (Word("two", 500, 800),), is_final=True)
    with listening(saying(first, second)) as server, dial(server) as client:
        send(client, silence(640))
        assert closing(client)[-1]["transcript"] == "one two"


def test_audio_behind_close_stream_is_a_violation() -> None:
    with listening() as server, dial(server) as client:
        tell(client, "CloseStream")
        client.send(silence(640))
        answers(client)
        server.wait_for(lambda: server.connections[0].is_over, within=SOON)
        assert server.violations == ["connection 0: audio after CloseStream"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"type":"KeepAlive"}', "a KeepAlive"),
        ('{"type":"Finalize"}', "not known"),
        ('{"type":', "not JSON"),
        ("[1]", "not known"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_it_does_not_know_is_a_fatal_error(text: str, says: str) -> None:
    with listening() as server, dial(server) as client:
        client.send(text)
        *_, error = answers(client)
        assert error["type"] == "Error"
        assert says in error["description"]
        assert client.close_code == 1005
        assert says in server.violations[0]


def test_audio_may_not_come_faster_than_the_pace() -> None:
    with listening(rules=Rules(pace=1.25)) as server, dial(server) as client:
        send(client, numbered(IN, 0, 20_000))
        answers(client)
        server.wait_for(lambda: server.violations, within=SOON)
        assert server.violations[0] == "connection 0: audio faster than 1.25 times real time"


def test_a_silent_client_is_closed_on() -> None:
    with listening(rules=Rules(silence_limit_s=0.05)) as server, dial(server) as client:
        answers(client)
        assert client.close_code == 1011
        assert server.violations == ["connection 0: no audio for too long"]


# --- Faults -------------------------------------------------------------------------------------------------


def test_a_connection_can_be_lost_in_the_middle() -> None:
    with listening(faults=[Fault(drop=Drop(1000, CloseFrame(1011, "NET-0000")))]) as server, dial(server) as client:
        send(client, numbered(IN, 0, 2000))
        said = turns(answers(client))
        assert client.close_code == 1011
        assert max(one["audio_window_end"] for one in said) <= 1.0


def test_garbage_comes_before_sense() -> None:
    with listening(faults=[Fault(garbage=True)]) as server, dial(server) as client:
        assert [client.recv(timeout=SOON) for _ in GARBAGE] == list(GARBAGE)
        assert answer(client, "Connected")


def test_the_last_words_may_be_cut() -> None:
    with listening(faults=[Fault(on_end="cut")]) as server, dial(server) as client:
        send(client, numbered(IN, 0, 960))
        assert len(words_of(*closing(client)[-1:])) < 48
        assert client.close_code == 1005


# --- The published SDK as a client --------------------------------------------------------------------------


def sdk(server: FluxServer, key: str = KEY) -> DeepgramClient:
    http = server.url.replace("ws", "http", 1)
    here = DeepgramClientEnvironment(base=http, production=server.url, agent=server.url, agent_rest=http)
    return DeepgramClient(api_key=key, environment=here)


def test_the_sdk_reads_turns() -> None:
    with listening() as server:
        with sdk(server).listen.v2.connect(
            model="flux-general-multi",
            encoding="mulaw",
            sample_rate=8000,
            eot_threshold=0.8,
            eager_eot_threshold=0.5,
            eot_timeout_ms=6000,
            keyterm=["order number", "relay"],
            language_hint=["en", "de"],
            profanity_filter="true",
            numerals="true",
            redact="numbers",
            tag=["CA1"],
        ) as socket:
            socket.send_configure({"type": "Configure", "keyterms": ["relay"], "thresholds": {"eot_threshold": 0.9}})
            for at in range(0, 4000, 80):
                socket.send_media(numbered(IN, at, 80))
            socket.send_force_end_turn()
            socket.send_close_stream()
            said = list(socket)
        assert isinstance(said[0], ListenV2Connected)
        assert {type(one) for one in said} == {ListenV2Connected, ListenV2ConfigureSuccess, ListenV2TurnInfo}
        for message in said:  # the SDK builds its models unchecked; here they are checked
            type(message).model_validate(message.model_dump())
        ended = [one for one in said if isinstance(one, ListenV2TurnInfo) and one.event == "EndOfTurn"]
        assert [word.word for one in ended for word in one.words] == frame_words(IN, 0, 4000)
        assert [one.trigger for one in ended] == ["model", "manual"]
        assert server.violations == []


# --- Our own client -----------------------------------------------------------------------------------------

IN_HASTE = Rules(pace=FLUX_TRAITS.pace * SPEED)


def flux(server: FluxServer) -> Deepgram:
    """The service as a user configures it, at the stand-in's address."""
    return Deepgram(DeepgramSettings(api_key=KEY, url=server.url, model="flux-general-en"))


def told_of(server: FluxServer, length_ms: int, patience: Patience = HASTE) -> Told:
    """What our client tells of so much audio, whose last word ends with the call."""
    told = Told()
    client = client_of(Hasty(flux(server)), told, (IN,), patience=patience)
    speak(client, (IN,), length_ms)
    client.close()
    return told


@pytest.mark.parametrize("length_ms", [20, 1000, 3000, 10_000, 10_060])
def test_our_client_loses_no_word_though_no_turn_ends_at_the_end(length_ms: int) -> None:
    with listening(rules=IN_HASTE) as server:
        told = told_of(server, length_ms)
        assert told.frames(IN) == whole(length_ms)
        assert told.of(Gap) == []
        assert len(told.of(SessionBegun)) == 1
        assert server.violations == []


def test_our_client_shows_what_is_not_final_yet() -> None:
    with listening(rules=IN_HASTE) as server:
        told = told_of(server, 6000)
        interims = [one for one in told.events if isinstance(one, Transcript) and not one.is_final]
        assert interims
        assert all(one.text for one in interims)


@pytest.mark.parametrize(
    ("after_ms", "how"),
    [
        *((after_ms, "reset") for after_ms in (0, 80, 2960, 4000, 10_000)),
        *((after_ms, CloseFrame(1000, "")) for after_ms in (0, 80, 2960, 4000, 10_000)),
        (4000, CloseFrame(1011)),
        (4000, "mute"),
        (10_000, "mute"),
    ],
    ids=str,
)
def test_our_client_loses_no_word_when_the_connection_is_lost(after_ms: int, how: Any) -> None:
    with listening(rules=IN_HASTE, faults=[Fault(drop=Drop(after_ms, how))]) as server:
        told = told_of(server, 10_000, replace(HASTE, answer=1))
        assert told.frames(IN) == whole(10_000)
        assert told.of(Gap) == []
        assert server.violations == []


def test_our_client_survives_garbage_and_late_answers() -> None:
    with listening(rules=IN_HASTE, faults=[Fault(garbage=True, answer_late_s=0.2)]) as server:
        told = told_of(server, 5000)
        assert told.frames(IN) == whole(5000)
        assert server.violations == []


def test_our_client_comes_again_when_its_last_words_were_not_told() -> None:
    hard_of_hearing = number_ears(final_ms=20_000, interim_ms=20_000)
    with listening(hard_of_hearing, rules=IN_HASTE, faults=[Fault(on_end="reset")]) as server:
        told = told_of(server, 5000)
        assert told.frames(IN) == whole(5000)
        assert len(server.connections) == 2
        assert server.violations == []


def test_our_client_takes_the_last_update_before_a_good_close_for_final() -> None:
    hard_of_hearing = number_ears(final_ms=20_000, interim_ms=3500)
    with listening(hard_of_hearing, rules=IN_HASTE, faults=[Fault(on_end="cut")]) as server:
        told = told_of(server, 5000)
        assert told.frames(IN) == whole(3520)  # chunks are of 80 ms
        assert len(server.connections) == 1
        assert server.violations == []


def test_our_client_sends_silence_when_there_is_no_audio() -> None:
    with listening(rules=IN_HASTE) as server:
        told = Told()
        client = client_of(Hasty(flux(server), idle_after_s=0.05), told, (IN,))
        speak(client, (IN,), 2000)
        server.wait_for(lambda: server.connections and server.connections[0].audio_ms > 2960, within=SOON)
        speak(client, (IN,), 2000, start_ms=2000)
        client.close()
        assert told.frames(IN) == whole(4000)
        assert server.connections[0].texts == ['{"type":"CloseStream"}']
        assert server.violations == []

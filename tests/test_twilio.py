"""Twilio's messages as events: the documented ones, and everything else."""

from __future__ import annotations

import base64
import json
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.events import (
    Connected,
    Dtmf,
    Ignored,
    Malformed,
    Mark,
    Media,
    MediaFormat,
    Started,
    Stopped,
    Track,
)
from relay.twilio import PHONE_AUDIO, _parse_json, _spelled_as_usual, parse, twiml

STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
CALL = "CA5d0d0d8047bf685c3f0ff980fe62c123"
ACCOUNT = "ACc0d0d8047bf685c3f0ff980fe62c1230"


def start(**changes: Any) -> dict[str, Any]:
    return {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": STREAM,
        "start": {
            "streamSid": STREAM,
            "accountSid": ACCOUNT,
            "callSid": CALL,
            "tracks": ["inbound", "outbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"lang": "en"},
            **changes,
        },
    }


def media(**changes: Any) -> dict[str, Any]:
    payload = base64.b64encode(b"\xff" * 160).decode()
    said = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": payload}
    return {"event": "media", "sequenceNumber": "3", "streamSid": STREAM, "media": {**said, **changes}}


def understood(message: object) -> object:
    return parse(json.dumps(message))


def test_connected() -> None:
    assert understood({"event": "connected", "protocol": "Call", "version": "1.0.0"}) == Connected("Call", "1.0.0")


def test_start() -> None:
    assert understood(start()) == Started(
        stream_sid=STREAM,
        call_sid=CALL,
        account_sid=ACCOUNT,
        tracks=(Track.INBOUND, Track.OUTBOUND),
        media_format=PHONE_AUDIO,
        parameters={"lang": "en"},
    )


def test_tracks_have_one_order_whatever_twilios() -> None:
    assert understood(start(tracks=["outbound", "inbound"])).tracks == (Track.INBOUND, Track.OUTBOUND)  # type: ignore[attr-defined]


def test_the_media_format_is_read_not_assumed() -> None:
    form = {"encoding": "audio/l16", "sampleRate": 16000, "channels": 2}
    assert understood(start(mediaFormat=form)).media_format == MediaFormat("audio/l16", 16000, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", [0, 1, 159, 160, 320, 999])
def test_media_of_any_length(length: int) -> None:
    audio = bytes(n % 256 for n in range(length))
    event = understood(media(payload=base64.b64encode(audio).decode()))
    assert event == Media(STREAM, 3, Track.INBOUND, 20, audio)


def test_dtmf_mark_and_stop() -> None:
    head = {"sequenceNumber": "5", "streamSid": STREAM}
    dtmf = {"event": "dtmf", **head, "dtmf": {"track": "inbound_track", "digit": "#"}}
    assert understood(dtmf) == Dtmf(STREAM, 5, "#")
    assert understood({"event": "mark", **head, "mark": {"name": "hello"}}) == Mark(STREAM, 5, "hello")
    stop = {"event": "stop", **head, "stop": {"accountSid": ACCOUNT, "callSid": CALL}}
    assert understood(stop) == Stopped(STREAM, 5)


def test_a_key_pressed_is_nobodys_business() -> None:
    assert "4711" not in repr(Dtmf(STREAM, 5, "4711"))


def test_what_may_come_one_day_is_ignored() -> None:
    assert understood({"event": "weather", "sun": True}) == Ignored("weather")


@pytest.mark.parametrize(
    "message",
    [
        b"\x00\x01",
        "",
        "{",
        "[]",
        "null",
        '"media"',
        "{}",
        '{"event": 5}',
        '{"event": "media"}',
        json.dumps(media(payload="***")),
        json.dumps(media(payload="QQ")),
        json.dumps(media(payload=7)),
        json.dumps(media(timestamp="-20")),
        json.dumps(media(timestamp="soon")),
        json.dumps(media(timestamp="9" * 400)),
        json.dumps(media(timestamp=True)),
        json.dumps(media(track="sideways")),
        json.dumps(start(tracks=[])),
        json.dumps(start(tracks="inbound")),
        json.dumps(start(callSid="CA" * 40)),
        json.dumps(start(callSid=None)),
        json.dumps(start(mediaFormat=[])),
        json.dumps(start(customParameters=[1])),
        json.dumps({**start(), "start": None}),
        json.dumps(start(customParameters={"deep": [[]]})),
        json.dumps(start()).replace('"en"', "[" * 500 + "]" * 500),
        '{"event": "media", "media": ' + "[" * 2000 + "]" * 2000 + "}",
    ],
)
def test_what_cannot_be_read_is_malformed_and_says_why(message: str | bytes) -> None:
    event = parse(message)
    assert isinstance(event, Malformed)
    assert 0 < len(event.reason) < 120


def test_numbers_may_be_strings_or_numbers() -> None:
    assert understood(media(timestamp=20)) == understood(media(timestamp="20"))


@given(
    st.sampled_from(["inbound", "outbound", "sideways"]),
    st.text("0123456789 -a", max_size=20),
    st.binary(max_size=400).map(lambda audio: base64.b64encode(audio).decode()) | st.text(max_size=20),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from('"\\{}:, x0/')), max_size=2),
)
def test_the_fast_reader_agrees_with_the_json_parser(
    track: str, number: str, payload: str, typos: list[tuple[int, str]]
) -> None:
    message = (
        f'{{"event":"media","sequenceNumber":"{number}","media":{{"track":"{track}","chunk":"1","timestamp":"20",'
        f'"payload":"{payload}"}},"streamSid":"{STREAM}"}}'
    )
    for at, character in typos:
        message = message[:at] + character + message[at + 1 :]
    fast = _spelled_as_usual(message)
    assert fast is None or fast == _parse_json(message)


def test_the_fast_reader_reads_what_twilio_sends() -> None:
    message = (
        '{"event":"media","sequenceNumber":"3","media":{"track":"outbound","chunk":"1","timestamp":"20",'
        f'"payload":"//////8="}},"streamSid":"{STREAM}"}}'
    )
    assert _spelled_as_usual(message) == Media(STREAM, 3, Track.OUTBOUND, 20, b"\xff" * 5)
    assert _spelled_as_usual(message.replace("/", "\\/")) is None  # escaped, which is the same JSON
    assert parse(message.replace("/", "\\/")) == parse(message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.text() | st.binary())
def test_nothing_is_raised_for_anything(message: str | bytes) -> None:
    parse(message)


@given(
    st.sampled_from(["connected", "start", "media", "dtmf", "mark", "stop"]),
    st.dictionaries(
        st.sampled_from(["start", "media", "dtmf", "mark", "stop", "streamSid", "sequenceNumber", "version"]),
        json_values | st.dictionaries(st.sampled_from(["track", "payload", "tracks", "mediaFormat"]), json_values),
    ),
)
def test_nothing_is_raised_for_almost_right_messages(kind: str, rest: dict[str, Any]) -> None:
    parse(json.dumps({**rest, "event": kind}))


def test_the_twiml_streams_both_tracks_and_escapes_its_url() -> None:
    stream = ElementTree.fromstring(twiml('wss://host/media?"<&')).find("Stream")
    assert stream is not None
    assert stream.attrib == {"url": 'wss://host/media?"<&', "track": "both_tracks"}

"""Twilio Media Streams: its messages as events, the TwiML that makes it send them, and its signatures. Pure.

Messages: https://www.twilio.com/docs/voice/media-streams/websocket-messages
TwiML: https://www.twilio.com/docs/voice/twiml/stream
Signatures: https://www.twilio.com/docs/usage/security
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

import orjson
from twilio.request_validator import (  # type: ignore[import-untyped]
    HMAC_SHA1,
    HMAC_SHA256,
    SIGNATURE_HEADER,
    SIGNATURE_SETTINGS_HEADER,
    RequestValidator,
    get_signature_algorithm,
)

from relay.events import (
    Connected,
    Dtmf,
    Ignored,
    Malformed,
    Mark,
    Media,
    MediaFormat,
    MediaStreamEvent,
    Started,
    Stopped,
    Track,
)

PHONE_AUDIO: Final = MediaFormat("audio/x-mulaw", 8000, 1)  # what Twilio documents, and all we understand

LONGEST_NAME: Final = 64  # a SID has 34 characters; what is longer is nobody's name
LONGEST_PARAMETER: Final = 500  # of name and value together, says the page on TwiML
PARAMETERS_AT_MOST: Final = 99  # Twilio's REST API allows Parameter1 to Parameter99

_Json = Mapping[str, Any]


# A media message as Twilio spells it, up to the payload. Nearly every message is one, and reading it like this takes a
# third of the time that making a tree of its JSON does.
_MEDIA: Final = re.compile(
    r'\{"event":"media","sequenceNumber":"([0-9]{1,18})","media":'
    r'\{"track":"((?:in|out)bound)","chunk":"[0-9]{1,18}","timestamp":"([0-9]{1,18})","payload":"'
)
_MEDIA_END: Final = re.compile(r'"\},"streamSid":"([A-Za-z0-9]{1,64})"\}')
_TRACKS: Final = {str(track): track for track in Track}


def parse(message: str | bytes) -> MediaStreamEvent:
    """The event a message tells of. Total: whatever comes, an event is returned and nothing is raised."""
    if not isinstance(message, str):
        return Malformed("a binary message, where Twilio sends text only")
    return _spelled_as_usual(message) or _parse_json(message)


def _spelled_as_usual(message: str) -> Media | None:
    """A media message in Twilio's own spelling; None for any other, which then is read as the JSON it is."""
    if (head := _MEDIA.match(message)) is None:
        return None
    start = head.end()
    end = message.find('"', start)
    if (tail := _MEDIA_END.fullmatch(message, end)) is None:
        return None
    sequence, track, timestamp = head.groups()
    try:
        audio = a2b_base64(message[start:end], strict_mode=True)
    except ValueError:
        return None
    return Media(tail[1], int(sequence), _TRACKS[track], int(timestamp), audio)


def _parse_json(message: str) -> MediaStreamEvent:
    try:
        said = orjson.loads(message)
    except orjson.JSONDecodeError:
        return Malformed("not JSON")
    if not isinstance(said, dict):
        return Malformed("JSON, but not an object")
    kind = said.get("event")
    if not isinstance(kind, str):
        return Malformed("no event named")
    read = _READERS.get(kind)
    if read is None:
        return Ignored(kind[:LONGEST_NAME])
    try:
        return read(said)
    except (KeyError, TypeError, ValueError) as unreadable:
        return Malformed(f"{kind}: {_what_is_wrong(unreadable)}")


def _connected(said: _Json) -> Connected:
    return Connected(_name(said.get("protocol", "")), _name(said.get("version", "")))


def _started(said: _Json) -> Started:
    start = said["start"]
    form = start["mediaFormat"]
    return Started(
        stream_sid=_name(start["streamSid"]),
        call_sid=_name(start["callSid"]),
        account_sid=_name(start.get("accountSid", "")),
        tracks=_tracks(start["tracks"]),
        media_format=MediaFormat(_name(form["encoding"]), _number(form["sampleRate"]), _number(form["channels"])),
        parameters=_parameters(start.get("customParameters") or {}),
    )


def _media(said: _Json) -> Media:
    media = said["media"]
    return Media(
        stream_sid=_name(said["streamSid"]),
        sequence=_number(said["sequenceNumber"]),
        track=Track(media["track"]),
        timestamp_ms=_number(media["timestamp"]),
        audio=_audio(media["payload"]),
    )


def _dtmf(said: _Json) -> Dtmf:
    return Dtmf(_name(said["streamSid"]), _number(said["sequenceNumber"]), _name(said["dtmf"]["digit"]))


def _mark(said: _Json) -> Mark:
    return Mark(_name(said["streamSid"]), _number(said["sequenceNumber"]), _name(said["mark"]["name"]))


def _stopped(said: _Json) -> Stopped:
    return Stopped(_name(said["streamSid"]), _number(said["sequenceNumber"]))


_READERS: Final[Mapping[str, Callable[[_Json], MediaStreamEvent]]] = {
    "connected": _connected,
    "start": _started,
    "media": _media,
    "dtmf": _dtmf,
    "mark": _mark,
    "stop": _stopped,
}


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a name that is not text")
    if len(value) > LONGEST_NAME:
        raise ValueError("a name that is too long")
    return value


def _number(value: object) -> int:
    """A count. Twilio writes most of its numbers as strings ("20"), and some as numbers."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("a number that is none")


def _tracks(value: object) -> tuple[Track, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("no tracks")
    return tuple(sorted({Track(name) for name in value}))


def _parameters(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > PARAMETERS_AT_MOST:
        raise ValueError("customParameters that are none")
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError("a parameter that is not text")
    return {name[:LONGEST_PARAMETER]: text[:LONGEST_PARAMETER] for name, text in value.items()}


def _audio(payload: object) -> bytes:
    if not isinstance(payload, str):
        raise ValueError("a payload that is not text")
    try:
        return a2b_base64(payload, strict_mode=True)
    except ValueError:
        raise ValueError("a payload that is not base64") from None


def _what_is_wrong(unreadable: Exception) -> str:
    if isinstance(unreadable, KeyError):
        return f"no {unreadable.args[0]}"
    if isinstance(unreadable, TypeError):
        return "not the documented shape"
    return str(unreadable)[:80]


def twiml(url: str) -> str:
    """What to put into the TwiML of a call so that both its tracks are streamed to `url`, before the `<Dial>`.

    `<Start>` forks the audio and goes on at once: when no verb follows, the call ends.
    """
    return f'<Start>\n  <Stream url={quoteattr(url)} track="both_tracks"/>\n</Start>'


# --- Signatures ---------------------------------------------------------------------------------------------


class Signature(StrEnum):
    """What came of looking at a request's signature."""

    VALID = "valid"
    WRONG = "wrong"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Signatures:
    """Tells Twilio's requests from others, with Twilio's own validator.

    Twilio signs with the account's auth token (SHA-1), or with a shared key's secret (SHA-256), and says which.
    """

    auth_token: str | None = field(default=None, repr=False)
    shared_key_secret: str | None = field(default=None, repr=False)

    @property
    def can_be_checked(self) -> bool:
        """Whether there is a secret to check them with."""
        return bool(self.auth_token or self.shared_key_secret)

    def check(self, urls: Iterable[str], headers: Mapping[str, str], said: Mapping[str, str] | str = "") -> Signature:
        """Whether a request to one of these URLs is signed. `said` is its form, or its body where that is JSON."""
        signature = headers.get(SIGNATURE_HEADER)
        if not signature:
            return Signature.MISSING
        algorithm = get_signature_algorithm(headers.get(SIGNATURE_SETTINGS_HEADER))
        secret = {HMAC_SHA1: self.auth_token, HMAC_SHA256: self.shared_key_secret}.get(algorithm)
        if not secret:
            return Signature.WRONG
        validator = RequestValidator(secret)
        signed = any(
            validator.validate(url, said or {}, signature, algorithm) for url in urls if _is_covered(said, by=url)
        )
        return Signature.VALID if signed else Signature.WRONG

    def sign(self, url: str) -> dict[str, str]:
        """The headers that Twilio's request to this URL would have; none where there is no secret."""
        if self.auth_token:
            return {SIGNATURE_HEADER: RequestValidator(self.auth_token).compute_signature(url, {})}
        if self.shared_key_secret:
            signature = RequestValidator(self.shared_key_secret).compute_signature(url, {}, HMAC_SHA256)
            return {SIGNATURE_HEADER: signature, SIGNATURE_SETTINGS_HEADER: f"algorithm={HMAC_SHA256}"}
        return {}


def _is_covered(said: Mapping[str, str] | str, *, by: str) -> bool:
    """A body that is no form is covered by its hash, which is part of the URL."""
    return not (said and isinstance(said, str)) or "bodySHA256=" in urlsplit(by).query


def as_signed(url: str) -> tuple[str, ...]:
    """The ways in which Twilio may have written a WebSocket's URL when it signed it: with a slash, with the port."""
    parts = urlsplit(url.rstrip("/"))
    with_port = parts if parts.port else parts._replace(netloc=f"{parts.netloc}:443")
    return tuple(f"{form.geturl()}{end}" for form in (parts, with_port) for end in ("", "/"))

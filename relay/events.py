"""What happened, as frozen values: first on Twilio's side, then on a speech service's, then in the relay itself.

Times are milliseconds on the call's clock, which starts with the stream, unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Track(StrEnum):
    """One side of a call, in Twilio's words: what it hears from the party on this leg, or what it plays to it."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


# --- Anyone may say these ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message we know, or may come to know, and do not need."""

    kind: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message nobody could make sense of. The reason never repeats what the message said."""

    reason: str


# --- What Twilio says --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """The socket speaks Media Streams. Carries no stream yet."""

    protocol: str
    version: str


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """How the audio of a stream is encoded, as its `start` message says."""

    encoding: str
    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class Started:
    """A stream begins: whose call it is, which tracks it carries and in what format."""

    stream_sid: str
    call_sid: str
    account_sid: str
    tracks: tuple[Track, ...]
    media_format: MediaFormat
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)


class Media(NamedTuple):
    """Raw audio of one track; `timestamp_ms` is when its first sample was spoken.

    A tuple, since it is made 100 times a second for each call, and a frozen dataclass takes three times as long.
    """

    stream_sid: str
    sequence: int
    track: Track
    timestamp_ms: int
    audio: bytes

    def __repr__(self) -> str:
        return (
            f"Media({self.stream_sid}, {self.sequence}, {self.track}, {self.timestamp_ms} ms, {len(self.audio)} bytes)"
        )


@dataclass(frozen=True, slots=True)
class Dtmf:
    """A key was pressed. The digit is the caller's secret (a PIN, a card number) and stays out of any repr."""

    stream_sid: str
    sequence: int
    digit: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mark:
    """Audio we had queued before this name has been played, or was dropped."""

    stream_sid: str
    sequence: int
    name: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stream was stopped, or its call is over."""

    stream_sid: str
    sequence: int


MediaStreamEvent = Connected | Started | Media | Dtmf | Mark | Stopped | Ignored | Malformed


# --- What a speech service says ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """One word, spelled as it should be read, with the confidence (0 to 1) the service has in it."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float
    speaker: int | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said on one track from `start_ms` to `end_ms`; an interim may still change, a final will not.

    `ends_utterance` says the speaker has paused. An empty text is a pause that was listened to. `behind_ms` is by how
    much audio had been sent beyond it when it came; `network_ms` is how much of that was the way there and back.
    """

    track: Track
    text: str
    start_ms: int
    end_ms: int
    is_final: bool
    words: tuple[Word, ...] = ()
    confidence: float = 0.0
    language: str | None = None
    ends_utterance: bool = False
    behind_ms: int | None = field(default=None, compare=False)
    network_ms: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Heard:
    """Audio of this track up to here is understood for good and will not be needed again."""

    track: Track
    until_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Someone began to speak (Deepgram: `vad_events`)."""

    track: Track
    at_ms: int


@dataclass(frozen=True, slots=True)
class UtteranceEnded:
    """No word has followed for a while (Deepgram: `utterance_end_ms`)."""

    track: Track
    last_word_ms: int


@dataclass(frozen=True, slots=True)
class SessionBegun:
    """The service has given this conversation a name of its own, by which its support finds it."""

    service: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Translation:
    """What was said on one track from `start_ms` to `end_ms`, in another language."""

    track: Track
    text: str
    start_ms: int
    end_ms: int
    language: str


@dataclass(frozen=True, slots=True)
class Remark:
    """What the service makes of something that was said: a mood, a name; `kind` says which."""

    track: Track
    kind: str
    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole call in a few words, which the service says after its end."""

    text: str


@dataclass(frozen=True, slots=True)
class CallResult:
    """All that the service has made of the call, fetched after its end, as the JSON it came in."""

    service: str
    session_id: str
    document: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Complained:
    """The service disliked something we sent, and goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The service has said all it will say about the audio it was sent."""


ServiceEvent = (
    Transcript
    | Heard
    | SpeechStarted
    | UtteranceEnded
    | SessionBegun
    | Translation
    | Remark
    | Summary
    | CallResult
    | Complained
    | Finished
    | Ignored
    | Malformed
)


# --- What the relay says -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceConnecting:
    """A connection to a speech service is being made; `attempt` counts from 1 and starts anew once one held."""

    service: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ServiceConnected:
    """The speech service listens, from `from_ms` on: earlier audio is replayed when that lies in the past."""

    service: str
    from_ms: int


@dataclass(frozen=True, slots=True)
class ServiceLost:
    """The connection to a speech service broke. Its last interims are void; it is tried again after `retry_in_s`."""

    service: str
    reason: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class ServiceRefused:
    """The speech service will not have this call, and trying again cannot help."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServiceReplaced:
    """Another service hears the rest of the call, from `from_ms` on: from where the one before had finalised."""

    service: str
    by: str
    reason: str
    from_ms: int


@dataclass(frozen=True, slots=True)
class ServiceDown:
    """The service is taken for down: new calls go to another until it answers a probe."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServiceBack:
    """The service has answered a probe: new calls go to it again."""

    service: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Seconds of a track that no transcript will cover, and why."""

    track: Track
    start_ms: int
    end_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class SocketAccepted:
    """Someone, likely Twilio, opened a WebSocket at this path."""

    path: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """Twilio's first messages as they came, the values of custom parameters left out."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class MediaReceived:
    """So many media messages have come; `size` is that of the newest, in bytes of audio."""

    count: int
    size: int


@dataclass(frozen=True, slots=True)
class NotTranscribed:
    """Nobody will listen to this stream, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class StandsBy(NotTranscribed):
    """Another stream of the call brings the same audio. This one is heard should that one end."""


@dataclass(frozen=True, slots=True)
class StreamReported:
    """Twilio says how a stream fares; if it failed, how, and what to do about it."""

    call_sid: str
    event: str  # stream-started, stream-stopped or stream-error
    error: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class StreamBegun:
    """The stream is known and its audio is about to come. `services` will listen, side by side if they are several.

    Who calls whom is known if the TwiML passes it on, as parameters of the stream.
    """

    services: tuple[str, ...] = ()
    caller: str = field(default="", repr=False)
    called: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Listened:
    """The stream's audio has come up to here, and so much of it waits to be sent on; told now and again."""

    until_ms: int
    unsent_ms: int = 0


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream is over and its last words have come. Delays are in ms, None where nothing was measured."""

    reason: str
    duration_ms: int
    frames: int
    missing_messages: int
    audio_gaps: int
    missing_ms: int
    words: int
    reconnects: int
    lost_ms: int
    interim_delay_ms: int | None
    final_delay_ms: int | None


SpeechEvent = ServiceEvent | ServiceConnecting | ServiceConnected | ServiceLost | ServiceRefused | ServiceReplaced | Gap

CallEvent = (
    SpeechEvent
    | ServiceDown
    | ServiceBack
    | SocketAccepted
    | MessageReceived
    | MediaReceived
    | NotTranscribed
    | StreamReported
    | StreamBegun
    | Listened
    | StreamEnded
)

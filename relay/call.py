"""A call's media stream: Twilio's messages in, audio to the speech services, transcripts out; and who owns its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from time import monotonic
from typing import Final, Protocol

import gevent
import orjson
from gevent.event import Event

from relay.admission import MEDIA_PATH, TurnedAway, Visit
from relay.audio import SAMPLES_PER_MS, Piece, Timeline
from relay.connection import Patience
from relay.conversation import Tally
from relay.events import (
    CallEvent,
    Connected,
    Dtmf,
    Gap,
    Ignored,
    Listened,
    Malformed,
    Mark,
    Media,
    MediaReceived,
    MediaStreamEvent,
    MessageReceived,
    NotTranscribed,
    SocketAccepted,
    StandsBy,
    Started,
    Stopped,
    StreamBegun,
    StreamEnded,
    Track,
)
from relay.feed import Feed
from relay.hub import Happened, Hub
from relay.listening import Choice, Listening, first_choice
from relay.protocol import CallInfo
from relay.recording import Recorder
from relay.settings import Settings
from relay.text import printable
from relay.twilio import PHONE_AUDIO, parse

log = logging.getLogger(__name__)

START_WITHIN: Final = 10.0  # seconds from the socket's opening to `start`; Twilio sends it at once
BEFORE_START_MOST: Final = 20  # messages of a stranger; Twilio says two
LEAST_GAP: Final = 1000 * SAMPLES_PER_MS  # shorter ones are counted only
NOT_SENT: Final = "Twilio did not send it"
LAST_LOOK: Final = 0.1  # seconds we read on when the deadline has passed: the process may have been asleep
STALE_AFTER: Final = 5.0  # seconds without media, after which a newer stream of the same tracks takes over
FRAME_MS: Final = 20  # of audio in one of Twilio's media messages; in practice, it is not documented
TICK_MS: Final = 10  # between two moments at which streams wake; up to so much delay is added to a chunk's own
LAST_FRAMES_WITHIN: Final = 2.0  # seconds of silence after which a stream that Twilio says is over is over
POLICY_VIOLATION: Final = 1008  # of a close frame (RFC 6455, 7.4.1)
TELL_EVERY: Final = 500  # media messages between two counts: ten seconds of one track
TELL_LISTENED_EVERY: Final = 2.0  # seconds
CALLER: Final = "from"  # custom parameters of a stream, in its TwiML: <Parameter name="from" value="{{From}}"/>
CALLED: Final = "to"
LONGEST_NUMBER: Final = 64  # characters; a SIP address is longer than a number
COMPLAINTS_AT_MOST: Final = 20  # kinds of trouble told for one stream


class Socket(Protocol):
    """What a stream needs of its WebSocket."""

    close_reason: str

    def receive_all(self, timeout: float | None = None) -> list[str | bytes]:
        """The messages that have come; none when the socket is closed. Raises TimeoutError."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Says goodbye."""


class Taker(Protocol):
    """Takes the audio of some tracks of a stream: a feed to a service, or a recording."""

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Which."""

    @property
    def tallies(self) -> list[Tally]:
        """What its clients have to say of their work."""

    @property
    def cut_ms(self) -> int:
        """Audio that came too late to be put in its place."""

    @property
    def missing_ms(self) -> float:
        """How much audio has still to come until it has something to do."""

    @property
    def unsent_ms(self) -> int:
        """How much audio waits to be sent on."""

    def ear(self, track: Track) -> Callable[[Piece], None]:
        """What takes the audio of one of its tracks."""

    def pass_on(self) -> None:
        """All that has come so far was given to it."""

    def finish(self) -> None:
        """No more audio will come."""

    def close(self) -> None:
        """Waits until it has done all it can."""


class Side:
    """One track of a stream: its audio's place in time, and who hears it."""

    def __init__(self, on_gap: Callable[[int, int], None]) -> None:
        self.timeline = Timeline(on_gap)
        self.ears: list[Callable[[Piece], None]] = []


class Switchboard:
    """Answers Twilio's sockets, one `Stream` each, and knows which are live."""

    def __init__(
        self,
        settings: Settings,
        listening: Listening,
        hub: Hub,
        patience: Patience | None = None,
        *,
        recorder: Recorder | None = None,
    ) -> None:
        self.settings = settings
        self.listening = listening
        self.hub = hub
        self.recorder = recorder
        self.patience = patience or Patience(answer=settings.service_silence_s)
        for provider in listening.providers:
            provider.on_change = lambda change: hub.publish(Happened(None, change))
        self.answers = True  # new sockets; False once we are asked to go
        self.quiet = Event()  # set while no stream is live
        self.quiet.set()
        self._streams: set[Stream] = set()
        self._holders: dict[tuple[str, Track], Stream] = {}

    @property
    def live(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    def answer(self, socket: Socket, visit: Visit) -> None:
        """Runs a stream from its socket's opening until its last words have come."""
        stream = Stream(self, socket, visit)
        self._streams.add(stream)
        self.quiet.clear()
        try:
            stream.run()
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self.quiet.set()

    def told_over(self, call_sid: str, stream_sid: str, because: str) -> bool:
        """Twilio reports that a stream is over, or has failed: behind a tunnel its socket may never be closed.

        Whether it is one of ours.
        """
        ours = [stream for stream in self._streams if stream.is_of(call_sid, stream_sid)]
        for stream in ours:
            stream.end_once_silent(because)
        return bool(ours)

    def claim(self, stream: Stream, call: CallInfo) -> tuple[Track, ...]:
        """The tracks of the call that nobody else transcribes; they are this stream's from now on.

        A new `<Start><Stream>` does not replace an earlier one: both bring the same audio. But one may also stand in
        for another whose end was never told, and which has gone silent.
        """
        claimed = []
        for track in call.tracks:
            holder = self._holders.get((call.call_sid, track))
            if holder is not None and holder is not stream and holder.stale:
                holder.replace()
                holder = None
            if holder is None or holder is stream:
                self._holders[call.call_sid, track] = stream
                claimed.append(track)
        return tuple(claimed)

    def release(self, stream: Stream) -> None:
        """Other streams may have its tracks now."""
        self._holders = {key: holder for key, holder in self._holders.items() if holder is not stream}


class Stream:
    """One Twilio Media Stream, from its socket's opening to its last word.

    `run` reads in its own greenlet and never waits for a service: Twilio throws audio away when it is read too slowly.
    """

    def __init__(self, switchboard: Switchboard, socket: Socket, visit: Visit) -> None:
        self._switchboard = switchboard
        self._settings = switchboard.settings
        self._socket = socket
        self._visit = visit
        self._untold: list[CallEvent] = []  # until it is known that it may stream
        self._call: CallInfo | None = None
        self._stream_sid = ""
        self._sides: dict[Track, Side] = {}
        self._chosen: list[tuple[Choice, ...]] = []  # who listens, side by side, and who takes over from each
        self._takers: list[Taker] = []
        self._connected = False  # it has said so
        self._standby = False  # another stream has our tracks
        self._ends_because = ""  # why we have closed the socket, or are about to
        self._before_start = 0  # messages
        self._frames = 0
        self._sequence = 1  # of the newest message; `start` has this one
        self._missing_messages = 0
        self._complaints: set[str] = set()
        self._deadline = monotonic() + START_WITHIN  # for the next message that makes sense
        self._made_sense = False  # has any message of the newest ones
        self._heard_at = self._told_at = monotonic()

    @property
    def _until_ms(self) -> int:
        """Where the newest audio ends."""
        return max((side.timeline.end for side in self._sides.values()), default=0) // SAMPLES_PER_MS

    @property
    def stale(self) -> bool:
        """Whether nothing has come for so long that a newer stream may take over."""
        return monotonic() - self._heard_at > STALE_AFTER

    def replace(self) -> None:
        """A newer stream takes over: this one ends."""
        self._hang_up("replaced by a newer stream")

    def is_of(self, call_sid: str, stream_sid: str) -> bool:
        """Whether it is this stream that is spoken of."""
        return self._call is not None and (self._call.call_sid, self._call.stream_sid) == (call_sid, stream_sid)

    def end_once_silent(self, because: str) -> None:
        """Twilio says elsewhere that the stream is over. What is still on its way here has some time to come."""
        gevent.spawn(self._await_silence, monotonic(), because)

    def _await_silence(self, told_at: float, because: str) -> None:
        while (left := max(told_at, self._heard_at) + LAST_FRAMES_WITHIN - monotonic()) > 0:
            gevent.sleep(left)
            gevent.sleep(LAST_LOOK)
        self._hang_up(because)

    def _hang_up(self, because: str, code: int = 1000) -> None:
        self._ends_because = self._ends_because or because
        gevent.spawn(self._socket.close, code, because)

    def _expel(self) -> None:
        self._hang_up("too many sockets have shown nothing yet", POLICY_VIOLATION)

    def run(self) -> None:
        """Until `stop`, a closed socket, or silence; and then until the last words have come."""
        self._visit.expel = self._expel
        self._tell(SocketAccepted(MEDIA_PATH))  # and not what its path had besides: a key, or a pass
        reason = "failed"
        try:
            reason = self._listen()
        finally:
            self._end(reason)

    def _listen(self) -> str:
        """Takes messages until one of them, or their absence, ends the stream; says which."""
        while True:
            try:
                messages = self._socket.receive_all(max(LAST_LOOK, self._deadline - monotonic()))
            except TimeoutError:
                return self._silence()
            if not messages:
                return self._ends_because or self._socket.close_reason
            for message in messages:
                event = parse(message)
                if type(event) is Media:
                    self._media(event)
                elif reason := self._take(event):
                    return reason
            if self._call is None and self._is_chatter(len(messages)):
                return "it said too much before its start"
            if self._made_sense:
                self._alive()
            elif monotonic() > self._deadline:
                return self._silence()
            for taker in self._takers:
                taker.pass_on()
            self._rest()

    def _is_chatter(self, more: int) -> bool:
        """Whether a stranger says more than `connected` and `start`; reading it would cost time that calls need."""
        self._before_start += more
        return self._before_start > BEFORE_START_MOST and not self._visit.is_admitted

    def _rest(self) -> None:
        """Sleeps until the next chunk is whole, or the next tick may bring what it still lacks.

        Waking up costs more than reading what one is woken for, so streams wake on common ticks, several at a time.
        """
        missing_ms = min((taker.missing_ms for taker in self._takers), default=0.0)
        if missing_ms:
            one_frame_short = missing_ms < min(self._settings.chunk_ms, 2 * FRAME_MS)
            pause_ms = TICK_MS if one_frame_short else missing_ms
            now_ms = monotonic() * 1000
            wake_ms = round(now_ms / TICK_MS) * TICK_MS + pause_ms
            gevent.sleep(max(0.0, wake_ms - now_ms) / 1000)

    def _silence(self) -> str:
        if self._call is not None:
            return "Twilio sent nothing more"
        self._visit.never_began()
        return "no start message came"

    def _take(self, event: MediaStreamEvent) -> str | None:
        """Acts on a message other than media; gives the reason when it was the last."""
        match event:
            case Connected() if not self._connected:
                self._connected = True
                self._tell(MessageReceived("connected", _connected(event)))
            case Started():
                return self._started(event)
            case Dtmf() | Mark():
                self._in_order(event)
            case Stopped() if self._in_order(event):
                return "stop"
            case Ignored(kind):
                self._complain(f"ignored a message of the unknown kind {printable(kind)!r}")
            case Malformed(reason):
                self._complain(f"could not read a message: {printable(reason)}")
        return None

    def _started(self, event: Started) -> str | None:
        if self._call is not None:
            self._complain("was started twice; the second start is ignored")
            return None
        try:
            self._visit.begin(event.call_sid, event.parameters)
        except TurnedAway as refusal:
            self._socket.close(POLICY_VIOLATION, str(refusal))
            return "it was not let in"
        self._tell_what_waited()
        if event.media_format != PHONE_AUDIO:
            self._complain(f"has audio we cannot handle: {event.media_format}")
            return "its audio is in a format we cannot handle"
        self._call = CallInfo(event.call_sid, event.stream_sid, event.tracks)
        self._tell(MessageReceived("start", _start(event)))
        self._chosen, complaints = self._switchboard.listening.choose(event.parameters)
        for complaint in complaints:
            self._complain(complaint)
        names = tuple(choices[0].service.traits.name for choices in self._chosen)
        caller, called = (event.parameters.get(name, "")[:LONGEST_NUMBER] for name in (CALLER, CALLED))
        self._tell(StreamBegun(names, caller, called))
        self._stream_sid = event.stream_sid
        self._sides = {track: Side(partial(self._tell_gap, track)) for track in event.tracks}
        self._made_sense = True
        self._transcribe(self._call)
        return None

    def _transcribe(self, call: CallInfo) -> None:
        """Connects the stream to the services, unless another stream of the call does the same."""
        tracks = self._switchboard.claim(self, call)
        if not tracks:
            if not self._standby:
                self._standby = True
                self._tell(StandsBy("another stream of this call brings the same tracks; this one stands by"))
            return
        self._standby = False
        if not self._chosen:
            self._tell(NotTranscribed(self._switchboard.listening.why_not))
        self._takers = [feed for choices in self._chosen for feed in self._feeds_for(choices, call, tracks)]
        if self._switchboard.recorder is not None:
            self._takers.append(self._switchboard.recorder.record(call, tracks))
        for track in tracks:
            self._sides[track].ears = [taker.ear(track) for taker in self._takers if track in taker.tracks]

    def _feeds_for(self, choices: tuple[Choice, ...], call: CallInfo, tracks: tuple[Track, ...]) -> Iterable[Feed]:
        at_once = first_choice(choices).service.traits.tracks
        together = self._settings.tracks == "together" and len(tracks) <= at_once
        for share in [tracks] if together else [(track,) for track in tracks]:
            yield Feed(
                call,
                share,
                choices,
                self._tell_of,
                chunk_ms=self._settings.chunk_ms,
                replay_s=self._settings.replay_s,
                patience=self._switchboard.patience,
            )

    def _media(self, event: Media) -> None:
        """Happens 100 times a second in each call, so what is rare is done elsewhere."""
        side = self._sides.get(event.track)
        if side is None or self._standby or event.stream_sid != self._stream_sid:
            side = self._side_of(event)
            if side is None:
                return
        if event.sequence != self._sequence + 1:
            self._count_missing(event.sequence)
        self._sequence = event.sequence
        self._made_sense = True
        self._frames += 1
        if self._frames == 1 or self._frames % TELL_EVERY == 0:
            self._tell(MediaReceived(self._frames, len(event.audio)))
        piece = side.timeline.place(event.timestamp_ms, event.audio)
        for hear in side.ears:
            hear(piece)

    def _tell_gap(self, track: Track, start: int, end: int) -> None:
        """Names what never came, if it may have held a word."""
        if end - start >= LEAST_GAP:
            self._tell(Gap(track, start // SAMPLES_PER_MS, end // SAMPLES_PER_MS, NOT_SENT))

    def _side_of(self, event: Media) -> Side | None:
        """Where audio goes that is not plainly this stream's; None for nowhere."""
        if self._call is None or event.stream_sid != self._call.stream_sid:
            self._in_order(event)
            return None
        if event.track not in self._sides:
            self._complain(f"brings the {event.track} track, which its start did not name")
            return None
        if self._standby:
            self._transcribe(self._call)
        return self._sides[event.track]

    def _in_order(self, event: Media | Dtmf | Mark | Stopped) -> bool:
        """Whether a message belongs to this stream; counts those that are missing before it."""
        if self._call is None:
            self._complain("sends audio before its start")
            return False
        if event.stream_sid != self._call.stream_sid:
            self._complain("brings messages of another stream, which are ignored")
            return False
        self._count_missing(event.sequence)
        self._sequence = event.sequence
        self._made_sense = True
        return True

    def _count_missing(self, sequence: int) -> None:
        """Twilio numbers all messages of a stream from its start on, which is 1."""
        self._missing_messages += max(0, sequence - self._sequence - 1)

    def _alive(self) -> None:
        self._made_sense = False
        self._heard_at = now = monotonic()
        self._deadline = now + self._settings.media_silence_s
        if now - self._told_at > TELL_LISTENED_EVERY and self._call is not None:
            self._told_at = now
            self._tell(Listened(self._until_ms, max((taker.unsent_ms for taker in self._takers), default=0)))

    def _end(self, reason: str) -> None:
        """Lets Twilio and the tracks go at once, then waits for the last words."""
        self._socket.close()
        self._switchboard.release(self)
        for taker in self._takers:
            taker.finish()
        try:
            gevent.joinall([gevent.spawn(taker.close) for taker in self._takers])
        finally:
            if self._call is not None:
                self._tell(self._summary(reason))
            else:
                log.info("a WebSocket that never started a stream is over: %s", printable(reason))

    def _summary(self, reason: str) -> StreamEnded:
        tallies = [tally for taker in self._takers for tally in taker.tallies]
        timelines = [side.timeline for side in self._sides.values()]
        return StreamEnded(
            reason=printable(reason),
            duration_ms=self._until_ms,
            frames=self._frames,
            missing_messages=self._missing_messages,
            audio_gaps=sum(timeline.gaps for timeline in timelines),
            missing_ms=sum(timeline.missing for timeline in timelines) // SAMPLES_PER_MS
            + sum(taker.cut_ms for taker in self._takers),
            words=sum(tally.words for tally in tallies),
            reconnects=sum(max(0, tally.connections - 1) for tally in tallies),
            lost_ms=sum(tally.lost_ms for tally in tallies),
            interim_delay_ms=_median(delay for tally in tallies for delay in tally.interim_delays),
            final_delay_ms=_median(delay for tally in tallies for delay in tally.final_delays),
        )

    def _tell(self, event: CallEvent) -> None:
        if self._visit.is_admitted:
            self._switchboard.hub.publish(Happened(self._call, event))
        else:
            self._untold.append(event)  # that the socket is open, and that it said `connected`

    def _tell_what_waited(self) -> None:
        waited, self._untold = self._untold, []
        for event in waited:
            self._tell(event)

    def _tell_of(self, service: str, event: CallEvent) -> None:
        self._switchboard.hub.publish(Happened(self._call, event, service))

    def _complain(self, complaint: str) -> None:
        """Says once what is wrong with the stream's messages; of a stranger's, nothing."""
        if not self._visit.is_admitted:
            return
        if complaint not in self._complaints and len(self._complaints) < COMPLAINTS_AT_MOST:
            self._complaints.add(complaint)
            log.warning("%s %s", _name(self._call), complaint)


def _name(call: CallInfo | None) -> str:
    return f"{printable(call.call_sid)}: the stream" if call else "a stream that has not started"


def _connected(event: Connected) -> str:
    return orjson.dumps({"event": "connected", "protocol": event.protocol, "version": event.version}).decode()


def _start(event: Started) -> str:
    """The message again, but for the values of its custom parameters, which may be tokens."""
    form = event.media_format
    start = {
        "accountSid": event.account_sid,
        "callSid": event.call_sid,
        "tracks": event.tracks,
        "mediaFormat": {"encoding": form.encoding, "sampleRate": form.sample_rate, "channels": form.channels},
        "customParameters": dict.fromkeys(event.parameters, "…"),
    }
    return orjson.dumps({"event": "start", "streamSid": event.stream_sid, "start": start}).decode()


def _median(delays: Iterable[int]) -> int | None:
    measured = list(delays)
    return round(median(measured)) if measured else None

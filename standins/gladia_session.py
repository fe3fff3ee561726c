"""One live session of the stand-in for Gladia: it outlives its connections, and with it do its ear and its clock."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Final

from standins.conversation import Conversation, PaceRules
from standins.ear import Ear, EarFactory, Heard, Phrase, SpeechBegan
from standins.gladia_messages import Shape, Speaker, dumps, utterance_of
from standins.gladia_options import LiveOptions
from standins.gladia_results import Record, job

MESSAGES_KEPT: Final = 1000  # of each session, the newest


@dataclass(frozen=True, slots=True)
class Rules(PaceRules):
    """Gladia's numbers, and what it leaves open. Audio may come as fast as it likes."""

    # Not in Gladia's documentation: https://github.com/pipecat-ai/pipecat/pull/1643 has found it.
    silence_limit_s: float = 30.0
    session_limit_s: float = 3 * 3600.0
    resumable_for_s: float = 60.0  # how long Gladia waits for a lost client is not documented
    concurrency: int = 1000  # sessions at once; Gladia's plans have 1, 30 or more
    processing_answers: int = 1  # how often a session that is over is still "processing" when it is asked about
    # https://docs.gladia.io's asyncapi.yaml calls the range inclusive; Gladia's own SDK takes its end for an offset.
    acks_inclusive: bool = True
    # Whether what was said while no client was connected is said to the next one is not documented.
    holds_answers: bool = True


class State(Enum):
    """How far a session has come."""

    WAITING = auto()  # for its first client
    RECORDING = auto()  # also while its client is lost
    STOPPING = auto()  # the last audio is being heard
    OVER = auto()


class Session:
    """One session, from the POST that made it to its end."""

    def __init__(self, options: LiveOptions, rules: Rules, note: Callable[[], None]) -> None:
        self.id = options.session_id
        self.options = options
        self.token = secrets.token_urlsafe(24)
        self.speaker = Speaker(self.id, options)
        self.record = Record(options)
        self.state = State.WAITING
        self.created = datetime.now(UTC)
        self.ended: datetime | None = None
        self.ends_at = time.monotonic() + rules.session_limit_s
        self.taken = 0  # bytes of audio
        self.rest = b""  # of them, what is not a whole sample of every channel
        self._rules = rules
        self._note = note  # that something has changed
        self._ear: Ear | None = None
        self._client: Conversation[Any, Any] | None = None
        self._left_at = time.monotonic()
        self._held: list[str] = []  # messages that wait for a client
        self._messages: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._utterances = [0] * options.channels  # finals so far
        self._speaking: set[int] = set()  # channels
        self._times_asked = 0
        self._lock = threading.Lock()

    # --- Its clients ---

    @property
    def is_open(self) -> bool:
        """Whether it takes audio, now or when a client comes back."""
        return self.state in (State.WAITING, State.RECORDING)

    @property
    def is_left(self) -> bool:
        """Whether nobody is there, though nobody has said that it is over."""
        return self.is_open and self._client is None

    def is_heard_by(self, client: Conversation[Any, Any]) -> bool:
        """Whether this is its client, and not one that was lost before."""
        return self._client is client

    def attach(self, client: Conversation[Any, Any], make_ear: EarFactory) -> Ear:
        """A client has come, for the first time or again; one that was there before is lost."""
        with self._lock:
            before, self._client = self._client, client
            held, self._held = self._held, []
            is_new = self.state is State.WAITING
            self.state = State.RECORDING
            if self._ear is None:
                self._ear = make_ear(self.options, self.emit)
        if before is not None:
            before.client.line.cut()
        if is_new:
            self.tell(self.speaker.event("start_session"))
            self.tell(self.speaker.event("start_recording"))
        for text in held:
            client.say(text)
        return self._ear

    def detach(self, client: Conversation[Any, Any]) -> None:
        """A client has gone."""
        with self._lock:
            if self._client is client:
                self._client = None
                self._left_at = time.monotonic()

    def expire(self) -> None:
        """Ends it if its client has been gone for too long. That is looked at when someone asks for a session."""
        if self.is_left and time.monotonic() - self._left_at > self._rules.resumable_for_s:
            self.finish()

    # --- Its end ---

    def finish(self) -> None:
        """All audio has come: what was heard of it is said, and the session is over."""
        with self._lock:
            if not self.is_open:
                return
            self.state = State.STOPPING
        if self._ear is not None:
            self._ear.finish()
        self.close()
        self.record.audio_s = self.taken / self.options.bytes_a_ms / 1000
        self.ended = datetime.now(UTC)
        self.state = State.OVER
        self._note()

    def close(self) -> None:
        """Frees what it holds; that frees a thread that waits for the ear, too."""
        if self._ear is not None:
            self._ear.close()

    def last_words(self) -> list[Shape]:
        """What is said when it is over."""
        speaker, record = self.speaker, self.record
        said = [
            speaker.recording_ended(self.taken),
            speaker.event("post_transcript", record.transcription()),
        ]
        if self.options.summary:
            said.append(speaker.event("post_summarization", {"results": record.summary()}) | {"error": None})
        return [*said, speaker.event("post_final_transcript", record.result()), speaker.event("end_session")]

    def job(self) -> Shape:
        """The answer to the question how it is."""
        status = "queued" if self.state is State.WAITING else "processing"
        if self.state is State.OVER:
            self._times_asked += 1
            status = "done" if self._times_asked > self._rules.processing_answers else "processing"
        if status != "done":
            return job(self.id, self.options, status, self.created, None, None)
        result = self.record.result() | {"messages": list(self._messages)}
        return job(self.id, self.options, status, self.created, self.ended, result)

    # --- What it says ---

    def tell(self, message: Shape) -> None:
        """Says a message that was asked for, now or to the next client."""
        if not self.speaker.wants(message):
            return
        text = dumps(message)
        with self._lock:
            self._messages.append(text)
            client = self._client
            if client is None and self._rules.holds_answers:
                self._held.append(text)
        if client is not None:
            client.say(text)

    def emit(self, heard: Heard) -> None:
        """Says what was heard. The ear's own thread may call this."""
        if isinstance(heard, SpeechBegan):
            self._begin_speech(heard.channel, heard.at_ms)
        elif isinstance(heard, Phrase):
            if heard.words:
                self._begin_speech(heard.channel, heard.words[0].start_ms)
            if heard.ends_speech:
                self._end_speech(heard.channel, heard.words[-1].end_ms if heard.words else heard.end_ms)
            if heard.words:  # of silence, nothing is said
                self._tell_words(heard)

    def _begin_speech(self, channel: int, at_ms: int) -> None:
        if channel not in self._speaking:
            self._speaking.add(channel)
            self.tell(self.speaker.speech("speech_start", at_ms, channel))

    def _end_speech(self, channel: int, at_ms: int) -> None:
        if channel in self._speaking:
            self._speaking.remove(channel)
            self.tell(self.speaker.speech("speech_end", at_ms, channel))

    def _tell_words(self, phrase: Phrase) -> None:
        utterance = utterance_of(phrase, self.options.language)
        utterance_id = f"{phrase.channel:02d}_{self._utterances[phrase.channel]:08x}"
        if phrase.is_final:
            self._utterances[phrase.channel] += 1
            self.record.utterances.append(utterance)
        self.tell(self.speaker.transcript(utterance_id, utterance, is_final=phrase.is_final))
        for message in self.speaker.additions(utterance_id, utterance) if phrase.is_final else ():
            self.tell(message)

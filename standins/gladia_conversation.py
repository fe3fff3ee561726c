"""One connection to a session of the stand-in for Gladia: what the client sends is checked, taken and acknowledged."""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Final

from websockets.exceptions import ConnectionClosed

from standins.conversation import Client, Conversation
from standins.ear import Ear, Heard
from standins.gladia_messages import GARBAGE, Shape, dumps
from standins.gladia_options import LiveOptions
from standins.gladia_session import Rules, Session

# A guess: Gladia publishes no codes. Its SDK does not come back after those from 4400 to 4499.
TIMED_OUT: Final = 4408


class LiveConversation(Conversation[LiveOptions, Rules]):
    """One client of a session, from its first message to its last."""

    GARBAGE = GARBAGE

    def __init__(self, client: Client, session: Session, rules: Rules) -> None:
        super().__init__(client, session.options, rules)
        self._session = session

    # --- The session's ear ---

    def open_ear(self) -> Ear:
        """The session's, which goes on from where a connection was lost."""
        self.rest = self._session.rest
        return self._session.attach(self, self.client.make_ear)

    def hush(self) -> None:
        """Leaves the session, which waits for the client to come back."""
        self._session.detach(self)
        if self.client.stopping.is_set():
            self._session.close()

    def emit(self, heard: Heard) -> None:
        """The session says it, to whoever is its client."""
        self._session.emit(heard)

    # --- Audio ---

    def hear(self, audio: bytes) -> bool:
        """Takes audio in a binary message, or out of a text."""
        if not self._session.is_heard_by(self):  # the client is back already, on another connection
            return False
        if time.monotonic() > self._session.ends_at:
            self._end_long_session()
            return False
        return super().hear(audio)

    def take(self, audio: bytes) -> bool:
        """Takes a message as a whole, or, when it goes beyond a drop, not at all."""
        drop = self.fault.drop
        if drop is None or self.connection.audio_ms <= drop.after_ms:
            self._acknowledge(audio)
            self.let_hear(audio)
            self._session.rest = self.rest
        return not self.is_drop_due(self.connection.audio_ms) or self.drop()

    def _acknowledge(self, audio: bytes) -> None:
        session, drop = self._session, self.fault.drop
        start = session.taken
        session.taken += len(audio)
        is_lost = drop is not None and self.connection.audio_ms > drop.after_ms - self.fault.acks_lost_ms
        if audio and not is_lost:  # whether one without audio is acknowledged is not documented
            self._tell(session.speaker.audio_taken(start, session.taken, is_inclusive=self.rules.acks_inclusive))

    def deadline(self) -> float:
        """Audio must come, and the session must end."""
        since = self.opened_at if self.heard_at is None else self.heard_at
        return min(since + self.rules.silence_limit_s, self._session.ends_at)

    def close_for_silence(self) -> None:
        """There was no audio for too long, or the session is too long."""
        if self.deadline() == self._session.ends_at:
            self._end_long_session()
        else:
            self.complain(f"no audio for {self.rules.silence_limit_s:g} s")
            self.close(TIMED_OUT, "no audio has come in time")

    def _end_long_session(self) -> None:
        self.complain(f"a session of more than {self.rules.session_limit_s:g} s")
        self._session.finish()
        self.close(TIMED_OUT, "the session has lasted too long")

    # --- Text ---

    def read(self, text: str) -> bool:
        """Takes a text message."""
        match _load(text):
            case {"type": "audio_chunk", "data": {"chunk": str(chunk)}}:
                return self._hear_text(chunk)
            case {"type": "stop_recording"}:
                return self.end()
            case _:
                self.complain("a text message that is not known")
                self._tell(self._session.speaker.error("this message is not known"))
                return True

    def _hear_text(self, chunk: str) -> bool:
        try:
            audio = base64.b64decode(chunk, validate=True)
        except (binascii.Error, ValueError):
            self.complain("audio that is not Base64")
            self._tell(self._session.speaker.audio_refused("the chunk is not Base64"))
            return True
        self.client.ledger.note_audio(self.connection, audio)
        return self.hear(audio)

    # --- The end ---

    def finish(self) -> None:
        """Acknowledges the stop, and has the session say the last of what it heard."""
        self._tell(self._session.speaker.stop_taken(self._session.taken))
        self._session.finish()

    def say_goodbye(self) -> None:
        """What is known when all was heard, and 1000."""
        if self._session.is_open:  # the last results are cut: they are only to be asked for
            self._session.detach(self)
            self._session.finish()
        else:
            for message in self._session.last_words():
                self._session.tell(message)
        if any(_is_audio(straggler) for straggler in self.close(1000)):
            self.complain("audio after stop_recording")

    def lose(self, closed: ConnectionClosed) -> None:
        """A client that leaves with 1000 has stopped the recording, says https://docs.gladia.io's quickstart."""
        super().lose(closed)
        if closed.rcvd_then_sent and closed.rcvd is not None and closed.rcvd.code == 1000:
            self._session.finish()

    def _tell(self, message: Shape) -> None:
        """Says a message that is for this connection only."""
        if self._session.speaker.wants(message):
            self.say(dumps(message))


def _load(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_audio(message: str | bytes) -> bool:
    if isinstance(message, bytes):
        return True
    match _load(message):
        case {"type": "audio_chunk"}:
            return True
        case _:
            return False

"""The terminal: transcripts as lines on standard output, with colours where someone looks at them."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from io import FileIO
from typing import Final, TextIO

import gevent
from gevent.event import Event
from rich.console import Console as Rich
from rich.text import Text

from relay.events import (
    Complained,
    Gap,
    Ignored,
    Malformed,
    MediaReceived,
    MessageReceived,
    NotTranscribed,
    Remark,
    ServiceBack,
    ServiceConnected,
    ServiceConnecting,
    ServiceDown,
    ServiceLost,
    ServiceRefused,
    ServiceReplaced,
    SessionBegun,
    SocketAccepted,
    SpeechStarted,
    StreamBegun,
    StreamEnded,
    StreamReported,
    Summary,
    Transcript,
    Translation,
    UtteranceEnded,
)
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.text import printable

LINES_KEPT: Final = 5000  # for a terminal that is held up (Ctrl-S, a pager); what comes on top is dropped and counted
LINES_EVERY: Final = 0.05  # seconds between two writes: waking a thread for each line costs more than all else of it
LONGEST_TEXT: Final = 10_000  # characters of one transcript
LONGEST_MESSAGE: Final = 2000  # characters of one message of Twilio's
RULE: Final = "=" * 60


class Outlet:
    """Lines to a file, written by a real thread: a terminal that is held up holds up no call."""

    def __init__(self, stream: TextIO) -> None:
        self.is_terminal = stream.isatty()
        self._file = open(stream.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115  # lives as long as we
        with suppress(AttributeError, OSError):  # neither on every Windows
            os.set_blocking(stream.fileno(), True)  # whoever started us may have changed that
        self._lines: list[str] = []
        self._dropped = 0
        self._closed = False
        self._wake = Event()
        self._greenlet = gevent.spawn(self._run)

    def write(self, line: str) -> None:
        """Queues a line. Never waits."""
        if len(self._lines) < LINES_KEPT:
            self._lines.append(line)
        else:
            self._dropped += 1
        self._wake.set()

    def close(self, within: float) -> None:
        """Waits, for so many seconds, until what was queued is written."""
        self._closed = True
        self._wake.set()
        self._greenlet.join(within)

    def _run(self) -> None:
        pool = gevent.get_hub().threadpool
        while self._lines or not self._closed:
            self._wake.wait()
            self._wake.clear()
            lines, self._lines = self._lines, []
            if self._dropped:
                lines.append(f"({self._dropped} lines were dropped here while nobody read them)")
                self._dropped = 0
            pool.apply(_write, (self._file, "".join(f"{line}\n" for line in lines).encode(errors="replace")))
            if not self._closed:
                gevent.sleep(LINES_EVERY)


def _write(file: FileIO, data: bytes) -> None:
    with suppress(OSError):  # nobody reads any more (`| head`); the calls go on
        while data:
            data = data[file.write(data) :]


class OutletHandler(logging.Handler):
    """Log records as lines of an outlet."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        """Queues the record. Never waits."""
        self._outlet.write(self.format(record))


class Console:
    """Shows what happens on the calls. A listener of the hub."""

    def __init__(self, outlet: Outlet, *, verbose: bool = False) -> None:
        self._outlet = outlet
        self._verbose = verbose
        self._live: dict[str, bool] = {}  # stream SIDs, and whether several services listen side by side
        self._rich = Rich(force_terminal=True, highlight=False, soft_wrap=True) if outlet.is_terminal else None

    def hear(self, happened: Happened) -> None:
        """Shows one event as a line, or as none."""
        call, event = happened.call, happened.event
        if call is not None and isinstance(event, StreamBegun):
            self._live[call.stream_sid] = len(event.services) > 1
        is_named = hasattr(event, "service")  # by the line itself
        whose = self._whose(call, "" if is_named else happened.service)
        if call is not None and isinstance(event, StreamEnded):
            self._live.pop(call.stream_sid, None)
            whose = ""  # it names its call itself
        for line, style in _lines(call, event, verbose=self._verbose):
            self.say(whose + line, style)

    def say(self, line: str, style: str = "") -> None:
        """Shows a line."""
        if self._rich is not None:
            with self._rich.capture() as capture:
                self._rich.print(Text(line, style=style), end="")
            line = capture.get()
        self._outlet.write(line)

    def _whose(self, call: CallInfo | None, service: str) -> str:
        """Which call a line belongs to, when there is more than one, and which service, when several listen to it."""
        if call is None:
            return ""
        of_call = f"{short(call.call_sid)} " if len(self._live) > 1 else ""
        of_service = f"{service}: " if service and self._live.get(call.stream_sid) else ""
        return of_call + of_service


def short(call_sid: str) -> str:
    """A call's SID, short enough for the head of a line."""
    return printable(call_sid if len(call_sid) <= 10 else f"{call_sid[:2]}..{call_sid[-6:]}")


def _lines(call: CallInfo | None, event: object, *, verbose: bool) -> list[tuple[str, str]]:
    """What there is to say of an event, as lines with their styles."""
    match event:
        case Transcript() if call is not None and event.text:
            return [_transcript(call, event)]
        case SocketAccepted(path):
            return [
                (line, "bold") for line in (RULE, "NEW WEBSOCKET CONNECTION ACCEPTED", f"WebSocket path: {path}", RULE)
            ]
        case MessageReceived(kind, message):
            return [(f"{kind.capitalize()} Message received: {printable(message, LONGEST_MESSAGE)}", "dim")]
        case MediaReceived(1, size):
            return [(f"Media message received: {size} bytes", "dim")]
        case MediaReceived(count, _) if verbose:
            return [(f"Media messages received: {count}", "dim")]
        case ServiceConnecting(service, attempt):
            return [(f"{service} connection initiated..." + (f" (attempt {attempt})" if attempt > 1 else ""), "cyan")]
        case ServiceConnected(service, from_ms):
            replayed = f", replaying from {_seconds(from_ms)}" if from_ms else ""
            return [(f"Connected to {service} WebSocket{replayed}", "cyan")]
        case ServiceLost(service, reason, retry_in_s):
            return [(f"{service} connection lost: {reason}. Trying again in {retry_in_s:.1f} s.", "yellow")]
        case SessionBegun(service, session_id):
            return [(f"{service} session ID: {printable(session_id)}", "dim")]
        case ServiceReplaced(service, by, reason, from_ms):
            return [(f"{service} is given up: {reason}. {by} goes on from {_seconds(from_ms)}.", "yellow")]
        case ServiceDown(service, reason):
            return [(f"{service} is taken for down ({reason}): new calls go to another service for now.", "yellow")]
        case ServiceBack(service):
            return [(f"{service} is well again.", "cyan")]
        case Translation(track, text, start_ms, end_ms, language):
            said = printable(text, LONGEST_TEXT)
            return [(f"[{printable(language).upper()}] {track.capitalize()}: {said} [{start_ms} - {end_ms}]", "green")]
        case Remark(track, kind, text, start_ms, end_ms):
            return [(f"[{kind.upper()}] {track.capitalize()}: {printable(text)} [{start_ms} - {end_ms}]", "dim")]
        case Summary(text):
            return [(f"[SUMMARY] {printable(text, LONGEST_TEXT)}", "green")]
        case ServiceRefused(_, reason) | NotTranscribed(reason):
            return [(f"Not transcribed: {reason}.", "red")]
        case StreamReported(call_sid, "stream-error", error, advice):
            return [(f"Twilio could not stream {short(call_sid)}: {error or 'it does not say why'}. {advice}", "red")]
        case Gap(track, start_ms, end_ms, reason):
            span = f"from {_seconds(start_ms)} to {_seconds(end_ms)}"
            return [(f"[MISSING] {track.capitalize()}: {span} ({reason})", "red")]
        case Complained(reason):
            return [(f"The service complained: {printable(reason)}", "yellow")]
        case Malformed(reason):
            return [(f"The service sent something unreadable: {printable(reason)}", "yellow")]
        case StreamEnded():
            return [(_summary(call, event), "bold")]
    return _verbose_lines(event) if verbose else []


def _verbose_lines(event: object) -> list[tuple[str, str]]:
    match event:
        case StreamReported(call_sid, what):
            return [(f"Twilio reports {what} of {short(call_sid)}", "dim")]
        case SpeechStarted(track, at_ms):
            return [(f"{track.capitalize()} speech started at {_seconds(at_ms)}", "dim")]
        case UtteranceEnded(track, last_word_ms):
            return [(f"{track.capitalize()} utterance ended at {_seconds(last_word_ms)}", "dim")]
        case Ignored(kind):
            return [(f"The service sent {printable(kind)}, which is not needed", "dim")]
    return []


def _transcript(call: CallInfo, transcript: Transcript) -> tuple[str, str]:
    """A stream of one track needs no names; with two, each line says whose it is and when."""
    text = printable(transcript.text, LONGEST_TEXT)
    kind, style = ("FINAL", "") if transcript.is_final else ("INTERIM", "dim")
    if len(call.tracks) == 1:
        return f"[{kind}] Transcription: {text}", style
    times = f" {_span(transcript)}" if transcript.is_final else ""
    return f"[{kind}] {transcript.track.capitalize()}: {text}{times}", style


def _span(transcript: Transcript) -> str:
    """When it was said: from the first word to the last, where the service tells words apart from the pauses around."""
    words = transcript.words
    start, end = (words[0].start_ms, words[-1].end_ms) if words else (transcript.start_ms, transcript.end_ms)
    return f"[{start} - {end}]"


def _summary(call: CallInfo | None, ended: StreamEnded) -> str:
    delay = "none" if ended.interim_delay_ms is None else f"{ended.interim_delay_ms} ms"
    return ", ".join(
        (
            f"Call {short(call.call_sid) if call else 'without a name'} ended ({ended.reason}): "
            f"{_seconds(ended.duration_ms)}",
            f"{ended.frames} frames{f' ({ended.missing_messages} messages missing)' if ended.missing_messages else ''}",
            f"{ended.audio_gaps} audio gaps ({ended.missing_ms} ms)",
            f"{ended.words} words",
            f"{ended.reconnects} reconnects",
            f"{ended.lost_ms} ms lost",
            f"median interim delay {delay}",
        )
    )


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"

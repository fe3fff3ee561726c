"""The demonstration: a simulated call, the relay, and a speech service on this machine, in one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from relay.admission import Admission, TwilioSettings
from relay.call import Switchboard
from relay.console import Console
from relay.errors import RelayError
from relay.events import StreamEnded, Track, Transcript
from relay.hub import Happened, Hub
from relay.listening import Listening
from relay.passes import Passes
from relay.protocol import SpeechService
from relay.provider import Provider
from relay.settings import Settings
from relay.web.routes import MEDIA_PATH, create_app
from relay.web.server import Server, reached_by
from standins.assemblyai import AssemblyAIServer
from standins.deepgram import ListenServer
from standins.gladia import GladiaServer
from standins.recognizer import HOW_OFTEN_IT_ERRS, NotInstalled, Recognizer
from standins.score import spoken_words, word_errors, words_of
from standins.simulation import simulate
from standins.wav import read

SAMPLE_CALL: Final = Path(__file__).parent / "audio" / "order-status-call.wav"
SERVERS: Final = {"deepgram": ListenServer, "gladia": GladiaServer, "assemblyai": AssemblyAIServer}
LAST_WORDS_WITHIN: Final = 60.0  # seconds for the recogniser on a slow machine


class Minutes:
    """Keeps what was said on a call. A listener of the hub."""

    def __init__(self) -> None:
        self.words: dict[Track, list[str]] = defaultdict(list)
        self.ended: StreamEnded | None = None

    def hear(self, happened: Happened) -> None:
        """Takes finals and the end."""
        match happened.event:
            case Transcript() as transcript if transcript.is_final:
                self.words[transcript.track] += words_of(transcript.text)
            case StreamEnded() as ended:
                self.ended = ended


def demonstrate(
    recording: Path,
    vocabulary: str,
    service: str,
    settings: Settings,
    console: Console,
    service_at: Callable[[str], SpeechService],
    announce: Callable[[Server], None],
) -> None:
    """Plays a recording through the whole chain, shows what is heard, and says how well it went."""
    audio = read(recording)
    spoken = spoken_words(recording)
    try:
        recognizer = Recognizer(vocabulary)
    except NotInstalled as missing:
        raise RelayError(str(missing)) from None
    minutes = Minutes()
    with SERVERS[service](ear=recognizer) as speech:
        listens = service_at(speech.url)
        name = listens.traits.name
        console.say(f"A speech service for trying out listens on {speech.url}. It is not {name}:", "yellow")
        console.say(f"with this vocabulary, {HOW_OFTEN_IT_ERRS[vocabulary]}.", "yellow")
        listening = Listening((Provider(listens),))
        switchboard = Switchboard(settings, listening, Hub(console.hear, minutes.hear))
        passes = Passes(Path(settings.access_folder))
        admission = Admission(passes, TwilioSettings(), settings)
        server = Server(create_app(switchboard, admission=admission), replace(settings, port=0))
        announce(server)
        try:
            simulate(f"ws://{reached_by(settings)}:{server.port}{MEDIA_PATH}/{passes.stream_key}", audio)
        finally:
            server.close()
            switchboard.quiet.wait(LAST_WORDS_WITHIN)
    for line in _verdict(minutes, spoken):
        console.say(line, "bold")


def _verdict(minutes: Minutes, spoken: Mapping[Track, list[str]] | None) -> list[str]:
    lines = []
    if spoken is not None:
        wrong = sum(word_errors(words, minutes.words[track]) for track, words in spoken.items())
        total = sum(map(len, spoken.values()))
        lines.append(f"Words that differ from the text: {wrong} of {total} ({wrong / max(1, total):.1%})")
    if minutes.ended is not None:
        interim, final = minutes.ended.interim_delay_ms, minutes.ended.final_delay_ms
        lines.append(f"Median delay of interims: {_ms(interim)}; of finals: {_ms(final)}")
    return lines


def _ms(delay: int | None) -> str:
    return "none came" if delay is None else f"{delay} ms"

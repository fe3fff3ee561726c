"""The local recogniser hears the sample call through the service; wrong codecs, swapped tracks and lost audio show."""

from __future__ import annotations

import codecs
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
import wave
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from websockets.sync.client import connect

from relay.audio import SAMPLES_PER_MS, encode_mulaw, silence
from relay.events import Track
from standins.deepgram import Drop, Fault, ListenServer, Rules
from standins.ear import Heard, Phrase, SpeechBegan, UtteranceOver, Word
from standins.listen_options import ListenOptions
from standins.recognizer import NotInstalled, Recognizer
from standins.score import spoken_words, word_errors
from standins.sphinx import FINAL_AT_LATEST_MS, Listener, Upsampler, heard_line, read_heard
from standins.vocabulary import GENERAL_WORDS, general_vocabulary, is_rude, sample_call_vocabulary

if importlib.util.find_spec("pocketsphinx") is None:
    pytest.skip("needs requirements-demo.txt", allow_module_level=True)

ROOT: Final = Path(__file__).parent.parent
SAMPLE: Final = ROOT / "standins" / "audio" / "order-status-call.wav"
CHUNK_MS: Final = 100
AT_ONCE: Final = Rules(pace=math.inf)
SOON: Final = 60.0  # seconds; the whole sample takes about 2
BEGINNING_MS: Final = 20_000  # of the sample, which is enough to tell right from wrong


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer("call")


@pytest.fixture(scope="module")
def server(recognizer: Recognizer) -> Iterator[ListenServer]:
    with ListenServer(ear=recognizer, rules=AT_ONCE) as server:
        yield server
        assert server.violations == []


def sample_pcm() -> array[int]:
    with wave.open(str(SAMPLE)) as recording:
        return array("h", recording.readframes(recording.getnframes()))


def beginning(audio: bytes, bytes_a_ms: int) -> bytes:
    return audio[: BEGINNING_MS * bytes_a_ms]


@dataclass
class Answers:
    """What came back for one stream."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    def finals(self, channel: int) -> list[dict[str, Any]]:
        return [
            message
            for message in self.messages
            if message["type"] == "Results" and message["is_final"] and message["channel_index"][0] == channel
        ]

    def words(self, channel: int) -> list[dict[str, Any]]:
        return [word for final in self.finals(channel) for word in final["channel"]["alternatives"][0]["words"]]

    def wrong(self, channel: int, spoken: list[str]) -> float:
        """The part of the words that is wrong."""
        return word_errors(spoken, [word["word"] for word in self.words(channel)]) / len(spoken)


def transcribe(url: str, audio: bytes, bytes_a_ms: int, **options: object) -> Answers:
    """Sends all audio as fast as it is taken, and reads to the end."""
    query = {"model": "nova-3", "encoding": "mulaw", "sample_rate": 8000} | options
    heard = Answers()
    headers = {"Authorization": "Token any"}
    with connect(f"{url}/v1/listen?{urlencode(query)}", additional_headers=headers, compression=None) as client:

        def read() -> None:
            heard.messages.extend(json.loads(message) for message in client)

        reader = threading.Thread(target=read)
        reader.start()
        for at in range(0, len(audio), CHUNK_MS * bytes_a_ms):
            client.send(audio[at : at + CHUNK_MS * bytes_a_ms])
        client.send('{"type":"CloseStream"}')
        reader.join(SOON)
    assert heard.messages
    assert heard.messages[-1]["type"] == "Metadata"
    return heard


def spoken(track: Track, until_ms: int = 10**9) -> list[dict[str, Any]]:
    """The words of the sample that were said by then, with their times."""
    turns = json.loads(SAMPLE.with_suffix(".json").read_text())["segments"]
    words = [word for turn in turns if turn["track"] == track for word in turn["words"]]
    return [word for word in words if word["end"] * 1000 <= until_ms]


# --- Through the service ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both_tracks(server: ListenServer) -> Answers:
    """The whole sample call on one connection."""
    options = {"channels": 2, "multichannel": "true", "interim_results": "true", "vad_events": "true"}
    audio = encode_mulaw(sample_pcm())
    return transcribe(server.url, audio, 2 * SAMPLES_PER_MS, **options, utterance_end_ms=1000)


@pytest.mark.parametrize(("channel", "track"), list(enumerate(Track)))
def test_few_words_of_either_track_are_wrong(both_tracks: Answers, channel: int, track: Track) -> None:
    by_track = spoken_words(SAMPLE)
    assert by_track is not None
    assert both_tracks.wrong(channel, by_track[track]) < 0.15


def test_one_word_in_twenty_is_wrong_in_all(both_tracks: Answers) -> None:
    by_track = spoken_words(SAMPLE)
    assert by_track is not None
    wrong = [both_tracks.wrong(channel, by_track[track]) * len(by_track[track]) for channel, track in enumerate(Track)]
    assert sum(wrong) / sum(map(len, by_track.values())) < 0.06  # 0.044 with pocketsphinx 5.1.1


@pytest.mark.parametrize(("channel", "track"), list(enumerate(Track)))
def test_words_come_with_the_times_they_were_said(both_tracks: Answers, channel: int, track: Track) -> None:
    said = spoken(track)
    matched = 0
    for word in both_tracks.words(channel):
        nearest = min(
            (abs(word["start"] - one["start"]) for one in said if one["word"] == word["word"]), default=math.inf
        )
        matched += nearest <= 0.25
    assert matched >= 0.85 * len(said)


@pytest.mark.parametrize("channel", [0, 1])
def test_finals_follow_one_another_to_the_end(both_tracks: Answers, channel: int) -> None:
    end = 0.0
    for final in both_tracks.finals(channel):
        assert final["start"] == pytest.approx(end)
        end = final["start"] + final["duration"]
    assert end == pytest.approx(both_tracks.messages[-1]["duration"])
    assert max(final["duration"] for final in both_tracks.finals(channel)) < FINAL_AT_LATEST_MS / 1000


def test_interims_speech_starts_and_utterance_ends_come_too(both_tracks: Answers) -> None:
    interims = [message for message in both_tracks.messages if message.get("is_final") is False]
    begun = [message for message in both_tracks.messages if message["type"] == "SpeechStarted"]
    ended = [message for message in both_tracks.messages if message["type"] == "UtteranceEnd"]
    assert len(interims) > 40
    assert (len(begun), len(ended)) == (12, 12)  # as many as turns
    assert all(message["channel"][1] == 2 for message in begun + ended)


def test_confidence_is_a_judgement(both_tracks: Answers) -> None:
    confidences = [word["confidence"] for channel in (0, 1) for word in both_tracks.words(channel)]
    assert all(0 <= confidence <= 1 for confidence in confidences)
    assert len(set(confidences)) > 10


@pytest.mark.parametrize(("side", "track"), list(enumerate(Track)))
def test_a_track_alone_is_heard_as_well(server: ListenServer, side: int, track: Track) -> None:
    audio = beginning(encode_mulaw(sample_pcm()[side::2]), SAMPLES_PER_MS)
    heard = transcribe(server.url, audio, SAMPLES_PER_MS)
    assert heard.wrong(0, [word["word"] for word in spoken(track, BEGINNING_MS)]) < 0.25


def test_linear16_is_heard_as_well(server: ListenServer) -> None:
    audio = beginning(sample_pcm()[1::2].tobytes(), 2 * SAMPLES_PER_MS)
    heard = transcribe(server.url, audio, 2 * SAMPLES_PER_MS, encoding="linear16")
    assert heard.wrong(0, [word["word"] for word in spoken(Track.OUTBOUND, BEGINNING_MS)]) < 0.15


def test_swapped_tracks_show(server: ListenServer) -> None:
    left, right = sample_pcm()[::2], sample_pcm()[1::2]
    swapped = array("h", [0]) * (2 * len(left))
    swapped[::2], swapped[1::2] = right, left
    audio = beginning(encode_mulaw(swapped), 2 * SAMPLES_PER_MS)
    heard = transcribe(server.url, audio, 2 * SAMPLES_PER_MS, channels=2, multichannel="true")
    for channel, track in enumerate(Track):
        assert heard.wrong(channel, [word["word"] for word in spoken(track, BEGINNING_MS)]) > 0.6


def test_tracks_written_one_after_the_other_show(server: ListenServer) -> None:
    """Frames of both tracks in one mono stream: the mistake of https://github.com/jremi/twilio-media-stream-save-audio-file/issues/1."""
    audio = encode_mulaw(sample_pcm())
    left, right = audio[::2], audio[1::2]
    frames = range(0, len(left), 160)
    mixed = b"".join(left[at : at + 160] + right[at : at + 160] for at in frames)
    heard = transcribe(server.url, beginning(mixed, 2 * SAMPLES_PER_MS), SAMPLES_PER_MS)
    assert heard.wrong(0, [word["word"] for word in spoken(Track.OUTBOUND, BEGINNING_MS)]) > 0.6


def test_the_wrong_codec_shows(server: ListenServer) -> None:
    audio = beginning(sample_pcm()[1::2].tobytes(), 2 * SAMPLES_PER_MS)
    heard = transcribe(server.url, audio, SAMPLES_PER_MS)  # 16-bit samples, declared as mu-law
    assert heard.wrong(0, [word["word"] for word in spoken(Track.OUTBOUND, BEGINNING_MS)]) > 0.6


def test_a_lost_connection_leaves_no_child_behind(recognizer: Recognizer) -> None:
    with ListenServer(ear=recognizer, rules=AT_ONCE, faults=[Fault(drop=Drop(1000, "reset"))]) as server:
        with connect(
            f"{server.url}/v1/listen?encoding=mulaw&sample_rate=8000",
            additional_headers={"Authorization": "Token any"},
            compression=None,
        ) as client:
            client.send(silence(16_000))
            server.wait_for(lambda: server.connections[0].is_over, within=SOON)
    ear = server.connections[0].ear
    assert ear is not None
    with pytest.raises((OSError, ValueError)):  # nobody is there to be told
        ear.hear([silence(8)])


def test_the_program_runs_by_itself_and_ends_when_told() -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "standins.deepgram", "--port", "0", "--key", "any"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
    )
    assert program.stdout is not None
    try:
        first, second = program.stdout.readline(), program.stdout.readline()
        assert "for trying out" in first
        assert "4 words in 100" in second
        url = next(word for word in first.replace(",", "").replace(": ", " ").split() if word.startswith("ws://"))
        with connect(
            f"{url}/v1/listen?encoding=mulaw&sample_rate=8000",
            additional_headers={"Authorization": "Token any"},
            compression=None,
        ) as client:
            client.send(silence(500 * SAMPLES_PER_MS))
            client.send('{"type":"CloseStream"}')
            assert [json.loads(message)["type"] for message in client][-1] == "Metadata"
    finally:
        program.send_signal(signal.SIGTERM)
        assert program.wait(SOON) == 0


def test_without_pocketsphinx_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"pip install -r requirements-demo\.txt"):
        Recognizer()


# --- One channel --------------------------------------------------------------------------------------------


class Parrot:
    """Stands in for the decoder: hears one word in everything."""

    def __init__(self) -> None:
        self.samples = 0

    def start_utt(self) -> None:
        self.samples = 0

    def process_raw(self, pcm: bytes) -> None:
        assert pcm  # pocketsphinx raises IndexError for b""
        self.samples += len(pcm) // 2

    def end_utt(self) -> None: ...

    def hyp(self) -> bool:
        return self.samples > 0

    def seg(self) -> list[Any]:
        return [
            Segment("<s>", 0, 4, 1.0),
            Segment("polly(2)", 5, 24, 0.25),
            Segment("[NOISE]", 25, 30, 1.0),
            Segment("<sil>", 31, 40, 1.0),
        ]


@dataclass(frozen=True)
class Segment:
    word: str
    start_frame: int
    end_frame: int
    prob: float


def listened(play: Callable[[Listener], None], **named: Any) -> list[Heard]:
    said: list[Heard] = []
    listener = Listener(0, Parrot(), said.append, **named)
    play(listener)
    listener.finish()
    return said


def phrases(said: list[Heard]) -> list[Phrase]:
    return [one for one in said if isinstance(one, Phrase) and one.is_final]


def speech(ms: int) -> bytes:
    """Somebody speaking for so long without a pause: turns of the sample, end to end."""
    audio = encode_mulaw(sample_pcm()[1::2])
    turns = [(1000, 4300), (9300, 12400), (20_300, 25_200), (33_800, 36_600)]
    unbroken = b"".join(audio[start * SAMPLES_PER_MS : end * SAMPLES_PER_MS] for start, end in turns)
    return (unbroken * (1 + ms * SAMPLES_PER_MS // len(unbroken)))[: ms * SAMPLES_PER_MS]


def test_a_word_is_cleaned_and_placed() -> None:
    said = listened(lambda listener: listener.hear(silence(8000) + speech(2000) + silence(8000)))
    began = next(one for one in said if isinstance(one, SpeechBegan))
    first = phrases(said)[0]
    assert 700 <= began.at_ms <= 1200
    assert first.words == (Word("polly", began.at_ms + 50, began.at_ms + 250, 0.25),)
    assert first.ends_speech is True


def test_silence_is_made_final_about_every_five_seconds() -> None:
    finals = phrases(listened(lambda listener: listener.hear(silence(8 * 17_000))))
    assert all(not final.words for final in finals)
    assert [final.start_ms for final in finals] == [0, *(final.end_ms for final in finals[:-1])]
    assert [4900 <= final.end_ms - final.start_ms <= 5100 for final in finals] == [True, True, True, False]
    assert finals[-1].end_ms == 17_000


def test_unbroken_speech_is_made_final_after_fifteen_seconds() -> None:
    finals = phrases(listened(lambda listener: listener.hear(speech(40_000))))
    assert [final.start_ms for final in finals] == [0, *(final.end_ms for final in finals[:-1])]
    assert max(final.end_ms - final.start_ms for final in finals) <= FINAL_AT_LATEST_MS + 500
    assert any(final.words and not final.ends_speech for final in finals)
    assert finals[-1].end_ms == 40_000


@pytest.mark.parametrize("ms", [3000, 3020])
def test_speech_may_be_cut_off_between_two_frames_or_within_one(ms: int) -> None:
    *_, last = phrases(listened(lambda listener: listener.hear(speech(ms))))
    assert (last.end_ms, last.ends_speech) == (ms, True)
    assert [word.text for word in last.words] == ["polly"]


def test_interims_come_twice_a_second_while_someone_speaks() -> None:
    said = listened(lambda listener: listener.hear(speech(5000) + silence(8 * 5000)))
    interims = [one for one in said if isinstance(one, Phrase) and not one.is_final]
    assert 7 <= len(interims) <= 10


def test_the_size_of_chunks_does_not_matter() -> None:
    audio = silence(8000) + speech(3000) + silence(8000)

    def heard_in(size: int) -> list[Heard]:
        def play(listener: Listener) -> None:
            for at in range(0, len(audio), size):
                listener.hear(audio[at : at + size])

        return listened(play)

    assert heard_in(160) == heard_in(7777) == heard_in(len(audio))


def test_flushing_makes_speech_final_and_goes_on() -> None:
    def play(listener: Listener) -> None:
        listener.hear(speech(2000))
        listener.flush()
        listener.hear(speech(2000))

    flushed, *rest = phrases(listened(play))
    assert (flushed.is_flushed, flushed.start_ms, bool(flushed.words)) == (True, 0, True)
    assert rest[0].start_ms == flushed.end_ms
    assert rest[0].words[0].start_ms == flushed.end_ms + 50  # the decoder's time begins anew
    assert not rest[0].is_flushed
    assert rest[-1].end_ms == 4000


def test_flushing_silence_makes_it_final() -> None:
    def play(listener: Listener) -> None:
        listener.hear(silence(8 * 900))
        listener.flush()

    assert phrases(listened(play)) == [Phrase(0, 0, 900, (), is_final=True, is_flushed=True)]


def test_the_end_of_an_utterance_is_told_once_if_asked_for() -> None:
    audio = speech(2000) + silence(8 * 6000)
    said = listened(lambda listener: listener.hear(audio), utterance_end_ms=1500)
    (over,) = [one for one in said if isinstance(one, UtteranceOver)]
    assert over.last_word_end_ms == phrases(said)[0].words[-1].end_ms
    assert not [one for one in listened(lambda listener: listener.hear(audio)) if isinstance(one, UtteranceOver)]


def test_upsampling_draws_straight_lines_and_keeps_its_place() -> None:
    whole = array("h", [0, 100, -100, 50, 32767, -32768])
    at_once = array("h", Upsampler()(whole.tobytes()))
    assert list(at_once) == [0, 0, 50, 100, 0, -100, -25, 50, 16408, 32767, -1, -32768]
    upsample = Upsampler()
    assert upsample(whole[:2].tobytes()) + upsample(whole[2:].tobytes()) == at_once.tobytes()


@pytest.mark.parametrize(
    "heard",
    [
        Phrase(1, 0, 20, (Word("a", 0, 10, 0.5), Word("b", 10, 20)), is_final=True, ends_speech=True),
        Phrase(0, 20, 40, (), is_final=False),
        SpeechBegan(1, 30),
        UtteranceOver(0, 40),
    ],
)
def test_what_was_heard_survives_the_way_from_the_child(heard: Heard) -> None:
    assert read_heard(heard_line(heard)) == heard


# --- Vocabularies -------------------------------------------------------------------------------------------


def dictionary_words(dictionary: Path) -> set[str]:
    return {line.split()[0].partition("(")[0] for line in dictionary.read_text().splitlines()}


def test_the_sample_calls_vocabulary_is_its_words(tmp_path: Path) -> None:
    by_track = spoken_words(SAMPLE)
    assert by_track is not None
    expected = {word for words in by_track.values() for word in words}
    assert dictionary_words(sample_call_vocabulary(tmp_path).dictionary) == expected


def test_the_general_vocabulary_is_everyday_words_without_rude_ones(tmp_path: Path) -> None:
    words = dictionary_words(general_vocabulary(tmp_path).dictionary)
    assert len(words) == GENERAL_WORDS
    assert {"the", "order", "number", "address", "tomorrow", "class", "skill", "scrap", "glasses"} <= words
    assert not [word for word in words if is_rude(word)]
    assert is_rude(codecs.decode("fuvg", "rot13"))


def test_the_general_vocabulary_hears_the_sample_call_halfway() -> None:
    with ListenServer(ear=Recognizer("general"), rules=AT_ONCE) as server:
        audio = beginning(encode_mulaw(sample_pcm()[1::2]), SAMPLES_PER_MS)
        heard = transcribe(server.url, audio, SAMPLES_PER_MS)
    assert heard.wrong(0, [word["word"] for word in spoken(Track.OUTBOUND, BEGINNING_MS)]) < 0.5


def test_options_reach_the_child(recognizer: Recognizer) -> None:
    said: list[Heard] = []
    ear = recognizer(ListenOptions(channels=2, multichannel=True, utterance_end_ms=1000), said.append)
    ear.hear([silence(8000), silence(8000)])
    ear.flush(1)
    ear.finish()
    ear.close()
    ear.close()
    assert [(one.channel, one.is_flushed) for one in phrases(said)] == [(1, True), (0, False), (1, False)]

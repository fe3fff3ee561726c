"""Any recording becomes the tracks of a phone call, or one sentence says why not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.audio import SILENCE, decode_mulaw, encode_mulaw
from relay.events import Track
from standins import wav

EVERY_BYTE = bytes(range(256))


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def pitch(audio: bytes) -> float:
    """The loudest frequency in 8 kHz mu-law."""
    spectrum = np.abs(np.fft.rfft(np.array(decode_mulaw(audio)) * np.hanning(len(audio))))
    return float(spectrum.argmax()) * 8000 / len(audio)


def refusal(path: Path) -> str:
    with pytest.raises(wav.AudioError) as refused:
        wav.read(path)
    sentence = str(refused.value)
    assert path.name in sentence
    assert "\n" not in sentence
    return sentence


# --- What is read ------------------------------------------------------------------------------------------


def test_left_is_inbound_and_right_is_outbound(tmp_path: Path) -> None:
    left, right = tone(440, 8000), tone(1000, 8000)
    soundfile.write(tmp_path / "call.wav", np.stack([left, right], axis=1), 8000)
    tracks = wav.read(tmp_path / "call.wav")
    assert list(tracks) == [Track.INBOUND, Track.OUTBOUND]
    assert pitch(tracks[Track.INBOUND]) == pytest.approx(440, abs=1)
    assert pitch(tracks[Track.OUTBOUND]) == pytest.approx(1000, abs=1)


def test_a_single_channel_is_inbound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", tone(440, 8000), 8000)
    assert list(wav.read(tmp_path / "call.wav")) == [Track.INBOUND]


def test_8_khz_in_16_bits_is_encoded_sample_for_sample(tmp_path: Path) -> None:
    every_sample = np.arange(-32768, 32768, dtype=np.int16)
    soundfile.write(tmp_path / "call.wav", every_sample, 8000, subtype="PCM_16")
    assert wav.read(tmp_path / "call.wav")[Track.INBOUND] == encode_mulaw(range(-32768, 32768))


@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_8_khz_mulaw_keeps_every_byte(tmp_path: Path, form: str) -> None:
    spoken, played = EVERY_BYTE, EVERY_BYTE[::-1]
    path = tmp_path / "call.wav"
    soundfile.write(path, np.zeros((256, 2)), 8000, subtype="ULAW", format=form)
    interleaved = bytes(byte for pair in zip(spoken, played, strict=True) for byte in pair)
    head, tail = path.read_bytes()[:-512], path.read_bytes()[-512:]
    assert tail == bytes([SILENCE]) * 512
    path.write_bytes(head + interleaved)
    assert wav.read(path) == {Track.INBOUND: spoken, Track.OUTBOUND: played}


def test_mulaw_is_found_behind_other_chunks(tmp_path: Path) -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return name + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)

    form = b"".join(
        value.to_bytes(size, "little") for value, size in ((7, 2), (1, 2), (8000, 4), (8000, 4), (1, 2), (8, 2))
    )
    chunks = b"WAVE" + chunk(b"fmt ", form) + chunk(b"note", b"odd") + chunk(b"data", EVERY_BYTE) + chunk(b"more", b"!")
    (tmp_path / "call.wav").write_bytes(chunk(b"RIFF", chunks))
    assert wav.read(tmp_path / "call.wav") == {Track.INBOUND: EVERY_BYTE}


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_a_tone_keeps_its_pitch_and_loudness(tmp_path: Path, subtype: str, rate: int) -> None:
    soundfile.write(tmp_path / "call.wav", tone(440, rate), rate, subtype=subtype)
    audio = wav.read(tmp_path / "call.wav")[Track.INBOUND]
    assert len(audio) == 8000
    assert pitch(audio) == pytest.approx(440, abs=1)
    assert max(decode_mulaw(audio[1000:-1000])) == pytest.approx(16384, rel=0.05)


@pytest.mark.parametrize("name", ["call.flac", "call.ogg", "call.au", "call.aiff"])
def test_other_formats_are_read_too(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, tone(440, 16000), 16000)
    assert pitch(wav.read(tmp_path / name)[Track.INBOUND]) == pytest.approx(440, abs=1)


@settings(max_examples=40)
@given(
    length=st.integers(50, 5000),
    rate=st.sampled_from([8000, 16000, 22050, 44100, 96000]),
    channels=st.integers(1, 2),
    block=st.sampled_from([100, 1 << 18]),
)
def test_a_recording_keeps_its_length(tmp_path: Path, length: int, rate: int, channels: int, block: int) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros((length, channels)), rate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wav, "BLOCK", block)
        tracks = wav.read(tmp_path / "call.wav")
    assert len(tracks) == channels
    for audio in tracks.values():
        assert len(audio) == pytest.approx(length * 8000 / rate, abs=1)
        assert set(audio) == {SILENCE}


def test_blocks_leave_no_seams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "call.wav", tone(440, 44100), 44100)
    at_once = wav.read(tmp_path / "call.wav")
    monkeypatch.setattr(wav, "BLOCK", 1000)
    assert wav.read(tmp_path / "call.wav") == at_once


@pytest.mark.parametrize("rate", [8000, 16000])
def test_what_is_too_loud_or_no_number_is_tamed(tmp_path: Path, rate: int) -> None:
    wild = np.tile(np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 5.0], dtype=np.float32), 1000)
    soundfile.write(tmp_path / "call.wav", wild, rate, subtype="FLOAT")
    audio = wav.read(tmp_path / "call.wav")[Track.INBOUND]
    assert len(audio) == 6000 * 8000 // rate
    if rate == 8000:
        assert audio[:6] == encode_mulaw([0, 32767, -32768, 32767, -32768, 32767])


# --- What is refused ---------------------------------------------------------------------------------------


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nowhere.wav")


def test_a_directory_is_one_sentence(tmp_path: Path) -> None:
    assert "is a directory" in refusal(tmp_path)


def test_an_empty_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert refusal(tmp_path / "empty.wav").endswith("is empty")


@pytest.mark.parametrize("name", ["call.wav", "call.txt", "call.raw"])
@pytest.mark.parametrize("content", [b"hello", b"RIFF\x24\0\0\0WAVEfmt ", b"\0" * 5000])
def test_what_is_no_audio_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "no recording that can be read" in refusal(tmp_path / name)


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_header_without_audio_is_one_sentence(tmp_path: Path, subtype: str, rate: int) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros(0), rate, subtype=subtype)
    assert refusal(tmp_path / "call.wav").endswith("holds no audio")


def test_more_than_two_channels_are_one_sentence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros((80, 3)), 8000)
    assert "has 3 channels" in refusal(tmp_path / "call.wav")


def test_a_recording_of_hours_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav, "LONGEST_S", 60)
    soundfile.write(tmp_path / "call.wav", np.zeros(60 * 8000), 8000)
    assert len(wav.read(tmp_path / "call.wav")[Track.INBOUND]) == 60 * 8000
    soundfile.write(tmp_path / "call.wav", np.zeros(60 * 8000 + 1), 8000)
    assert "longer than 1 minutes" in refusal(tmp_path / "call.wav")


@pytest.mark.parametrize("failure", ["OSError('no libsndfile')", "ImportError('no cffi')"])
def test_a_library_that_does_not_load_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros(80), 8000)
    (tmp_path / "soundfile.py").write_text(f"raise {failure}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "soundfile")
    assert "do not load here" in refusal(tmp_path / "call.wav")


def test_nothing_heavy_is_loaded_until_a_recording_is_read() -> None:
    check = "import sys, standins.wav, standins.twilio; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0

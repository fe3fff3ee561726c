"""What all peers have in common: Twilio's media messages in, messages of AUDIO_CHUNK_MS of all tracks out."""

from __future__ import annotations

import os
from base64 import b64decode
from typing import Any, Final

PORT: Final = int(os.environ.get("PORT", "5001"))
HEADERS: Final = {"Authorization": "Token none"}
GOODBYE: Final = '{"type":"CloseStream"}'

_SILENCE: Final = b"\xff"
_SAMPLES: Final = int(os.environ.get("AUDIO_CHUNK_MS", "100")) * 8  # of one track in one message


def listen_url(tracks: list[str]) -> str:
    """Where the speech service takes a call of these tracks."""
    options = f"encoding=mulaw&sample_rate=8000&channels={len(tracks)}&multichannel=true&interim_results=true"
    return f"{os.environ['DEEPGRAM_URL']}/v1/listen?{options}"


class Chunks:
    """A call's audio, collected by track until there is a message of it."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.url = listen_url(start["tracks"])
        self._audio = {track: bytearray() for track in start["tracks"]}

    def add(self, media: dict[str, Any]) -> bytes | None:
        """Takes a message's audio; gives the next message for the service when it is complete."""
        self._audio[media["track"]] += b64decode(media["payload"])
        if min(map(len, self._audio.values())) < _SAMPLES:
            return None
        return self._interleave(_SAMPLES)

    def rest(self) -> bytes:
        """What is left at the end of a call, the shorter track with silence behind it."""
        longest = max(map(len, self._audio.values()))
        for audio in self._audio.values():
            audio += _SILENCE * (longest - len(audio))
        return self._interleave(longest)

    def _interleave(self, samples: int) -> bytes:
        message = bytearray(samples * len(self._audio))
        for place, audio in enumerate(self._audio.values()):
            message[place :: len(self._audio)] = audio[:samples]
            del audio[:samples]
        return bytes(message)

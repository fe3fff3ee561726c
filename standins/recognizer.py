"""An ear that recognises real speech on this machine: one child process a connection, see `standins.sphinx`.

It shows and tests the whole path, since a wrong codec, swapped tracks or lost audio all give wrong words. It is no
transcription service; `HOW_OFTEN_IT_ERRS` says so in figures.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from standins.ear import EarOptions, Heard
from standins.sphinx import AUDIO, FLUSH, HEADER, read_heard
from standins.vocabulary import Vocabulary, general_vocabulary, sample_call_vocabulary

HOW_OFTEN_IT_ERRS: Final[Mapping[str, str]] = {  # measured at 8 kHz mu-law; WER, words wrong per words spoken
    "call": "4 words in 100 of the sample call are wrong, and all words of any other",
    "general": "37 words in 100 of the sample call are wrong, and 60 to 75 of real calls",
}
FINISH_WITHIN_S: Final = 30.0  # for the last words, on a machine that is busy with other calls
END_WITHIN_S: Final = 5.0  # for a child that was killed to be gone

_ROOT: Final = Path(__file__).parent.parent
_MAKERS: Final[Mapping[str, Callable[[Path], Vocabulary]]] = {
    "call": sample_call_vocabulary,
    "general": general_vocabulary,
}


class NotInstalled(Exception):
    """The recogniser is not installed; the message says how to install it."""


class Recognizer:
    """Makes ears of one vocabulary, whose files it keeps for as long as it lives: "call" or "general"."""

    def __init__(self, vocabulary: str = "call") -> None:
        if importlib.util.find_spec("pocketsphinx") is None:
            raise NotInstalled("The recogniser is not installed: pip install -r requirements-demo.txt")
        self._folder = tempfile.TemporaryDirectory(prefix="recognizer-")
        self._vocabulary = _MAKERS[vocabulary](Path(self._folder.name))

    def __call__(self, options: EarOptions, emit: Callable[[Heard], None]) -> RecognizerEar:
        """An ear for one connection."""
        return RecognizerEar(self._vocabulary, options, emit)


class RecognizerEar:
    """Hands audio to a child process and passes on what that says it heard."""

    def __init__(self, vocabulary: Vocabulary, options: EarOptions, emit: Callable[[Heard], None]) -> None:
        self._emit = emit
        self._voices = options.voices
        self._child = subprocess.Popen(
            _command(vocabulary, options),
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for us; a child ends when its input does
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        self._reader = threading.Thread(target=self._pass_on, daemon=True)
        self._reader.start()

    def hear(self, channels: list[bytes]) -> None:
        """Takes the next audio. Waits when the child cannot keep up, and with it the client."""
        for channel, audio in enumerate(channels):
            self._tell(HEADER.pack(AUDIO, channel, len(audio)) + audio)

    def flush(self, channel: int | None = None) -> None:
        """Makes what one channel, or every channel, said so far final."""
        for one in range(self._voices) if channel is None else (channel,):
            self._tell(HEADER.pack(FLUSH, one, 0))

    def finish(self) -> None:
        """Makes everything final."""
        with suppress(OSError):
            self._stdin.close()
        self._reader.join(FINISH_WITHIN_S)

    def close(self) -> None:
        """Ends the child."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(END_WITHIN_S)
        if threading.current_thread() is not self._reader:
            self._reader.join(END_WITHIN_S)
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError):
                pipe.close()

    def _tell(self, message: bytes) -> None:
        self._stdin.write(message)
        self._stdin.flush()

    def _pass_on(self) -> None:
        for line in self._stdout:
            self._emit(read_heard(line))


def _command(vocabulary: Vocabulary, options: EarOptions) -> list[str]:
    command = [sys.executable, "-m", "standins.sphinx", "--channels", str(options.voices)]
    command += ["--language-model", str(vocabulary.language_model), "--dictionary", str(vocabulary.dictionary)]
    if options.utterance_end_ms is not None:
        command += ["--utterance-end-ms", str(options.utterance_end_ms)]
    return command

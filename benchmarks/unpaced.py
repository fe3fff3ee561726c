"""Our program without Deepgram's pace, so that it can be measured at its own.

Deepgram takes audio at 1.25 times real time, and our program keeps to that: with audio that comes as fast as it is
read, the pace would be measured and not the program. It also never lets Twilio wait, and drops what the service has not
taken within REPLAY_SECONDS of audio, which pass in no time here: so they are set to the most there can be.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

import app
from deepgram_client import TRAITS, Deepgram

UNLIMITED: Final = 1e9  # times real time

if __name__ == "__main__":
    os.environ["REPLAY_SECONDS"] = "600"
    Deepgram.traits = replace(TRAITS, pace=UNLIMITED)  # type: ignore[misc]  # final, but for here
    app.main(["serve"])

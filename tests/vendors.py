"""For tests that hold for every speech service: each with its strict stand-in, all in the same hurry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from assemblyai_client import AssemblyAI, AssemblyAISettings
from deepgram_client import Deepgram, DeepgramSettings
from gladia_client import Gladia, GladiaSettings
from relay.protocol import SpeechService
from standins import assemblyai, deepgram, flux, gladia
from standins.ear import EarFactory
from standins.faults import Fault
from standins.server import SpeechServer
from tests.numbered import number_ears
from tests.talking import SPEED, Hasty

Server = SpeechServer[Any, Any]


@dataclass(frozen=True)
class Vendor:
    """A service as a user configures it, and what stands in for it here."""

    key_variable: str
    make: Callable[[str, str], SpeechService]  # from the key and the stand-in's address
    serve: Callable[..., Server]

    @contextmanager
    def listening(
        self, *faults: Fault | None, ear: EarFactory | None = None, key: str | None = None
    ) -> Iterator[Server]:
        """The stand-in; at the end nobody may have broken a rule."""
        with self.serve(ear=ear or number_ears(), faults=faults, key=key) as server:
            yield server
        assert server.violations == []

    def at(self, server: Server, key: str = "key", **traits: Any) -> Hasty:
        """The service at the stand-in's address."""
        return Hasty(self.make(key, server.url), **traits)


VENDORS: Final = {
    "deepgram": Vendor(
        "DEEPGRAM_API_KEY",
        lambda key, url: Deepgram(DeepgramSettings(api_key=key, url=url)),
        lambda **given: deepgram.ListenServer(rules=deepgram.Rules(pace=1.25 * SPEED), **given),
    ),
    "flux": Vendor(
        "DEEPGRAM_API_KEY",
        lambda key, url: Deepgram(DeepgramSettings(api_key=key, url=url, model="flux-general-en")),
        lambda **given: flux.FluxServer(rules=flux.Rules(pace=1.25 * SPEED), **given),
    ),
    "gladia": Vendor(
        "GLADIA_API_KEY",
        lambda key, url: Gladia(GladiaSettings(api_key=key, url=url)),
        lambda **given: gladia.GladiaServer(rules=gladia.Rules(), **given),
    ),
    "assemblyai": Vendor(
        "ASSEMBLYAI_API_KEY",
        lambda key, url: AssemblyAI(AssemblyAISettings(api_key=key, url=url)),
        lambda **given: assemblyai.AssemblyAIServer(rules=assemblyai.Rules(pace=SPEED), **given),
    ),
}

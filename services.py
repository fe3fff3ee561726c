"""The speech services there are, and which of them listen: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from assemblyai_client import AssemblyAI, AssemblyAISettings
from deepgram_client import Deepgram, DeepgramSettings
from gladia_client import Gladia, GladiaSettings
from relay.connection import Patience
from relay.errors import SettingsError
from relay.listening import Listening
from relay.protocol import Abilities, SpeechService
from relay.provider import Provider
from relay.settings import Settings, one_of, read, setting, some_of, variables


@dataclass(frozen=True, slots=True)
class Offer:
    """A service to be had: its settings, one of which is `api_key`, and what makes the service of them."""

    name: str
    settings: type[Any]
    make: Callable[[Any], SpeechService]

    @property
    def key_variable(self) -> str:
        """Where its key is looked for."""
        return next(variable.name for variable in variables(self.settings) if variable.name.endswith("_API_KEY"))

    def has_key(self, environ: Mapping[str, str]) -> bool:
        """Whether its key is there."""
        return bool(environ.get(self.key_variable, "").strip())


OFFERS: Final[Mapping[str, Offer]] = {
    "deepgram": Offer("Deepgram", DeepgramSettings, Deepgram),
    "gladia": Offer("Gladia", GladiaSettings, Gladia),
    "assemblyai": Offer("AssemblyAI", AssemblyAISettings, AssemblyAI),
}


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """Which services listen."""

    service: str = setting(
        "SPEECH_SERVICE",
        "deepgram",
        one_of(*OFFERS),
        f"Which service listens: {', '.join(OFFERS)}. `python app.py services` shows what each can do.",
    )
    side_by_side: tuple[str, ...] = setting(
        "SPEECH_SERVICES",
        (),
        some_of(*OFFERS),
        "Several that listen side by side, with commas between, for comparison; instead of SPEECH_SERVICE.",
    )
    fallbacks: tuple[str, ...] = setting(
        "SPEECH_FALLBACKS",
        (),
        some_of(*OFFERS),
        "Who takes over in the middle of a call, in this order, when the service fails: gladia,assemblyai.",
    )

    def __post_init__(self) -> None:
        if self.fallbacks and len(self.side_by_side) > 1:
            raise SettingsError("SPEECH_FALLBACKS works with one service, not with several in SPEECH_SERVICES.")
        if set(self.fallbacks) & set(self.chosen):
            raise SettingsError("SPEECH_FALLBACKS names the service that it should take over from.")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Those that listen."""
        return self.side_by_side or (self.service,)


class NoKey(SettingsError):
    """A service was chosen whose key is not set."""


def speech_service(word: str, environ: Mapping[str, str]) -> SpeechService:
    """A service as the environment configures it. Raises NoKey, or SettingsError when another setting is wrong."""
    offer = OFFERS[word]
    settings = read(offer.settings, environ)
    if settings.api_key is None:
        raise NoKey(
            f"{offer.key_variable} is not set; put your key into .env, or try `python app.py demo`, which needs none"
        )
    return offer.make(settings)


def listeners(environ: Mapping[str, str]) -> Listening:
    """Who listens to calls; without a key nobody does, and calls are told why. Raises SettingsError."""
    wanted = read(SpeechSettings, environ)
    patience = Patience(answer=read(Settings, environ).service_silence_s)
    with_key = [word for word, offer in OFFERS.items() if offer.has_key(environ)]
    for word in wanted.fallbacks:
        if word not in with_key:
            raise SettingsError(f"SPEECH_FALLBACKS names {word}, and {OFFERS[word].key_variable} is not set.")
    try:
        providers = {
            word: Provider(speech_service(word, environ), patience=patience)
            for word in (*wanted.chosen, *wanted.fallbacks, *with_key)
        }
    except NoKey as missing:
        return Listening((), why_not=str(missing))
    return Listening(
        tuple(providers[word] for word in wanted.chosen),
        tuple(providers[word] for word in wanted.fallbacks),
        tuple(provider for word, provider in providers.items() if word not in (*wanted.chosen, *wanted.fallbacks)),
    )


def without_key(environ: Mapping[str, str]) -> str:
    """Those that should listen and have no key, as people write them."""
    chosen = [OFFERS[word] for word in read(SpeechSettings, environ).chosen]
    return ", ".join(offer.name for offer in chosen if not offer.has_key(environ))


def what_each_can_do() -> tuple[list[str], list[list[str]]]:
    """A table: its head, and a row for each ability with one cell for each service."""
    all_services: list[SpeechService] = [
        Deepgram(DeepgramSettings()),
        Deepgram(DeepgramSettings(model="flux-general-en")),
        Gladia(GladiaSettings()),
        AssemblyAI(AssemblyAISettings()),
    ]
    head = ["", *(service.traits.name for service in all_services)]
    rows = [
        ["both sides on one connection", *(_yes_no(service.traits.tracks > 1) for service in all_services)],
        ["sent at most at", *(f"{service.traits.pace:g} x real time" for service in all_services)],
    ]
    for ability in fields(Abilities):
        heading = ability.name.replace("_", " ")
        rows.append([heading, *(getattr(service.abilities, ability.name) for service in all_services)])
    return head, rows


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"

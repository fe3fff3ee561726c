"""Who listens to a call: the services that were set up, and those that it asks for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relay.errors import SettingsError
from relay.protocol import SpeechService
from relay.provider import Provider
from relay.settings import words

SERVICE: Final = "service"  # custom parameters of a stream, in its TwiML: <Parameter name="service" value="..."/>
LANGUAGE: Final = "language"
KEYTERMS: Final = "keyterms"
TERMS_AT_MOST: Final = 100  # of one call: no service takes more
LONGEST_TERM: Final = 100  # characters


@dataclass(frozen=True, slots=True)
class Choice:
    """A service that may hear a call, as the call wants it."""

    provider: Provider
    service: SpeechService


def first_choice(choices: Sequence[Choice]) -> Choice:
    """The first that is well and has room; else the first that is well; else the first."""
    well = [choice for choice in choices if choice.provider.well]
    return next((choice for choice in well if choice.provider.has_room), (well or choices)[0])


@dataclass(frozen=True, slots=True)
class Listening:
    """Who listens to the calls, or why nobody does.

    `services` listen side by side, for comparison. Where there is one, `fallbacks` take over from it in order.
    `on_request` can be asked for by a stream.
    """

    services: tuple[Provider, ...]
    fallbacks: tuple[Provider, ...] = ()
    on_request: tuple[Provider, ...] = ()
    why_not: str = ""

    @property
    def providers(self) -> set[Provider]:
        """All of them."""
        return {*self.services, *self.fallbacks, *self.on_request}

    def choose(self, parameters: Mapping[str, str]) -> tuple[list[tuple[Choice, ...]], list[str]]:
        """For each service that listens side by side: itself and who takes over from it; and what cannot be had of what
        the stream's parameters ask for, in sentences that repeat none of them."""
        services, complaints = self._asked_for(parameters)
        fallbacks = self.fallbacks if len(services) == 1 else ()
        chains = []
        for service in services:
            chain = [Choice(service, _tailored(service, parameters, complaints))]
            for fallback in fallbacks:
                if fallback is not service and _knows_language(fallback, parameters):
                    chain.append(Choice(fallback, _tailored(fallback, parameters, complaints)))
            chains.append(tuple(chain))
        return chains, complaints

    def _asked_for(self, parameters: Mapping[str, str]) -> tuple[tuple[Provider, ...], list[str]]:
        if (word := parameters.get(SERVICE)) is None:
            return self.services, []
        for provider in (*self.services, *self.fallbacks, *self.on_request):
            if provider.traits.word == word:
                return (provider,), []
        return self.services, ["asks for a service that is not set up here"]


def _knows_language(provider: Provider, parameters: Mapping[str, str]) -> bool:
    """Whether it would hear the call in the call's own language; in another it had better not take over."""
    try:
        provider.service.tailored(parameters.get(LANGUAGE) or None, ())
    except SettingsError:
        return False
    return True


def _tailored(provider: Provider, parameters: Mapping[str, str], complaints: list[str]) -> SpeechService:
    """The service as a stream's parameters want it, as far as it can be had."""
    service = provider.service
    for name, wish in ((LANGUAGE, _language), (KEYTERMS, _keyterms)):
        if value := parameters.get(name):
            try:
                service = service.tailored(*wish(value))
            except (SettingsError, ValueError) as cannot:
                complaints.append(f"asks for what {provider.traits.name} cannot do: {cannot}")
    return service


def _language(value: str) -> tuple[str | None, tuple[str, ...]]:
    return value, ()


def _keyterms(value: str) -> tuple[str | None, tuple[str, ...]]:
    terms = words(value)
    if len(terms) > TERMS_AT_MOST or any(len(term) > LONGEST_TERM for term in terms):
        raise ValueError(f"a call's own terms may be {TERMS_AT_MOST}, each of up to {LONGEST_TERM} characters")
    return None, terms

"""Looks for what keeps a first call from being transcribed, and says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from relay.call import Switchboard
from relay.connection import knock
from relay.errors import ServiceError, SettingsError
from relay.hub import Hub
from relay.listening import Listening
from relay.provider import Provider
from relay.settings import Settings
from relay.web.routes import create_app, media_url
from relay.web.server import Server


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: well, or what to do; None when it was not looked at."""

    well: bool | None
    sentence: str


def examine(settings: Settings, listening: Listening | SettingsError) -> Iterator[Finding]:
    """Looks at everything in turn. `listening` is who was set up to listen, or what is wrong with the settings."""
    yield Finding(True, "The settings can be read.")
    if isinstance(listening, SettingsError):
        yield Finding(False, str(listening))
    elif not listening.services:
        yield Finding(False, f"{listening.why_not}.")
    else:
        yield from map(_provider, (*listening.services, *listening.fallbacks, *listening.on_request))
    server = None
    try:
        # Alone, so that a server whose workers share the port is found out, and not robbed of calls.
        server = Server(create_app(Switchboard(settings, Listening(()), Hub())), replace(settings, workers=1))
        yield Finding(True, f"Port {server.port} can be listened on.")
    except SettingsError as taken:
        yield _port_in_use(settings, taken)
    try:
        yield _public_url(settings)
    finally:
        if server is not None:
            server.close()


def _provider(provider: Provider) -> Finding:
    name = provider.traits.name
    try:
        provider.probe()
    except ServiceError as trouble:
        return Finding(False, f"{trouble}.")
    return Finding(True, f"{name} accepts the key and the settings, and finishes a short session.")


def _port_in_use(settings: Settings, taken: SettingsError) -> Finding:
    """A port that is taken by ourselves, already running, is well."""
    try:
        knock(f"ws://localhost:{settings.port}/media")
    except ServiceError:
        return Finding(False, str(taken))
    return Finding(True, f"A server for media streams runs on port {settings.port} already.")


def _public_url(settings: Settings) -> Finding:
    url = media_url(settings.public_url)
    if url is None:
        return Finding(None, "Not tried from outside; set PUBLIC_URL to your tunnel's https address for that.")
    if not url.startswith("wss://"):
        return Finding(False, f"PUBLIC_URL should begin with https://: Twilio streams to wss:// only, not to {url}.")
    try:
        knock(url)
    except ServiceError as trouble:
        return Finding(False, f"{url} does not lead here ({trouble}); is the tunnel running, and to this port?")
    return Finding(True, f"{url} answers.")

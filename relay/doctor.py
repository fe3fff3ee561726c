"""Looks for what keeps a first call from being transcribed, and says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

from relay.admission import MEDIA_PATH, Admission, TwilioSettings
from relay.call import Switchboard
from relay.connection import knock
from relay.errors import Refused, ServiceError, SettingsError
from relay.hub import Hub
from relay.listening import Listening
from relay.passes import Passes
from relay.provider import Provider
from relay.settings import Settings
from relay.web.entrance import AccessSettings
from relay.web.routes import create_app, media_url
from relay.web.server import Server, reached_by


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: well, or what to do; None when it was not looked at."""

    well: bool | None
    sentence: str


def examine(settings: Settings, twilio: TwilioSettings, listening: Listening | SettingsError) -> Iterator[Finding]:
    """Looks at everything in turn. `listening` is who was set up to listen, or what is wrong with the settings."""
    try:
        admission = Admission(Passes(Path(settings.access_folder)), twilio, settings)
    except SettingsError as trouble:
        yield Finding(False, str(trouble))
        return
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
        app = create_app(Switchboard(settings, Listening(()), Hub()), admission=admission)
        server = Server(app, replace(settings, workers=1))
        yield Finding(True, f"Port {server.port} can be listened on.")
    except SettingsError as taken:
        yield _port_in_use(settings, admission, taken)
    try:
        yield _public_url(settings, admission)
    finally:
        if server is not None:
            server.close()
    yield _signature(admission)


def _provider(provider: Provider) -> Finding:
    name = provider.traits.name
    try:
        provider.probe()
    except ServiceError as trouble:
        return Finding(False, f"{trouble}.")
    return Finding(True, f"{name} accepts the key and the settings, and finishes a short session.")


def _port_in_use(settings: Settings, admission: Admission, taken: SettingsError) -> Finding:
    """A port that is taken by ourselves, already running, is well."""
    try:
        _knock(f"ws://{reached_by(settings)}:{settings.port}", admission)
    except Refused as refusal:
        if str(refusal) != f"answered {HTTPStatus.FORBIDDEN.value}":
            return Finding(False, str(taken))
        return Finding(False, f"What runs on port {settings.port} does not know this key: is its ACCESS_FOLDER ours?")
    except ServiceError:
        return Finding(False, str(taken))
    return Finding(True, f"A server for media streams runs on port {settings.port} already.")


def _public_url(settings: Settings, admission: Admission) -> Finding:
    url = media_url(settings.public_url)
    if url is None:
        return Finding(None, "Not tried from outside; set PUBLIC_URL to your tunnel's https address for that.")
    if not url.startswith("wss://"):
        return Finding(False, f"PUBLIC_URL should begin with https://: Twilio streams to wss:// only, not to {url}.")
    try:
        _knock(url.removesuffix(MEDIA_PATH), admission)
    except ServiceError as trouble:
        return Finding(False, f"{url} does not lead here ({trouble}); is the tunnel running, and to this port?")
    return Finding(True, f"{url} answers.")


def _knock(server: str, admission: Admission) -> None:
    """Opens a stream's WebSocket as Twilio would: with the key, and signed where we can sign. Raises ServiceError."""
    knock(f"{server}{MEDIA_PATH}/{admission.stream_key}", admission.signed_upgrade())


def _signature(admission: Admission) -> Finding:
    twilio = admission.twilio
    if twilio.signature == "off":
        return Finding(None, "Twilio's signatures are not looked at, as TWILIO_SIGNATURE=off says.")
    if not admission.looks_at_signatures:
        return Finding(None, "Twilio's signatures cannot be checked: that takes TWILIO_AUTH_TOKEN and PUBLIC_URL.")
    signs = " and ".join(
        admission.url_of(scheme, f"{path}...") for scheme, path in (("wss", MEDIA_PATH), ("https", "/twiml"))
    )
    needed = "and nothing is let in without" if twilio.signature == "enforce" else "and a key or a pass will do, too"
    return Finding(True, f"Twilio should sign {signs}, {needed} (TWILIO_SIGNATURE={twilio.signature}).")


def what_is_open(settings: Settings, twilio: TwilioSettings, access: AccessSettings) -> list[tuple[str, str]]:
    """What can be asked of the server in this setting, and by whom."""
    signed = bool(twilio.signature != "off" and settings.public_url and (twilio.auth_token or twilio.shared_key_secret))
    if signed and twilio.signature == "enforce":
        streams = requests = "Twilio's signature only; a key or pass that is shown as well has to be right"
    else:
        streams = f"{'signature, ' if signed else ''}the stream key, or a pass for the call from /twiml"
        requests = f"{'signature, or ' if signed else ''}the stream key; for reports on a call, the address from /twiml"
    come_in = _how_people_come_in(access)
    return [
        ("the port", _who_reaches(settings.host)),
        ("/media (streams)", streams),
        ("/twiml, /stream-status", requests),
        ("/, /calls, /api", f"{come_in}; a token, for what its scopes say; a shared link, for one call"),
        ("/metrics", f"{come_in}; a token with the scope metrics"),
        ("/login, /static, /healthz, /readyz", "everybody; they tell nothing of calls"),
    ]


def _who_reaches(host: str) -> str:
    try:
        is_local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        is_local = False
    return "this machine, and whatever a tunnel brings" if is_local else f"whoever reaches {host}"


def _how_people_come_in(access: AccessSettings) -> str:
    ways = ("VIEWER_PASSWORD", access.password), ("the access link with VIEWER_TOKEN", access.token)
    return ", ".join(way for way, secret in ways if secret is not None) or "the access link that is printed"

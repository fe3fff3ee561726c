"""Where webhooks go, and which of what happens they tell: from settings, checked at start."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from relay.errors import SettingsError
from relay.settings import setting, some_of, switch, words
from relay.signing import HOW_TO_MAKE_ONE, signing_keys
from relay.store.records import Kind

KINDS: Final = tuple(kind.value for kind in Kind)
OUR_OWN: Final = (Kind.SERVICE_LOST, Kind.SERVICE_BACK, Kind.SERVICE_REPLACED)  # who transcribes is our own affair
TOLD: Final = tuple(kind for kind in KINDS if kind not in OUR_OWN)
NAME_DIGITS: Final = 8  # of a hash: enough to tell a host's endpoints apart


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver of webhooks. Its URL may hold a password or a token, and stays out of logs, tables and any repr."""

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """What logs and the store call it: the host, and a hash of the URL's parts that are no secret by their nature.

        It stays the same when the password or the token in the URL is changed, and so deliveries that wait still go.
        """
        parts = urlsplit(self.url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path or '/'}"
        return f"{parts.hostname}-{sha256(place.encode()).hexdigest()[:NAME_DIGITS]}"


def endpoint_urls(value: str) -> tuple[str, ...]:
    """URLs with commas between. Raises ValueError, which repeats none of them: they may hold a secret."""
    urls = words(value)
    if not all(map(_is_usable, urls)):
        raise ValueError("URLs that begin with https://, in plain ASCII and with commas between")
    return urls


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and "#" not in url
    return plain and parts.scheme in ("https", "http") and bool(parts.hostname) and port != 0


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Whom we tell of calls, and what."""

    urls: tuple[str, ...] = setting(
        "WEBHOOK_URLS",
        (),
        endpoint_urls,
        "Whom to tell of calls: https URLs with commas between, which get signed POSTs as Standard Webhooks has them.",
        secret=True,
    )
    events: tuple[str, ...] = setting(
        "WEBHOOK_EVENTS",
        TOLD,
        some_of(*KINDS),
        f"What to tell them, with commas between: {', '.join(KINDS)}.",
    )
    secrets: tuple[bytes, ...] = setting(
        "WEBHOOK_SECRETS",
        (),
        signing_keys,
        "What webhooks are signed with; receivers have it too. To change it put the new one before the old one, with a "
        f"comma between, until every receiver has it. Make one with: {HOW_TO_MAKE_ONE}",
        secret=True,
    )
    allow_private: bool = setting(
        "WEBHOOK_ALLOW_PRIVATE",
        False,
        switch,
        "Webhooks may go to this machine and its private network too, and over plain http.",
    )

    def __post_init__(self) -> None:
        if self.urls and not self.secrets:
            raise SettingsError(f"WEBHOOK_URLS needs WEBHOOK_SECRETS to sign with; make one with: {HOW_TO_MAKE_ONE}")
        if not self.allow_private and any(urlsplit(url).scheme == "http" for url in self.urls):
            raise SettingsError("WEBHOOK_URLS should begin with https://, unless WEBHOOK_ALLOW_PRIVATE is true.")
        if len({endpoint.name for endpoint in self.endpoints}) < len(self.urls):
            raise SettingsError("WEBHOOK_URLS names an endpoint twice; its user and query do not make it another one.")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The receivers."""
        return tuple(map(Endpoint, self.urls))

    @property
    def wanted(self) -> dict[str, frozenset[str]]:
        """By the names of the receivers, the kinds of events that are kept for them."""
        return {endpoint.name: frozenset(self.events) for endpoint in self.endpoints}

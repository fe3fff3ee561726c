"""Who may send: looks at each media stream, and at each request of Twilio's, before anything is opened for it.

A stream is let in by Twilio's signature on its WebSocket's upgrade; by a pass for its call, which `/twiml` has issued
and which is worth nothing the second time; or by the stream key. What is shown and wrong is not made good by another.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from relay.doorbook import Doorbook
from relay.errors import RelayError, SettingsError
from relay.passes import Kind, Passes
from relay.settings import Settings, one_of, setting, text, whole
from relay.twilio import Signature, Signatures, as_signed

MEDIA_PATH: Final = "/media"
TOKEN: Final = "token"  # noqa: S105  # custom parameters of a stream, in its TwiML: <Parameter name="token" value="..."/>
KEY: Final = "key"
PASS_FOR: Final = 60.0  # seconds from the TwiML to the stream's start; Twilio needs about one
UNPROVEN_MOST: Final = 64  # sockets that have not shown yet who they are; Twilio's take a tenth of a second
_MEDIA: Final = re.compile(rf"{MEDIA_PATH}(?:/([A-Za-z0-9_.-]+))?/?")
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{2,14}")  # E.164


def _number(value: str) -> str:
    if not _NUMBER.fullmatch(value):
        raise ValueError("a phone number with its country, as in +15550100")
    return value


def _web_page(value: str) -> str:
    try:
        usable = urlsplit(value).scheme in ("https", "http") and urlsplit(value).hostname
    except ValueError:
        usable = None
    if not usable or not value.isprintable() or " " in value:
        raise ValueError(f"a URL that begins with https:// or http://, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class TwilioSettings:
    """How Twilio is known, and what its calls are told."""

    auth_token: str | None = setting(
        "TWILIO_AUTH_TOKEN",
        None,
        text,
        "Your account's auth token, from https://console.twilio.com: Twilio signs its requests with it.",
        secret=True,
    )
    shared_key_secret: str | None = setting(
        "TWILIO_SHARED_KEY_SECRET",
        None,
        text,
        "The secret of a shared key, if you have Twilio sign with that (HMAC_SHA256) and not with the auth token.",
        secret=True,
    )
    signature: str = setting(
        "TWILIO_SIGNATURE",
        "warn",
        one_of("enforce", "warn", "off"),
        "Twilio's signature on streams and requests. enforce: nothing is let in without; needs the auth token and "
        "PUBLIC_URL. warn: a key or a pass will do, too, and what is not signed is told. off: not looked at.",
    )
    dial_number: str | None = setting(
        "DIAL_NUMBER", None, _number, "/twiml connects a call with this number once it is streamed."
    )
    application_url: str | None = setting(
        "APPLICATION_URL", None, _web_page, "/twiml hands a call on to the TwiML at this URL once it is streamed."
    )
    max_streams: int = setting(
        "MAX_STREAMS", 1000, whole(1, 100_000), "How many media streams each worker takes at once."
    )
    max_streams_per_address: int = setting(
        "MAX_STREAMS_PER_ADDRESS",
        200,
        whole(1, 100_000),
        "How many of them may come from one address. This machine's own are not counted, nor what a tunnel brings.",
    )


class TurnedAway(RelayError):
    """Somebody is not let in. `why` is a word for it, and the message a sentence for whoever asked."""

    def __init__(self, why: str, sentence: str, status: HTTPStatus = HTTPStatus.FORBIDDEN) -> None:
        super().__init__(sentence)
        self.why = why
        self.status = status


WRONG: Final = "The key or pass is wrong, or has expired."
NOTHING_SHOWN: Final = "Neither a key, nor a pass, nor Twilio's signature was shown."
WHAT_TO_SHOW: Final = "`python app.py doctor` prints the TwiML that shows the key."  # to whoever runs us, in the log


class Visit:
    """One WebSocket at our door, from its upgrade to its end."""

    def __init__(self, admission: Admission, address: str | None, stream_pass: str | None, by: str | None) -> None:
        self.address = address  # None: it tells nothing of who it is
        self.stream_pass = stream_pass  # shown in the path, and to be spent when the call is known
        self.by = by  # what it was let in by; None: that is still to be shown
        self.expel: Callable[[], object] = lambda: None  # closes its socket
        self._admission = admission

    @property
    def is_admitted(self) -> bool:
        """Whether it may stream, for all that is known so far."""
        return self.by is not None

    @property
    def has_shown_something(self) -> bool:
        """Whether it is more than a stranger who may yet turn out to be Twilio."""
        return self.is_admitted or self.stream_pass is not None

    def begin(self, call_sid: str, parameters: Mapping[str, str]) -> None:
        """Its stream starts. Raises TurnedAway when it may not."""
        self._admission.begin(self, call_sid, parameters)

    def never_began(self) -> None:
        """It has opened a WebSocket, and then said nothing of a stream."""
        self._admission.doorbook.refuse("no start", "a WebSocket was closed because no start message came")

    def leave(self) -> None:
        """It is over. Does nothing the second time."""
        self._admission.leave(self)


class Admission:
    """Lets in who may send, and no more of them than may."""

    def __init__(
        self, passes: Passes, twilio: TwilioSettings, settings: Settings, doorbook: Doorbook | None = None
    ) -> None:
        """Raises SettingsError for settings that contradict one another."""
        self.twilio = twilio
        self.doorbook = doorbook or Doorbook()
        self.public_url = settings.public_url
        self._passes = passes
        self.stream_key = passes.stream_key
        self._proxies = settings.trusted_proxies
        self._signatures = Signatures(twilio.auth_token, twilio.shared_key_secret)
        self._streams: set[Visit] = set()  # visits that have shown something: strangers take nobody's place
        self._of_address: Counter[str] = Counter()  # how many of them
        self._unproven: dict[Visit, None] = {}  # oldest first
        _check(twilio, settings, self._signatures)

    # --- Media streams --------------------------------------------------------------------------------------

    def enter(self, environ: Mapping[str, Any]) -> Visit:
        """Judges a WebSocket's upgrade, and counts it in until it leaves. Raises TurnedAway."""
        try:
            visit = self._judge(environ)
        except TurnedAway as refusal:
            self._note(refusal)
            raise
        if visit.has_shown_something:
            self._count_in(visit)
        else:
            self._unproven[visit] = None
            self._make_room()
        return visit

    def _judge(self, environ: Mapping[str, Any]) -> Visit:
        path = _MEDIA.fullmatch(environ["PATH_INFO"])
        if path is None:
            raise TurnedAway("path", "There is no WebSocket at this address.", HTTPStatus.NOT_FOUND)
        if self._is_foreign(environ):
            raise TurnedAway("origin", "Pages of other sites open no stream here.")
        address = self._address(environ)
        self._check_bounds(address)
        is_signed = self._is_signed(as_signed(self.url_of("wss", environ["PATH_INFO"])), _headers(environ))
        shown = path[1]
        by = "signature" if is_signed else None
        if shown is None or self._is_key(shown):
            return Visit(self, address, None, by if shown is None else by or "key")
        if self._passes.look(shown, Kind.STREAM) is None:
            raise TurnedAway("credential", WRONG)
        return Visit(self, address, shown, by)

    def begin(self, visit: Visit, call_sid: str, parameters: Mapping[str, str]) -> None:
        """A stream starts: it is now known whose call it is, and all is shown that will be. Raises TurnedAway."""
        try:
            visit.by = self._prove(visit, call_sid, parameters)
        except TurnedAway as refusal:
            visit.by = None
            self._note(refusal)
            raise
        self._unproven.pop(visit, None)
        self._count_in(visit)
        self.doorbook.admitted[visit.by] += 1

    def _prove(self, visit: Visit, call_sid: str, parameters: Mapping[str, str]) -> str:
        """By what it is let in."""
        shown = {text for text in (visit.stream_pass, parameters.get(TOKEN)) if text is not None}
        found = [self._passes.look(text, Kind.STREAM) for text in shown]
        key = parameters.get(KEY)
        if key is not None and not self._is_key(key):
            raise TurnedAway("credential", WRONG)
        # Looked at before any is spent: whoever has stolen a pass cannot use it up without knowing the call.
        if any(one is None or one.call_sid != call_sid for one in found):
            raise TurnedAway("credential", WRONG)
        if not all(one is not None and self._passes.end(one.id) for one in found):  # of several, one succeeds
            raise TurnedAway("credential", WRONG)
        by = visit.by or ("key" if key is not None else None) or ("pass" if found else None)
        if by is None:
            raise TurnedAway("nothing", NOTHING_SHOWN)
        if visit not in self._streams:
            self._check_bounds(visit.address)
        return by

    def _count_in(self, visit: Visit) -> None:
        """Gives it a place among the streams, if it has none yet."""
        if visit not in self._streams:
            self._streams.add(visit)
            if visit.address is not None:
                self._of_address[visit.address] += 1

    def leave(self, visit: Visit) -> None:
        """A WebSocket is over."""
        self._unproven.pop(visit, None)
        if visit in self._streams:
            self._streams.remove(visit)
            if visit.address is not None:
                self._of_address -= Counter((visit.address,))  # which keeps no zeros

    def _make_room(self) -> None:
        """Whoever has not shown who it is for longest goes. Those that can do so at once: a flood keeps nobody out."""
        while len(self._unproven) > UNPROVEN_MOST:
            oldest = next(iter(self._unproven))
            del self._unproven[oldest]
            self.doorbook.refuse("crowd", "Too many sockets had shown nothing yet; the oldest was closed.")
            oldest.expel()

    def _check_bounds(self, address: str | None) -> None:
        if len(self._streams) >= self.twilio.max_streams:
            busy = "As many streams run as MAX_STREAMS allows."
        elif address is not None and self._of_address[address] >= self.twilio.max_streams_per_address:
            busy = "As many streams come from this address as MAX_STREAMS_PER_ADDRESS allows."
        else:
            return
        raise TurnedAway("full", busy, HTTPStatus.SERVICE_UNAVAILABLE)

    def _address(self, environ: Mapping[str, Any]) -> str | None:
        """Who asks, as far as it is known: behind a proxy or a tunnel, only if its word counts."""
        asks: str = environ.get("REMOTE_ADDR", "")
        forwarded = [name.strip() for name in environ.get("HTTP_X_FORWARDED_FOR", asks).split(",")]
        if self._proxies and len(forwarded) >= self._proxies:
            asks = forwarded[-self._proxies]
        try:
            known = ip_address(asks)
        except ValueError:
            return None
        if isinstance(known, IPv6Address):
            known = known.ipv4_mapped or known  # what IPv4 looks like where both are listened to
        return None if known.is_loopback else str(known)

    def _is_foreign(self, environ: Mapping[str, Any]) -> bool:
        """Whether a page of another site asks, through somebody's browser. Twilio names no origin."""
        origin = environ.get("HTTP_ORIGIN")
        ours = {environ.get("HTTP_HOST"), urlsplit(self.public_url or "").netloc} - {None, ""}
        return origin is not None and origin.partition("://")[2] not in ours

    # --- Requests -------------------------------------------------------------------------------------------

    def let_in(
        self,
        path: str,
        shown: str | None,
        headers: Mapping[str, str],
        said: Mapping[str, str] | str,
        *,
        also: str | None = None,
    ) -> None:
        """Judges an HTTP request of Twilio's: signed, or with the key at the end of its path, or with `also` there.

        `path` has its query. Raises TurnedAway.
        """
        try:
            is_signed = self._is_signed((self.url_of("https", path),), headers, said)
            self._check_shown(shown, also, is_signed=is_signed)
        except TurnedAway as refusal:
            self._note(refusal)
            raise

    def _check_shown(self, shown: str | None, also: str | None, *, is_signed: bool) -> None:
        if shown is None and not is_signed:
            raise TurnedAway("nothing", NOTHING_SHOWN)
        if shown is not None and not self._is_key(shown) and not (also and _is_same(shown, also)):
            raise TurnedAway("credential", WRONG)

    def pass_for(self, call_sid: str) -> str:
        """A pass for one stream of this call, to be used at once. Raises OSError."""
        return self._passes.issue(Kind.STREAM, (), for_s=PASS_FOR, call_sid=call_sid)

    def word_for(self, call_sid: str) -> str:
        """What lets Twilio report on this call's streams, and on no other's."""
        return hmac.new(self.stream_key.encode(), f"reports on {call_sid}".encode(), sha256).hexdigest()

    def signed_upgrade(self) -> dict[str, str]:
        """The headers of an upgrade with the stream key, as Twilio signs it; none where we cannot. For looking only."""
        return self._signatures.sign(self.url_of("wss", f"{MEDIA_PATH}/{self.stream_key}")) if self.public_url else {}

    # --- What is shown --------------------------------------------------------------------------------------

    def _is_signed(self, urls: tuple[str, ...], headers: Mapping[str, str], said: Mapping[str, str] | str = "") -> bool:
        """Whether Twilio signed it. Raises TurnedAway where that must be and is not."""
        if not self.looks_at_signatures:
            return False
        found = self._signatures.check(urls, headers, said)
        self.doorbook.signatures[found] += 1
        if found is Signature.VALID:
            return True
        if self.twilio.signature == "enforce":
            raise TurnedAway("signature", f"Twilio's signature is {found}, and TWILIO_SIGNATURE=enforce asks for it.")
        self.doorbook.tell(f"Twilio's signature on a stream or request is {found}; `doctor` says what it should sign.")
        return False

    @property
    def looks_at_signatures(self) -> bool:
        """Whether they matter, and can be checked."""
        return self.twilio.signature != "off" and self._signatures.can_be_checked and self.public_url is not None

    def url_of(self, scheme: str, path: str) -> str:
        """Where Twilio finds a path of ours. It is never made from the request's own Host, which anybody may choose."""
        own_scheme, _, rest = (self.public_url or "").partition("://")
        plain = own_scheme == "http"
        return f"{scheme[:-1] if plain else scheme}://{rest}{path}"

    def _is_key(self, shown: str) -> bool:
        return _is_same(shown, self.stream_key)

    def _note(self, refusal: TurnedAway) -> None:
        advice = f" {WHAT_TO_SHOW}" if refusal.why in ("nothing", "credential") else ""
        self.doorbook.refuse(refusal.why, f"A stream or request was refused: {refusal}{advice}")


def _is_same(one: str, other: str) -> bool:
    """Takes the same time however much of them agrees."""
    return hmac.compare_digest(one.encode(), other.encode())


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The headers a signature is in."""
    names = {"X-Twilio-Signature", "X-Twilio-Webhooks-Signature-Settings"}
    return {name: environ.get(f"HTTP_{name.upper().replace('-', '_')}", "") for name in names}


def _check(twilio: TwilioSettings, settings: Settings, signatures: Signatures) -> None:
    if twilio.signature == "enforce":
        if not signatures.can_be_checked:
            raise SettingsError("TWILIO_AUTH_TOKEN should be set: TWILIO_SIGNATURE=enforce checks signatures with it.")
        if settings.public_url is None:
            raise SettingsError("PUBLIC_URL should be set: TWILIO_SIGNATURE=enforce needs to know what Twilio signs.")
    if twilio.dial_number and twilio.application_url:
        raise SettingsError("DIAL_NUMBER or APPLICATION_URL should be empty: a call is handed on to one of them.")

"""Who may do what: every route declares it, and nothing is answered where nothing was declared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import gevent
from flask import Flask, Response, current_app, g, redirect, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import get_host
from werkzeug.urls import iri_to_uri
from werkzeug.wrappers import Response as AnyResponse

from relay.passes import Kind, Pass, Passes, Scope
from relay.settings import Settings

log = logging.getLogger(__name__)

View = TypeVar("View", bound=Callable[..., Any])

LOGIN: Final = "/login"
HOW_TO_COME_IN: Final = "Log in, or send a token: `Authorization: Bearer TOKEN`."
SWEEP_EVERY: Final = 3600.0  # seconds
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # which change nothing (RFC 9110, 9.2.1)
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "media-src 'self'",
            "connect-src 'self'",
            "font-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # links of ours hold tokens
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}


# --- What a route declares ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Needed:
    """A pass with this scope; one for the call that the path's `sid`, or else this parameter, names will do."""

    scope: Scope
    call_parameter: str | None = None

    def call_sid(self) -> str | None:
        """The call that is asked for; None: more than one may be."""
        named: str | None = (request.view_args or {}).get("sid")
        return request.args.get(self.call_parameter) if named is None and self.call_parameter else named


OPEN: Final = "open to all"
TWILIO: Final = "for Twilio"
DECLARED: Final = "declared_access"  # the attribute of a view that holds one of these


def needs(scope: Scope, call_parameter: str | None = None) -> Callable[[View], View]:
    """Declares that a route needs a pass with this scope. If it has a `sid` in its path, one for that call will do."""
    return partial(_declare, Needed(scope, call_parameter))


def open_to_all(view: View) -> View:
    """Declares that a route shows nothing and changes nothing that concerns a call."""
    return _declare(OPEN, view)


def for_twilio(view: View) -> View:
    """Declares that a route is for Twilio, or for whoever has the stream key: it looks at that itself."""
    return _declare(TWILIO, view)


def _declare(access: Needed | str, view: View) -> View:
    setattr(view, DECLARED, access)
    return view


# --- The guard ----------------------------------------------------------------------------------------------


def guard(app: Flask, settings: Settings, passes: Passes | None) -> None:
    """Lets nobody past who may not. Without passes only what is open is answered."""
    if proxies := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # as Flask's documentation has it
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies, x_prefix=0
        )
    app.before_request(lambda: _let_in(settings, passes))
    app.after_request(_with_headers)


def check_declared(app: Flask) -> None:
    """Raises LookupError if a route has declared no access."""
    for rule in app.url_map.iter_rules():
        if getattr(app.view_functions[rule.endpoint], DECLARED, None) is None:
            raise LookupError(f"The route {rule} declares no access: needs(...), open_to_all or for_twilio.")


def _let_in(settings: Settings, passes: Passes | None) -> AnyResponse | None:
    g.visitor, g.may_still = None, lambda: False
    if request.endpoint is None:  # there is no such path, or not with this method
        return None
    declared = getattr(current_app.view_functions[request.endpoint], DECLARED, None)
    if declared == TWILIO:
        return None
    if is_foreign(settings):
        raise Forbidden("This was asked by a page of another site.")
    if passes is not None and (visitor := _visitor(settings, passes)) is not None:
        g.visitor, g.may_still = visitor, partial(passes.still_good, visitor)
    if declared == OPEN:
        return None
    if g.visitor is None:
        return _ask_who_it_is(passes)
    if not isinstance(declared, Needed) or not g.visitor.allows(declared.scope, declared.call_sid()):
        raise Forbidden("What you came in with does not allow this.")
    return None


def _visitor(settings: Settings, passes: Passes) -> Pass | None:
    credentials = request.authorization
    if credentials is not None and credentials.type == "bearer":  # a tunnel's own log-in may be of another type
        return passes.look(credentials.token or "", Kind.TOKEN)
    text = request.cookies.get(cookie_name(settings), "")
    return passes.look(text, Kind.SESSION) or passes.look(text, Kind.SHARE)


def _ask_who_it_is(passes: Passes | None) -> AnyResponse:
    is_page = not request.path.startswith("/api/") and "text/html" in request.accept_mimetypes.values()
    if is_page and passes is not None and request.method in ("GET", "HEAD"):
        asked_for = iri_to_uri(request.full_path.removesuffix("?"))
        return redirect(f"{LOGIN}?{urlencode({'next': asked_for})}", HTTPStatus.SEE_OTHER)
    raise Unauthorized(HOW_TO_COME_IN, www_authenticate=WWWAuthenticate("bearer"))


def is_foreign(settings: Settings) -> bool:
    """Whether a page of another site asks, through somebody's browser, for more than to be led here.

    Browsers say in Sec-Fetch-Site whose page asks (https://www.w3.org/TR/fetch-metadata/), older ones in Origin if it
    matters. What carries a cookie, changes something and says neither is from no browser of today.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    is_safe = request.method in SAFE_METHODS
    if site is not None:
        is_link = is_safe and request.headers.get("Sec-Fetch-Mode") == "navigate"
        return site not in ("same-origin", "none") and not is_link
    if origin is not None:
        return origin.partition("://")[2] not in _our_hosts(settings)
    return not is_safe and cookie_name(settings) in request.cookies


def _our_hosts(settings: Settings) -> set[str]:
    """Under which names we may be asked. The scheme does not count: a proxy may have taken TLS off."""
    return {request.host, _public(settings)[1]} - {""}


def is_secure(settings: Settings) -> bool:
    """Whether the browser asks by https, as far as we can know."""
    return request.is_secure or ("https", request.host) == _public(settings)


def _public(settings: Settings) -> tuple[str, str]:
    """The scheme and host of the public URL, as browsers write them: without the port where it is the usual one."""
    url = urlsplit(settings.public_url or "")
    return url.scheme, get_host(url.scheme, url.netloc.lower())


def cookie_name(settings: Settings) -> str:
    """What the session's cookie is called: browsers keep cookies for a host, whichever of its ports they are from.

    A name with __Host- is taken by browsers from the host itself only, and by https.
    """
    if is_secure(settings):
        return "__Host-session"
    port = request.host.rpartition(":")[2]
    return f"session-{port}" if port.isdecimal() else "session"


def still_allowed() -> Callable[[], bool]:
    """Tells of this request's visitor, also later on, whether the pass it came with is still good."""
    return g.may_still  # type: ignore[no-any-return]


def sweep_hourly(passes: Passes) -> None:
    """Removes passes that are worth nothing any more, now and for ever."""
    while True:
        try:
            gevent.get_hub().threadpool.apply(passes.sweep)
        except OSError as trouble:
            log.warning("ACCESS_FOLDER cannot be swept: %s", trouble.strerror)
        gevent.sleep(SWEEP_EVERY)


def _with_headers(answer: Response) -> Response:
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    declared = getattr(current_app.view_functions.get(request.endpoint or ""), DECLARED, None)
    if isinstance(declared, Needed):
        answer.headers.setdefault("Cache-Control", "no-store")  # what was said is kept by no cache on the way
    return answer

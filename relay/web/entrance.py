"""The entrance: logging in and out, the access link, and links to one call."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final, TypedDict
from urllib.parse import quote

import orjson
from flask import Blueprint, Response, g, redirect, render_template, request
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from werkzeug.exceptions import BadRequest, NotFound, ServiceUnavailable
from werkzeug.wrappers import Response as AnyResponse

from relay.passes import Kind, Passes, Scope
from relay.settings import Settings, read, setting
from relay.store.records import as_time
from relay.store.store import Store, StoreError
from relay.text import printable
from relay.web.access import LOGIN, cookie_name, is_secure, needs, open_to_all
from relay.web.openapi import SHARE_HOURS, SHARE_HOURS_MOST

log = logging.getLogger(__name__)

SESSION_S: Final = 7 * 86_400  # seconds: who looks in once a week logs in once a week
SHORTEST_PASSWORD: Final = 8  # characters; with the limits below, it takes longer to try them out than it lasts
SHORTEST_TOKEN: Final = 20  # of which nobody counts the tries
LONGEST_SECRET: Final = 200
TRIES_OF_ONE: Final = RateLimitItemPerMinute(10, 5)  # wrong passwords from one address, in five minutes
TRIES_OF_ALL: Final = RateLimitItemPerMinute(100, 5)  # ... from anywhere
HOUSEHOLD_BITS: Final = 64  # of an IPv6 address: who has one address of such a network has all of them

_LOCAL: Final = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")  # a path here: browsers take \ for /, and // for a host


class CookieAttributes(TypedDict):
    """Of the session's cookie."""

    path: str
    secure: bool
    httponly: bool
    samesite: str


def _secret(shortest: int) -> Callable[[str], str]:
    """A secret that is long enough."""

    def read_secret(value: str) -> str:
        if not (shortest <= len(value) <= LONGEST_SECRET and value.isprintable()):
            raise ValueError(f"{shortest} to {LONGEST_SECRET} characters on one line")
        return value

    return read_secret


def _token(value: str) -> str:
    """A secret that can be part of a link as it is."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
        raise ValueError(f"{SHORTEST_TOKEN} to {LONGEST_SECRET} letters, digits, - and _")
    return _secret(SHORTEST_TOKEN)(value)


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may see calls."""

    password: str | None = setting(
        "VIEWER_PASSWORD",
        None,
        _secret(SHORTEST_PASSWORD),
        f"What people log in with; at least {SHORTEST_PASSWORD} characters. With it, no access link is printed.",
        secret=True,
    )
    token: str | None = setting(
        "VIEWER_TOKEN",
        None,
        _token,
        f"The secret of the access link, /enter/VIEWER_TOKEN; at least {SHORTEST_TOKEN} letters and digits. By default "
        "a random one at each start, whose link is printed.",
        secret=True,
    )

    def knows(self, given: str) -> bool:
        """Whether this is one of the secrets. Takes as long for a near miss as for a wide one."""
        known = [secret.encode() for secret in (self.password, self.token) if secret is not None]
        return any(hmac.compare_digest(given.encode(errors="replace"), secret) for secret in known)


def with_access_link(environ: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """The environment with a random VIEWER_TOKEN, and that; None, and the same, if it says how to get in already."""
    chosen = read(AccessSettings, environ)
    if chosen.password is not None or chosen.token is not None:
        return dict(environ), None
    token = secrets.token_urlsafe(24)
    return {**environ, "VIEWER_TOKEN": token}, token


class Tries:
    """Counts wrong passwords, in this process: of each address, and of all."""

    def __init__(self) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def wait_s(self, address: str) -> int:
        """How many seconds one has to wait before another try; 0: none."""
        for limit, whose in self._limits(address):
            if not self._limiter.test(limit, whose):
                return max(1, ceil(self._limiter.get_window_stats(limit, whose).reset_time - time.time()))
        return 0

    def failed(self, address: str) -> None:
        """Counts one. As no more than `TRIES_OF_ALL` are, no more addresses are kept."""
        for limit, whose in self._limits(address):
            self._limiter.hit(limit, whose)

    @staticmethod
    def _limits(address: str) -> tuple[tuple[RateLimitItem, str], ...]:
        return (TRIES_OF_ONE, household(address)), (TRIES_OF_ALL, "all")


def household(address: str) -> str:
    """What somebody's tries are counted by: the address, or the network that an IPv6 address is one of many of."""
    try:
        known = ip_address(address)
    except ValueError:
        return "unknown"
    if not isinstance(known, IPv6Address):
        return str(known)
    return str(known.ipv4_mapped or int(known) >> (128 - HOUSEHOLD_BITS))


def entrance(passes: Passes, chosen: AccessSettings, settings: Settings, store: Store | None) -> Blueprint:
    """Where one comes in and goes out. Links to one call need a store."""
    part = Blueprint("entrance", __name__)
    tries = Tries()

    @part.get(LOGIN)
    @open_to_all
    def login_page() -> AnyResponse:
        if g.visitor is not None and g.visitor.kind is Kind.SESSION:
            return _led_to(request.args.get("next"))
        return _login_page(chosen)

    @part.post(LOGIN)
    @open_to_all
    def login() -> AnyResponse:
        address, given = request.remote_addr or "", request.form.get("password", "")
        if wait_s := tries.wait_s(address):
            answer = _login_page(chosen, "Too many wrong passwords. Wait a few minutes.", HTTPStatus.TOO_MANY_REQUESTS)
            answer.headers["Retry-After"] = str(wait_s)
            return answer
        if not chosen.knows(given):
            tries.failed(address)
            log.warning("a wrong password was given, from %s", printable(address))  # a proxy may pass on any text
            asked_for = "password" if chosen.password is not None else "token"
            return _login_page(chosen, f"That is not the {asked_for}.", HTTPStatus.FORBIDDEN)
        return _admitted(passes, settings, request.form.get("next"))

    @part.get("/enter/<token>")
    @open_to_all
    def enter(token: str) -> AnyResponse:
        """The access link. Tries are not counted: it is too long to be guessed, and a flood must not lock it."""
        if not AccessSettings(token=chosen.token).knows(token):
            wrong = "This link is of an earlier start of the server. The newest one is in its terminal."
            return _login_page(chosen, wrong, HTTPStatus.FORBIDDEN)
        return _admitted(passes, settings, request.args.get("next"))

    @part.post("/logout")
    @open_to_all
    def logout() -> AnyResponse:
        if g.visitor is not None and g.visitor.kind is Kind.SESSION:
            passes.end(g.visitor.id)
        answer = redirect(LOGIN, HTTPStatus.SEE_OTHER)
        answer.delete_cookie(cookie_name(settings), **_cookie_attributes(settings))
        return answer

    @part.get("/share/<text>")
    @open_to_all
    def shared(text: str) -> AnyResponse:
        found = passes.look(text, Kind.SHARE)
        if found is None or found.call_sid is None:
            return Response(render_template("expired.html"), HTTPStatus.FORBIDDEN)
        answer = redirect(f"/calls/{quote(found.call_sid, safe='')}", HTTPStatus.SEE_OTHER)
        if g.visitor is None or g.visitor.kind is not Kind.SESSION:  # who sees all calls goes on seeing them
            _keep(answer, settings, text, found.expires_at - int(time.time()))
        return answer

    if store is not None:
        part.add_url_rule("/api/calls/<sid>/share", view_func=_sharing(passes, settings, store), methods=["POST"])

    @part.after_request
    def unkept(answer: Response) -> Response:
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return part


def _sharing(passes: Passes, settings: Settings, store: Store) -> Callable[[str], AnyResponse]:
    @needs(Scope.SHARE)
    def share(sid: str) -> AnyResponse:
        """A link to one call, for whoever has it."""
        hours = _hours(request.get_data())
        try:
            known = "\0" not in sid and store.call(sid) is not None
        except StoreError as trouble:
            raise ServiceUnavailable(str(trouble), retry_after=5) from None
        if not known:
            raise NotFound("There is no such call.")
        text = _issued(passes, Kind.SHARE, {Scope.READ}, for_s=hours * 3600, call_sid=sid)
        base = settings.public_url or request.url_root.rstrip("/")
        said = {"url": f"{base}/share/{text}", "expires_at": as_time(round(time.time() + hours * 3600) * 1000)}
        return Response(orjson.dumps(said), HTTPStatus.CREATED, mimetype="application/json")

    return share


def _hours(body: bytes) -> int:
    """How long a link is to be good. Raises BadRequest."""
    try:
        asked = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        asked = None
    hours = asked.get("hours", SHARE_HOURS) if isinstance(asked, dict) and asked.keys() <= {"hours"} else None
    # In JSON, 24.0 is a whole number; in Python, so is True.
    if isinstance(hours, bool) or not isinstance(hours, int | float) or hours % 1 or not 1 <= hours <= SHARE_HOURS_MOST:
        raise BadRequest(f'Send {{"hours": HOURS}}, a whole number from 1 to {SHARE_HOURS_MOST}, or nothing.')
    return int(hours)


def _issued(passes: Passes, kind: Kind, scopes: Iterable[Scope], *, for_s: int, **more: str) -> str:
    try:
        return passes.issue(kind, scopes, for_s=for_s, **more)
    except OSError as trouble:
        log.error("nothing can be written to ACCESS_FOLDER: %s", trouble.strerror)  # noqa: TRY400  # that is all of it
        raise ServiceUnavailable("The server cannot write who may see; its log says why.") from None


def _admitted(passes: Passes, settings: Settings, to: str | None) -> AnyResponse:
    """A new session, so that nobody can have known it before; the one there was ends."""
    text = _issued(passes, Kind.SESSION, Scope, for_s=SESSION_S, name=request.remote_addr or "")
    if g.visitor is not None and g.visitor.kind is Kind.SESSION:
        passes.end(g.visitor.id)
    answer = _led_to(to)
    _keep(answer, settings, text, SESSION_S)
    return answer


def _keep(answer: AnyResponse, settings: Settings, text: str, for_s: int) -> None:
    answer.set_cookie(cookie_name(settings), text, max_age=for_s, **_cookie_attributes(settings))


def _cookie_attributes(settings: Settings) -> CookieAttributes:
    return {"path": "/", "secure": is_secure(settings), "httponly": True, "samesite": "Lax"}


def _led_to(path: str | None) -> AnyResponse:
    """To a path of ours, and nowhere else."""
    return redirect(path if path and _LOCAL.fullmatch(path) else "/", HTTPStatus.SEE_OTHER)


def _login_page(chosen: AccessSettings, wrong: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    page = render_template(
        "login.html", wrong=wrong, has_password=chosen.password is not None, next=request.values.get("next", "/")
    )
    return Response(page, status)

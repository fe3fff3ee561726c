"""One HTTP request to a speech service, with a deadline; errors leave here as ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, build_opener
from urllib.request import Request as UrlRequest

import gevent

from relay.errors import Lost
from relay.protocol import Request
from relay.text import printable

LARGEST_ANSWER: Final = 16 * 1024 * 1024  # bytes; three hours of words with their times are a few million


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _StayHere(HTTPRedirectHandler):
    """No redirect is followed: it would carry the key to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER: Final = build_opener(_StayHere)


def fetch(name: str, request: Request, within: float) -> Response:
    """The answer of the service of this name, whatever its status. Raises Lost when there is none in time."""
    asked = UrlRequest(  # noqa: S310  # the scheme was checked with the settings
        request.url, request.body or None, dict(request.headers), method=request.method
    )
    try:
        with gevent.Timeout(within, Lost(f"{name} did not answer within {within:g} s")):
            try:
                with _OPENER.open(asked) as answer:
                    return Response(answer.status, _lower(answer.headers), answer.read(LARGEST_ANSWER))
            except HTTPError as refusal:
                with refusal:
                    return Response(refusal.code, _lower(refusal.headers), refusal.read(LARGEST_ANSWER))
    except URLError as trouble:
        raise Lost(f"{name} could not be asked ({_short(trouble.reason)})") from None
    except (HTTPException, OSError) as trouble:
        raise Lost(f"{name} could not be asked ({_short(trouble)})") from None


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _short(trouble: object) -> str:
    return printable(" ".join(str(trouble).split()), 120) or type(trouble).__name__

"""One HTTP request to a speech service, with a deadline; errors leave here as ours."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse, InvalidURL
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener
from urllib.request import Request as UrlRequest

import gevent

from relay.connection import LOCAL_HOSTS
from relay.errors import Lost, Refused, ServiceError
from relay.protocol import Request
from relay.text import printable

USER_AGENT: Final = "call-relay/0.1"  # under urllib's own name some front doors turn a request away
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
_LOCAL_OPENER: Final = build_opener(_StayHere, ProxyHandler({}))


def fetch(name: str, request: Request, within: float) -> Response:
    """The answer of the service of this name, whatever its status.

    Raises Lost when none comes whole and in time, and Refused when the service cannot be asked at all.
    """
    try:
        asked = UrlRequest(  # noqa: S310  # the scheme was checked with the settings
            request.url, request.body or None, {"User-Agent": USER_AGENT, **request.headers}, method=request.method
        )
        opener = _LOCAL_OPENER if urlsplit(request.url).hostname in LOCAL_HOSTS else _OPENER
        with gevent.Timeout(within, Lost(f"{name} did not answer within {within:g} s")):
            try:
                with opener.open(asked) as answer:
                    return Response(answer.status, _lower(answer.headers), _whole(name, answer))
            except HTTPError as refusal:
                with refusal:
                    return Response(refusal.code, _lower(refusal.headers), refusal.read(LARGEST_ANSWER))
    except URLError as trouble:
        raise _not_asked(name, trouble.reason) from None
    except OSError as trouble:
        raise _not_asked(name, trouble) from None
    except (InvalidURL, ValueError):  # which repeat the address, or what cannot be encoded of the key
        raise Refused(f"{name}'s key or address has characters that cannot be sent") from None
    except HTTPException as trouble:  # which repeats what was answered, whatever that is
        raise Lost(f"{name}'s answer is not what HTTP should look like ({type(trouble).__name__})") from None


def _whole(name: str, answer: HTTPResponse) -> bytes:
    """The body, if it is not too large and none of it is missing: `read` with a size does not look for that."""
    body = answer.read(LARGEST_ANSWER + 1)
    if len(body) > LARGEST_ANSWER:
        raise Lost(f"{name}'s answer is larger than {LARGEST_ANSWER >> 20} MiB")
    if answer.length:
        raise Lost(f"{name}'s answer broke off")
    return body


def _not_asked(name: str, trouble: object) -> ServiceError:
    if isinstance(trouble, ssl.SSLCertVerificationError):
        return Refused(f"{name}'s certificate cannot be verified ({_short(trouble)})")
    return Lost(f"{name} could not be asked ({_short(trouble)})")


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _short(trouble: object) -> str:
    return printable(" ".join(str(trouble).split()), 120) or type(trouble).__name__

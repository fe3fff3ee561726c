"""The page: calls now and before, one call as a conversation, and the files that show them in a browser.

What is seen comes over the API and the live feed; a template holds nothing that somebody said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, g, make_response, render_template, request
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.wrappers import Response as AnyResponse

from relay.passes import Passes, Scope
from relay.settings import Settings
from relay.store.store import Store, StoreError
from relay.twilio import twiml
from relay.web.access import needs, open_to_all
from relay.web.api import PREFIX, problem_below_api
from relay.web.routes import media_url
from relay.web.trial import Trial

FOLDER: Final = Path(__file__).with_name("static")
MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class File:
    """A file as browsers get it. They keep it, and ask each time whether it is still the same."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """Another one for other content."""
        return sha256(self.content).hexdigest()[:20]


def read_files(folder: Path = FOLDER) -> Mapping[str, File]:
    """The files that the pages are made of, by name. Of other kinds there are none, and no path leads elsewhere."""
    paths = (path for path in folder.iterdir() if path.suffix in MEDIA_TYPES)
    return {path.name: File(path.read_bytes(), MEDIA_TYPES[path.suffix]) for path in paths}


def pages(settings: Settings, passes: Passes, store: Store | None, demo: Trial | None = None) -> Blueprint:
    """What people look at. Without a store there are no calls to be shown."""
    part = Blueprint("pages", __name__)
    files = read_files()

    @part.get("/")
    @needs(Scope.READ)
    def index() -> str:
        return render_template(
            "calls.html" if store is not None else "unkept.html",
            twiml=_twiml(settings, passes),
            demo=demo if Scope.TRY in g.visitor.scopes else None,
        )

    @part.get("/calls/<sid>")
    @needs(Scope.READ)
    def call(sid: str) -> str:
        if store is None or not _may_exist(store, sid):
            raise NotFound("There is no such call.")
        return render_template("call.html", sid=sid, may={scope.value for scope in g.visitor.scopes})

    @part.get("/static/<name>")
    @open_to_all
    def static(name: str) -> Response:
        if (file := files.get(name)) is None:
            raise NotFound("There is no such file.")
        answer = Response(file.content, mimetype=file.media_type)
        answer.set_etag(file.etag)
        answer.cache_control.no_cache = True
        return answer.make_conditional(request)  # type: ignore[return-value]

    part.app_errorhandler(HTTPException)(_wrong)

    @part.app_context_processor
    def who() -> dict[str, object]:
        visitor = g.get("visitor")
        one = None if visitor is None else visitor.call_sid
        return {"sees_all": visitor is not None and one is None, "only_call": one}

    return part


def _twiml(settings: Settings, passes: Passes) -> str | None:
    """What makes Twilio stream a call to us, if we know how it reaches us."""
    url = media_url(settings.public_url)
    return None if url is None else twiml(f"{url}/{passes.stream_key}")


def _wrong(wrong: HTTPException) -> AnyResponse | HTTPException:
    """What is wrong, for people to read; programs get it as the API says it. To be registered after the API."""
    is_page = request.method in ("GET", "HEAD") and "text/html" in request.accept_mimetypes.values()
    status = wrong.code or 0
    if not is_page or status < HTTPStatus.BAD_REQUEST or wrong.response or request.path.startswith(f"{PREFIX}/"):
        return problem_below_api(wrong)
    answer = make_response(render_template("wrong.html", wrong=wrong), status)
    answer.headers.extend((name, value) for name, value in wrong.get_headers() if name != "Content-Type")
    return answer


def _may_exist(store: Store, sid: str) -> bool:
    """While the database is away the page is shown, says so, and finds the call when it is back."""
    try:
        return "\0" not in sid and store.call(sid) is not None
    except StoreError:
        return True

"""The API: calls, what was said on them, words found in it, and the live feed; described at /api/openapi.json."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any, Final

import gevent
import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import Conflict, HTTPException, NotFound, ServiceUnavailable

from relay import export
from relay.store.records import Call, Page
from relay.store.store import StillLive, Store, StoreError
from relay.web.live import Live
from relay.web.openapi import CALLS, DESCRIPTION, LAST_EVENT_ID, LIVE, MEDIA_TYPES, NAMES, PAGE, SEARCH
from relay.web.parameters import Parameter, read_one, read_query

PREFIX: Final = "/api"
COME_BACK_AFTER: Final = 5  # seconds, for who is told that something cannot be had now


def api(store: Store, live: Live) -> Blueprint:
    """All that is answered below /api."""
    part = Blueprint("api", __name__, url_prefix=PREFIX)

    @part.get("/openapi.json")
    def description() -> Response:
        _asked()
        return _json(DESCRIPTION)

    @part.get("/calls")
    def calls() -> Response:
        return _page(store.calls(**{"limit": PAGE, **_asked(*CALLS)}))

    @part.get("/calls/<sid>")
    def call(sid: str) -> Response:
        _asked()
        return _json(_found(store.call(sid)).as_json())

    @part.delete("/calls/<sid>")
    def delete_call(sid: str) -> Response:
        _asked()
        if not store.delete(sid):
            raise _no_such_call()
        return Response(status=HTTPStatus.NO_CONTENT)

    @part.get(f"/calls/<sid>/transcript.<any({','.join(MEDIA_TYPES)}):form>")
    def transcript(sid: str, form: str) -> Response:
        names = {**export.NAMES, **_asked(*(() if form == "json" else NAMES))}
        call, segments, gaps = _found(store.call(sid)), store.segments(sid), store.gaps(sid)
        # That of a long call takes long to write, so a thread does it: the calls go on meanwhile.
        write = partial(export.written, form, call, segments, gaps, names=names)
        return Response(gevent.get_hub().threadpool.apply(write), mimetype=MEDIA_TYPES[form])

    @part.get("/search")
    def search() -> Response:
        asked = {"limit": PAGE, **_asked(*SEARCH)}
        return _page(store.search(asked.pop("q"), call_sid=asked.pop("call", None), **asked))

    @part.get("/live")
    def live_feed() -> Response:
        asked = _asked(*LIVE)
        if came_back := request.headers.get(LAST_EVENT_ID.name):
            asked["last_event_id"] = read_one(LAST_EVENT_ID, came_back)
        if not live.has_room:
            raise _later("As many watch as may at once.")
        events = live.watch(asked.get("call"), asked.get("last_event_id"))
        return Response(events, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @part.after_request
    def private(answer: Response) -> Response:
        """What was said is kept by no cache on the way, and taken for a page by no browser."""
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    part.register_error_handler(StoreError, lambda trouble: _problem(_later(str(trouble))))
    part.register_error_handler(StillLive, lambda trouble: _problem(Conflict(str(trouble))))
    part.app_errorhandler(HTTPException)(_problem_below_api)
    return part


def _asked(*parameters: Parameter) -> dict[str, Any]:
    if "\0" in request.path:  # which is in no SID, and which PostgreSQL takes in no text
        raise _no_such_call()
    return read_query(request.args, parameters)


def _found(call: Call | None) -> Call:
    if call is None:
        raise _no_such_call()
    return call


def _no_such_call() -> NotFound:
    return NotFound("There is no such call.")


def _later(sentence: str) -> ServiceUnavailable:
    return ServiceUnavailable(sentence, retry_after=COME_BACK_AFTER)


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), mimetype="application/json")


def _page(page: Page[Any]) -> Response:
    return _json({"items": [item.as_json() for item in page.items], "next": page.next})


# --- What is wrong, as RFC 9457 has it ----------------------------------------------------------------------


def _problem_below_api(wrong: HTTPException) -> Response | HTTPException:
    """Also of paths and methods that there are not."""
    return _problem(wrong) if request.path.startswith(f"{PREFIX}/") else wrong


def _problem(wrong: HTTPException) -> Response:
    status = HTTPStatus(wrong.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    said = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": wrong.description}
    answer = Response(orjson.dumps(said), status, mimetype="application/problem+json")
    answer.headers.extend((name, value) for name, value in wrong.get_headers() if name != "Content-Type")
    return answer

"""The API: calls, what was said on them, words found in it, and the live feed; described at /api/openapi.json."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

import gevent
import orjson
from flask import Blueprint, Response, request
from werkzeug.exceptions import Conflict, HTTPException, NotFound, ServiceUnavailable

from relay import export
from relay.passes import Scope
from relay.store.records import CallSoFar, Page
from relay.store.store import StillLive, Store, StoreError
from relay.web.access import needs, still_allowed
from relay.web.live import Live
from relay.web.openapi import (
    CALLS,
    DEMO_CALL,
    DESCRIPTION,
    LAST_EVENT_ID,
    LIVE,
    MEDIA_TYPES,
    NAMES,
    PAGE,
    POINTS,
    SEARCH,
    WAVEFORM,
)
from relay.web.parameters import Parameter, read_one, read_query
from relay.web.sound import Sound

T = TypeVar("T")

PREFIX: Final = "/api"
COME_BACK_AFTER: Final = 5  # seconds, for who is told that something cannot be had now
NOT_NOW: Final = "The database cannot be asked just now; the server's log says why."  # who has a shared link asks, too


def api(store: Store, live: Live) -> Blueprint:
    """All that is answered below /api."""
    part = Blueprint("api", __name__, url_prefix=PREFIX)
    sound = Sound()

    @part.get("/openapi.json")
    @needs(Scope.READ)
    def description() -> Response:
        _asked()
        return json_answer(DESCRIPTION)

    @part.get("/calls")
    @needs(Scope.READ)
    def calls() -> Response:
        return _page(store.calls(**{"limit": PAGE, **_asked(*CALLS)}))

    @part.get("/calls/<sid>")
    @needs(Scope.READ)
    def call(sid: str) -> Response:
        _asked()
        return json_answer(_found(store.call(sid)).as_json())

    @part.delete("/calls/<sid>")
    @needs(Scope.DELETE)
    def delete_call(sid: str) -> Response:
        _asked()
        if not store.delete(sid):
            raise _no_such_call()
        return Response(status=HTTPStatus.NO_CONTENT)

    @part.get(f"/calls/<sid>/transcript.<any({','.join(MEDIA_TYPES)}):form>")
    @needs(Scope.READ)
    def transcript(sid: str, form: str) -> Response:
        names = {**export.NAMES, **_asked(*(() if form == "json" else NAMES))}
        all_of_it = _found(store.transcript(sid))
        # That of a long call takes long to write, so a thread does it: the calls go on meanwhile.
        write = partial(_written, form, all_of_it, names)
        return Response(gevent.get_hub().threadpool.apply(write), mimetype=MEDIA_TYPES[form])

    @part.get("/calls/<sid>/recording.wav")
    @needs(Scope.READ)
    def recording(sid: str) -> Response:
        _asked()
        return sound.played(_found(store.call(sid)))

    @part.get("/calls/<sid>/waveform.json")
    @needs(Scope.READ)
    def drawn(sid: str) -> Response:
        points = _asked(*WAVEFORM).get("points", POINTS)
        return json_answer(sound.drawn(_found(store.call(sid)), points))

    @part.get("/search")
    @needs(Scope.READ)
    def search() -> Response:
        asked = {"limit": PAGE, **_asked(*SEARCH)}
        return _page(store.search(asked.pop("q"), call_sid=asked.pop("call", None), **asked))

    @part.get("/live")
    @needs(Scope.READ, call_parameter="call")
    def live_feed() -> Response:
        asked = _asked(*LIVE)
        if came_back := request.headers.get(LAST_EVENT_ID.name):
            asked["last_event_id"] = read_one(LAST_EVENT_ID, came_back)
        if not live.has_room:
            raise later("As many watch as may at once.")
        events = live.watch(asked.get("call"), asked.get("last_event_id"), may_still=still_allowed())
        return Response(events, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})

    part.register_error_handler(StoreError, lambda trouble: _problem(later(NOT_NOW)))
    part.register_error_handler(StillLive, lambda trouble: _problem(Conflict(str(trouble))))
    part.app_errorhandler(HTTPException)(problem_below_api)
    return part


def _asked(*parameters: Parameter) -> dict[str, Any]:
    if "\0" in request.path:  # which is in no SID, and which PostgreSQL takes in no text
        raise _no_such_call()
    return read_query(request.args, parameters)


def _found(call: T | None) -> T:
    if call is None:
        raise _no_such_call()
    return call


def _written(form: str, call: CallSoFar, names: Mapping[str, str]) -> bytes:
    if form == "json":
        return orjson.dumps(call.as_json())
    return export.written(form, call.call, call.segments, call.gaps, names=names)


def _no_such_call() -> NotFound:
    return NotFound("There is no such call.")


def later(sentence: str) -> ServiceUnavailable:
    """What is asked for cannot be had now, and why."""
    return ServiceUnavailable(sentence, retry_after=COME_BACK_AFTER)


def json_answer(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """An answer that is a document."""
    return Response(orjson.dumps(value), status, mimetype="application/json")


def _page(page: Page[Any]) -> Response:
    return json_answer({"items": [item.as_json() for item in page.items], "next": page.next})


# --- What is wrong, as RFC 9457 has it ----------------------------------------------------------------------


def problem_below_api(wrong: HTTPException) -> Response | HTTPException:
    """Also of paths and methods that there are not."""
    return _problem(wrong) if request.path.startswith((f"{PREFIX}/", DEMO_CALL)) else wrong


def _problem(wrong: HTTPException) -> Response:
    status = HTTPStatus(wrong.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    said = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": wrong.description}
    answer = Response(orjson.dumps(said), status, mimetype="application/problem+json")
    answer.headers.extend((name, value) for name, value in wrong.get_headers() if name != "Content-Type")
    return answer

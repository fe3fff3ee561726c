"""The API described as OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0): data, and the parameters routes read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from relay.events import Track
from relay.store.records import Kind, State
from relay.web.parameters import (
    LARGEST_ID,
    LONGEST_NAME,
    LONGEST_SID,
    LONGEST_WORDS,
    Parameter,
    Schema,
    choice,
    cursor,
    line,
    moment,
    number,
    phone,
)

PAGE: Final = 50  # items on one, unless asked otherwise
PAGE_MOST: Final = 200
SHARE_HOURS: Final = 24  # for which a link to a call is good, unless asked otherwise
SHARE_HOURS_MOST: Final = 30 * 24

POINTS: Final = 1000  # of a waveform, unless asked otherwise
POINTS_LEAST: Final = 10
POINTS_MOST: Final = 4000

DEMO_CALL: Final = "/demo-call"  # where it is asked for

INTERIM: Final = "interim"  # kinds of events that are nowhere stored
STATUS: Final = "status"
UNSAVED: Final = "final-unsaved"
UNOPENED: Final = "stream-unopened"

# --- Parameters ---------------------------------------------------------------------------------------------

_CURSOR: Final = cursor("cursor", "Where the page begins: `next` of the page before it.")
_LIMIT: Final = number("limit", f"How many items the page has at most; {PAGE} if not given.", 1, PAGE_MOST)
_CALL: Final = line("call", "Only this call, by its SID.", LONGEST_SID)
_LAST_ID: Final = number("last_event_id", "The events that follow this id come first; 0 for all.", 0, LARGEST_ID)

CALLS: Final = (
    choice("state", "Calls that still run, or that have ended.", *State),
    phone(
        "number",
        "A part of the caller's or the called number. Blanks, brackets, dots and dashes between digits do not count.",
        LONGEST_SID,
    ),
    moment("since", "Calls that began then or later."),
    moment("until", "Calls that began before that."),
    line("service", "Calls to which this service listened.", LONGEST_SID),
    line(
        "text",
        'Calls in which all these words were said in one segment; "quoted words" follow one another.',
        LONGEST_WORDS,
    ),
    _CURSOR,
    _LIMIT,
)
NAMES: Final = (
    line("inbound", "What the speaker of the inbound track is called.", LONGEST_NAME),
    line("outbound", "What the speaker of the outbound track is called.", LONGEST_NAME),
)
SEARCH: Final = (
    line(
        "q",
        'Words that were all said in one segment. "Quoted words" follow one another; wor* begins a word.',
        LONGEST_WORDS,
        required=True,
    ),
    _CALL,
    choice("track", "Only this side of the calls.", *Track),
    number("speaker", "Only this speaker, where the service tells speakers apart; the first is 0.", 0, 1000),
    _CURSOR,
    _LIMIT,
)
WAVEFORM: Final = (
    number("points", f"How many points the waveform has at most; {POINTS} if not given.", POINTS_LEAST, POINTS_MOST),
)
LIVE: Final = (_CALL, _LAST_ID)
LAST_EVENT_ID: Final = replace(
    _LAST_ID, name="Last-Event-ID", about="The same, as browsers send it when they come back.", place="header"
)

# --- Schemas ------------------------------------------------------------------------------------------------

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NONE: Final[Schema] = {"type": ["string", "null"]}
_WHOLE: Final[Schema] = {"type": "integer"}
_WHOLE_OR_NONE: Final[Schema] = {"type": ["integer", "null"]}
_YES_OR_NO: Final[Schema] = {"type": "boolean"}
_SURE: Final[Schema] = {"type": "number", "description": "From 0 to 1."}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_TIME_OR_NONE: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_TRACK: Final[Schema] = {"type": "string", "enum": list(Track)}
_MS: Final[Schema] = {
    "type": "integer",
    "description": "Milliseconds on the call's clock, which starts with its audio.",
}


def _object(about: str, **properties: Schema) -> Schema:
    """An object that has all of these properties and no other."""
    return {
        "type": "object",
        "description": about,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _of(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _page_of(name: str) -> Schema:
    following = {"type": ["string", "null"], "description": "The cursor of the next page; null when there is none."}
    return _object("Some of what was asked for.", items=_list_of(_of(name)), next=following)


SCHEMAS: Final[dict[str, Schema]] = {
    "Call": _object(
        "One call, however many streams it had. A live call's duration is how far it has come.",
        call_sid=_TEXT,
        state={"type": "string", "enum": list(State)},
        caller=_TEXT,
        called=_TEXT,
        started_at=_TIME,
        ended_at=_TIME_OR_NONE,
        end_reason=_TEXT_OR_NONE,
        duration_ms=_WHOLE,
        recorded=_YES_OR_NO,
        services=_list_of(_TEXT),
        streams=_list_of(_of("Stream")),
    ),
    "Stream": _object(
        "One media stream of a call: its audio came from `offset_ms` up to `heard_ms`.",
        stream_sid=_TEXT,
        tracks=_list_of(_TRACK),
        services=_list_of(_TEXT),
        started_at=_TIME,
        ended_at=_TIME_OR_NONE,
        end_reason=_TEXT_OR_NONE,
        offset_ms=_MS,
        heard_ms=_MS,
        summary={"type": ["object", "null"], "description": "What was counted and measured, once it has ended."},
    ),
    "Segment": _object(
        "What was said on one track, as one service understood it, and final.",
        id=_WHOLE,
        track=_TRACK,
        start_ms=_MS,
        end_ms=_MS,
        text=_TEXT,
        confidence=_SURE,
        speaker=_WHOLE_OR_NONE,
        language=_TEXT_OR_NONE,
        service=_TEXT,
        backfilled={"type": "boolean", "description": "Transcribed later, from the recording."},
        words=_list_of(_of("Word")),
    ),
    "Word": _object(
        "One word, as it should be read.",
        text=_TEXT,
        start_ms=_MS,
        end_ms=_MS,
        confidence=_SURE,
        speaker=_WHOLE_OR_NONE,
    ),
    "Gap": _object(
        "Milliseconds of a track that no segment covers, and why; `filled` once they were transcribed after all.",
        id=_WHOLE,
        track=_TRACK,
        start_ms=_MS,
        end_ms=_MS,
        reason=_TEXT,
        service=_TEXT_OR_NONE,
        filled=_YES_OR_NO,
    ),
    "Transcript": _object(
        "A call and all that was said on it so far, and what happened besides, in order. `/api/live?call=SID` goes on "
        "from `last_event_id`: what is not in here has a greater id.",
        call=_of("Call"),
        segments=_list_of(_of("Segment")),
        gaps=_list_of(_of("Gap")),
        events=_list_of(_of("Event")),
        last_event_id=_WHOLE,
    ),
    "Event": _object(
        "Something that happened on a call, other than words and gaps; `at_ms` is when on the call's clock.",
        id=_WHOLE,
        kind={"type": "string", "enum": [kind for kind in Kind if kind not in (Kind.SEGMENT_FINAL, Kind.GAP)]},
        at_ms=_WHOLE_OR_NONE,
        created_at=_TIME,
        data={"type": "object"},
    ),
    "Waveform": _object(
        "How loud each side of a recording is: peaks from 0 to 1, each of as long a time. Of a long one, evenly chosen "
        "samples count.",
        duration_ms=_WHOLE,
        inbound=_list_of(_SURE),
        outbound=_list_of(_SURE),
    ),
    "DemoCall": _object("A call that has begun.", call_sid=_TEXT),
    "Hit": _object(
        "A segment in which the words were found; `segment.start_ms` is the moment to jump to.",
        call=_of("Call"),
        segment=_of("Segment"),
        snippet=_list_of(_object("A piece of the text; what was looked for is a match.", text=_TEXT, match=_YES_OR_NO)),
    ),
    "LiveEvent": {
        "type": "object",
        "description": "One event of the live feed. The one that only says when to come back has no data.",
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]+$"},
            "event": {"type": "string", "enum": [*Kind, INTERIM, STATUS, UNSAVED, UNOPENED]},
            "data": {"type": "string", "contentMediaType": "application/json"},
            "retry": _WHOLE,
        },
        "additionalProperties": False,
    },
    "Share": _object("A link to one call, and when it ends.", url=_TEXT, expires_at=_TIME),
    "Calls": _page_of("Call"),
    "Hits": _page_of("Hit"),
    "Problem": _object("What is wrong (RFC 9457).", type=_TEXT, title=_TEXT, status=_WHOLE, detail=_TEXT),
}

# --- Paths --------------------------------------------------------------------------------------------------

_PROBLEMS: Final = {
    400: "A parameter is wrong; the detail says which, and what it should be.",
    401: "Nobody knows who asks: there is no token, or it is not worth anything any more.",
    403: "The token does not allow this, or not for this call.",
    404: "There is no such call, or no recording of it.",
    409: "The call still runs.",
    412: "The recording is not, or not any more, the one that If-Match names.",
    416: "The recording has no such part; Content-Range says how long it is.",
    503: "It cannot be had now; the detail says why. Try again after the seconds of Retry-After.",
}
_OF_ONE: Final = (400, 404, 503)
_SECURITY: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "What `python app.py token issue` printed."}
}
_FORMATS: Final = {
    "txt": ("text/plain", _TEXT),
    "json": ("application/json", _of("Transcript")),
    "srt": ("application/x-subrip", _TEXT),
    "vtt": ("text/vtt", _TEXT),
}
MEDIA_TYPES: Final = {form: media_type for form, (media_type, _) in _FORMATS.items()}

_SID: Final = {"name": "sid", "in": "path", "description": "The call's SID.", "required": True, "schema": _TEXT}

_HOURS: Final[Schema] = {
    "type": "object",
    "properties": {"hours": {"type": "integer", "minimum": 1, "maximum": SHARE_HOURS_MOST, "default": SHARE_HOURS}},
    "additionalProperties": False,
}

_LIVE_FEED: Final = f"""\
Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html) of all calls, or of one, as long as
you read. What is stored has an `id`, and is one of: {", ".join(Kind)}. `data` is a JSON object with `call_sid`,
`sequence` (which counts within the call), `created_at` and what the kind brings; `at_ms`, when on the call's clock it
happened, for all but words and gaps. Come back with the last id, and nothing is missed and nothing comes twice, even if
the server was started anew.

Without an id come, of the calls of the process that answers:

- `{INTERIM}`: what a speaker seems to be saying (`track`, `service`, `text`, `start_ms`, `end_ms`, `behind_ms`). It
takes the place of the one before of the same stream, track and service, until a `segment.final` of these does; without
a text, it was nothing after all.
- `{STATUS}`: how a stream is doing: `until_ms` and `unsent_ms` of its audio, and of each of its `services` the `state`
(connecting, listening, lost, refused) and `behind_ms`, the delay of its newest words. Only to those who watch one call:
at once, at each change, and every two seconds while audio comes. A stream that has ended has no services.
- `{UNSAVED}`, while the database is away: comes again as `segment.final` once it is stored; match them by call_sid,
segment.track, segment.start_ms and segment.service.
- `{UNOPENED}`: why Twilio could not open the stream of a call that never began (`call_sid`, `failed_at`, `error` in
Twilio's words, and `advice`). Only to those who watch all calls: at once, and to who comes before a later call begins.

Times of the first two are the stream's, which begins at `offset_ms` of its call's. Who does not read is let go, and may
come back."""

_RECORDING: Final = """\
Stereo (left is inbound), 16 bits, 8 kHz, on the call's clock. A `Range` of bytes is answered with that part (206), one
that cannot be read and several at once with the whole; `If-Range`, `If-None-Match` and `If-Match` know the ETag. While
the call runs: what there is at this moment."""


def _answer(about: str, media_type: str, schema: Schema) -> dict[str, Any]:
    return {"description": about, "content": {media_type: {"schema": schema}}}


def _operation(
    name: str,
    about: str,
    good: dict[str, Any],
    parameters: Sequence[Parameter] = (),
    *,
    problems: Sequence[int] = (400, 503),
    **more: Any,
) -> dict[str, Any]:
    described = [parameter.described() for parameter in parameters]
    bad = {
        str(code): _answer(_PROBLEMS[code], "application/problem+json", _of("Problem"))
        for code in (401, 403, *problems)
    }
    return {"operationId": name, "summary": about, "parameters": described, "responses": good | bad, **more}


def _json(about: str, schema: Schema) -> dict[str, Any]:
    return {"200": _answer(about, "application/json", schema)}


def _transcript(form: str) -> dict[str, Any]:
    media_type, schema = _FORMATS[form]
    good = {"200": _answer("The transcript so far.", media_type, schema)}
    about = f"What was said on a call, as {form.upper()}; while it runs, what was said so far"
    return {"get": _operation(f"transcript_{form}", about, good, () if form == "json" else NAMES, problems=_OF_ONE)}


def _of_call(path: dict[str, Any]) -> dict[str, Any]:
    return {"parameters": [_SID], **path}


DESCRIPTION: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {"title": "Calls and what was said on them", "version": "1"},
    "paths": {
        "/api/calls": {
            "get": _operation("calls", "Calls, newest first", _json("A page of calls.", _of("Calls")), CALLS)
        },
        "/api/calls/{sid}": _of_call(
            {
                "get": _operation("call", "One call", _json("The call.", _of("Call")), problems=_OF_ONE),
                "delete": _operation(
                    "delete_call",
                    "Delete a call that has ended, with all that belongs to it",
                    {"204": {"description": "It is deleted."}},
                    problems=(*_OF_ONE, 409),
                ),
            }
        ),
        "/api/calls/{sid}/share": _of_call(
            {
                "post": _operation(
                    "share_call",
                    "Make a link that shows this call, and nothing else, to whoever has it",
                    {"201": _answer("The link.", "application/json", _of("Share"))},
                    problems=_OF_ONE,
                    requestBody={"content": {"application/json": {"schema": _HOURS}}},
                )
            }
        ),
        **{f"/api/calls/{{sid}}/transcript.{form}": _of_call(_transcript(form)) for form in _FORMATS},
        "/api/calls/{sid}/recording.wav": _of_call(
            {
                "get": _operation(
                    "recording",
                    "A call's recording, if there is one",
                    {
                        "200": _answer("The recording so far.", "audio/wav", {}),
                        "206": _answer("The part that is asked for.", "audio/wav", {}),
                        "304": {"description": "It is as it was."},
                    },
                    problems=(*_OF_ONE, 412, 416),
                    description=_RECORDING,
                )
            }
        ),
        "/api/calls/{sid}/waveform.json": _of_call(
            {
                "get": _operation(
                    "waveform",
                    "How a call's recording looks",
                    _json("The waveform so far.", _of("Waveform")),
                    WAVEFORM,
                    problems=_OF_ONE,
                )
            }
        ),
        DEMO_CALL: {
            "post": _operation(
                "demo_call",
                "Play the sample call through this server, heard by a speech service on this machine",
                {"202": _answer("Its audio flows.", "application/json", _of("DemoCall"))},
                problems=(503,),
            )
        },
        "/api/search": {
            "get": _operation("search", "Words in what was said, newest first", _json("A page.", _of("Hits")), SEARCH)
        },
        "/api/live": {
            "get": _operation(
                "live",
                "What happens on the calls, as it happens",
                {"200": _answer("The events, each as described.", "text/event-stream", _of("LiveEvent"))},
                (*LIVE, LAST_EVENT_ID),
                description=_LIVE_FEED,
            )
        },
        "/api/openapi.json": {
            "get": _operation(
                "description", "This description", _json("OpenAPI 3.1.", {"type": "object"}), problems=(400,)
            )
        },
    },
    "components": {"schemas": SCHEMAS, "securitySchemes": _SECURITY},
    "security": [{"token": []}],
}

"""What Twilio asks over HTTP: what to do with a call, and then how its streams fare."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, request
from twilio.twiml.voice_response import Dial, Start, VoiceResponse  # type: ignore[import-untyped]
from werkzeug.exceptions import BadRequest

from relay.admission import MEDIA_PATH, Admission, TurnedAway
from relay.call import CALLED, CALLER, LONGEST_NUMBER, Switchboard
from relay.events import StreamReported
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.text import printable
from relay.web.access import for_twilio
from relay.web.neighbours import Kind, Neighbours

log = logging.getLogger(__name__)

TWIML_PATH: Final = "/twiml"
STATUS_PATH: Final = "/stream-status"
NOBODY_TO_CALL: Final = "You are being transcribed. Please say something, and hang up when you are done."
PAUSE_S: Final = 120  # in which a caller whom we connect with nobody can try it out
LONGEST_ERROR: Final = 300  # characters of what Twilio says of a failure
_SID: Final = re.compile(r"[A-Za-z0-9]{2,64}")
_URL: Final = re.compile(r"[a-z]+://\S+")
_CODE: Final = re.compile(r"\b(319[0-9]{2})\b")

# https://www.twilio.com/docs/api/errors: what may be wrong, and so what to do.
WHAT_TO_DO: Final = {
    "31901": "Twilio got no answer. Does the tunnel run, and does a firewall let Twilio through?",
    "31902": "Twilio's connection was refused. Does the server run, and does the tunnel lead to its PORT?",
    "31903": "The connection broke off. Was the server or the tunnel restarted, or does a proxy close what is silent?",
    "31904": "Twilio cannot find the host. Is PUBLIC_URL right, and known outside your network?",
    "31910": "TLS failed. Is the tunnel of the kind http, not tcp, and its certificate one that everybody accepts?",
    "31920": "No WebSocket was to be had. Is the path right and without a ?, and is the key or pass in it good? "
    "The reason of a refusal is in this server's log.",
    "31921": "The server closed the WebSocket. If it was not restarted, its log says why.",
    "31922": "The stream's URL should begin with wss://.",
    "31923": "The stream's URL is not one. Is PUBLIC_URL right?",
    "31924": "The WebSocket's protocol was broken. Does something between Twilio and the server change what is sent?",
    "31930": "Twilio threw audio away because it was not read in time. Is the machine or its network overloaded?",
    "31940": "Twilio does not know the connector that the TwiML names.",
    "31941": "The stream's tracks cannot be had: both tracks go with <Start>, and with <Connect> only the inbound one.",
    "31951": "Twilio was sent something that it does not know.",
    "31952": "Twilio does not know the stream extension that the TwiML names.",
}
NO_ADVICE: Final = "`python app.py doctor` looks for what is wrong."


def telephony(admission: Admission, switchboard: Switchboard, neighbours: Neighbours | None = None) -> Blueprint:
    """The routes. Each request is signed by Twilio, or has the stream key at the end of its path."""
    part = Blueprint("telephony", __name__)
    if neighbours is not None:
        neighbours.on(Kind.OVER, lambda place, said: switchboard.told_over(*said))

    @part.post(TWIML_PATH)
    @part.post(f"{TWIML_PATH}/<shown>")
    @for_twilio
    def twiml(shown: str | None = None) -> Response:
        _let_in(admission, shown)
        call_sid = _sid("CallSid")
        if admission.public_url is None:
            return _sentence("PUBLIC_URL should be set: the stream's address is made from it.", 503)
        answer = voice_response(admission, call_sid, request.form.get("From", ""), request.form.get("To", ""))
        return Response(str(answer), mimetype="text/xml")

    @part.post(STATUS_PATH)
    @part.post(f"{STATUS_PATH}/<shown>")
    @for_twilio
    def stream_status(shown: str | None = None) -> Response:
        _let_in(admission, shown, also=admission.word_for(request.form.get("CallSid", "")))
        call_sid, stream_sid, event = _sid("CallSid"), _sid("StreamSid"), request.form.get("StreamEvent", "")
        reported = StreamReported(call_sid, printable(event), *_what_failed(event))
        switchboard.hub.publish(Happened(CallInfo(call_sid, stream_sid, ()), reported))
        if event in ("stream-stopped", "stream-error"):
            over = (call_sid, stream_sid, f"Twilio reported {event}")
            if not switchboard.told_over(*over) and neighbours is not None:
                neighbours.tell(Kind.OVER, over)
        return Response(status=HTTPStatus.NO_CONTENT)

    @part.errorhandler(TurnedAway)
    def turned_away(refusal: TurnedAway) -> Response:
        return _sentence(str(refusal), refusal.status)

    return part


def voice_response(admission: Admission, call_sid: str, caller: str, called: str) -> VoiceResponse:
    """What Twilio is told to do with a call: stream both its tracks to us, and then what it is for.

    Raises TurnedAway when no pass can be made.
    """
    try:
        stream_pass = admission.pass_for(call_sid)
    except OSError:
        log.exception("ACCESS_FOLDER cannot be written")
        raise TurnedAway("trouble", "No pass can be made.", HTTPStatus.SERVICE_UNAVAILABLE) from None
    start = Start()
    stream = start.stream(
        url=admission.url_of("wss", f"{MEDIA_PATH}/{stream_pass}"),
        track="both_tracks",
        status_callback=admission.url_of("https", f"{STATUS_PATH}/{admission.word_for(call_sid)}"),
        status_callback_method="POST",
    )
    for name, value in ((CALLER, caller), (CALLED, called)):
        stream.parameter(name=name, value=value[:LONGEST_NUMBER])
    response = VoiceResponse()
    response.append(start)
    _go_on(response, admission)
    return response


def _go_on(response: VoiceResponse, admission: Admission) -> None:
    """`<Start>` does not hold the line: what the call is for has to follow it."""
    if number := admission.twilio.dial_number:
        dial = Dial()
        dial.number(number)
        response.append(dial)
    elif url := admission.twilio.application_url:
        response.redirect(url, method="POST")
    else:
        response.say(NOBODY_TO_CALL)
        response.pause(length=PAUSE_S)


def _what_failed(event: str) -> tuple[str, str]:
    """What Twilio says of a failure, without the URL, whose path holds a pass; and what to do. Nothing: two blanks."""
    if event != "stream-error":
        return "", ""
    error = _URL.sub("(URL)", request.form.get("StreamError", ""))
    return printable(error, LONGEST_ERROR), advice(error)


def advice(error: str) -> str:
    """What to do about an error of Twilio's."""
    code = _CODE.search(error)
    return WHAT_TO_DO.get(code[1], NO_ADVICE) if code else NO_ADVICE


def _let_in(admission: Admission, shown: str | None, also: str | None = None) -> None:
    said = request.form if not request.is_json else request.get_data(as_text=True)
    path = request.path + (f"?{request.query_string.decode('latin-1')}" if request.query_string else "")
    admission.let_in(path, shown, dict(request.headers), said, also=also)


def _sid(name: str) -> str:
    sid = request.form.get(name, "")
    if not _SID.fullmatch(sid):
        raise BadRequest(f"{name} should be one of Twilio's names.")
    return sid


def _sentence(sentence: str, status: int) -> Response:
    return Response(f"{sentence}\n", status, mimetype="text/plain")

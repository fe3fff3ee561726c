"""What Twilio asks over HTTP: TwiML for a call, and reports on its streams."""

from __future__ import annotations

import sys
from http.client import HTTPConnection
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

import gevent
import pytest
from gevent.monkey import get_original

from relay import call as call_module
from relay.admission import TwilioSettings
from relay.console import Console, Outlet
from relay.events import StreamBegun, StreamReported
from relay.hub import Happened
from relay.store.store import Store
from relay.web.telephony import NO_ADVICE, WHAT_TO_DO, advice
from standins.twilio import SimulatedCall, signed
from tests.calling import Relay, answered, hang_up, relay, say
from tests.serving import serving
from tests.test_admission import AUTH_TOKEN, ENFORCED, PUBLIC_URL, WARNED, at, is_heard

pytest_plugins = ("tests.databases", "tests.stores")

FORM = {"CallSid": "CA0123", "From": "+15550100", "To": "+15550199", "AccountSid": "AC1"}


def post(running: Relay, path: str, form: dict[str, str], headers: dict[str, str] | None = None) -> tuple[int, str]:
    """One request of Twilio's."""
    connection = HTTPConnection(urlsplit(running.url).netloc, timeout=20)
    try:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", path, urlencode(form), kind | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def by_key(running: Relay, path: str) -> str:
    return f"{path}/{running.passes.stream_key}"


def signature_for(path: str, form: dict[str, str]) -> dict[str, str]:
    return signed(f"{PUBLIC_URL}{path}", AUTH_TOKEN, form)


def twiml_for(running: Relay, form: dict[str, str] | None = None) -> ElementTree.Element:
    """The TwiML of a call."""
    status, answer = post(running, by_key(running, "/twiml"), form or FORM)
    assert status == 200
    return ElementTree.fromstring(answer)


def the_stream(twiml: ElementTree.Element) -> ElementTree.Element:
    stream = twiml.find("Start/Stream")
    assert stream is not None
    return stream


def path_of(url: str) -> str:
    return urlsplit(url).path


# --- /twiml -------------------------------------------------------------------------------------------------------


def test_the_twiml_lets_its_call_in_once() -> None:
    with relay(public_url=PUBLIC_URL) as running:
        stream = the_stream(twiml_for(running))
        assert stream.attrib["url"].startswith("wss://relay.example/media/")
        assert stream.attrib["track"] == "both_tracks"
        assert {one.attrib["name"]: one.attrib["value"] for one in stream} == {"from": "+15550100", "to": "+15550199"}
        call = SimulatedCall(at(running, path_of(stream.attrib["url"])), call_sid="CA0123")
        assert is_heard(running, call)
        assert running.admission.doorbook.admitted == {"pass": 1}
        assert running.passes.stream_key not in ElementTree.tostring(stream, "unicode")


def test_the_twiml_then_does_what_the_call_is_for() -> None:
    with relay(public_url=PUBLIC_URL, twilio=TwilioSettings(dial_number="+15550111")) as running:
        assert [verb.tag for verb in twiml_for(running)] == ["Start", "Dial"]
        assert twiml_for(running).findtext("Dial/Number") == "+15550111"
    application = "https://app.example/voice?a=1&b=<2>"
    with relay(public_url=PUBLIC_URL, twilio=TwilioSettings(application_url=application)) as running:
        redirect = twiml_for(running).find("Redirect")
        assert redirect is not None
        assert (redirect.text, redirect.attrib) == (application, {"method": "POST"})
    with relay(public_url=PUBLIC_URL) as running:
        assert [verb.tag for verb in twiml_for(running)] == ["Start", "Say", "Pause"]


def test_what_a_caller_is_called_is_no_markup() -> None:
    with relay(public_url=PUBLIC_URL) as running:
        caller = '"/><Hangup a="'
        stream = the_stream(twiml_for(running, FORM | {"From": caller, "To": "x" * 1000}))
        assert [one.attrib["value"] for one in stream] == [caller, "x" * 64]


def test_who_may_ask_for_twiml() -> None:
    with relay(public_url=PUBLIC_URL, twilio=WARNED) as running:
        assert post(running, "/twiml", FORM)[0] == 403
        assert post(running, "/twiml/wrong", FORM)[0] == 403
        assert post(running, "/twiml", FORM, signature_for("/twiml", FORM | {"To": "+15550166"}))[0] == 403
        assert post(running, "/twiml", FORM, signature_for("/stream-status", FORM))[0] == 403
        a_pass = running.admission.pass_for("CA0123")
        assert post(running, f"/twiml/{a_pass}", FORM)[0] == 403  # which is for a stream
        assert post(running, "/twiml/wrong", FORM, signature_for("/twiml/wrong", FORM))[0] == 403
        assert post(running, "/twiml", FORM, signature_for("/twiml", FORM))[0] == 200
        assert post(running, by_key(running, "/twiml"), FORM)[0] == 200


def test_enforced_the_key_alone_gets_no_twiml() -> None:
    with relay(public_url=PUBLIC_URL, twilio=ENFORCED) as running:
        path = by_key(running, "/twiml")
        assert post(running, path, FORM)[0] == 403
        assert post(running, path, FORM, signature_for(path, FORM))[0] == 200
        query = "/twiml?tenant=7"
        assert post(running, query, FORM, signature_for(query, FORM))[0] == 200


@pytest.mark.parametrize("sid", ["", "CA/../x", "CA\r\nX: y", "C" * 65])
def test_twiml_is_for_a_call(sid: str) -> None:
    with relay(public_url=PUBLIC_URL) as running:
        assert post(running, by_key(running, "/twiml"), FORM | {"CallSid": sid})[0] == 400


def test_without_a_public_url_there_is_no_address_to_stream_to() -> None:
    with relay() as running:
        status, sentence = post(running, by_key(running, "/twiml"), FORM)
        assert status == 503
        assert "PUBLIC_URL" in sentence
        assert post(running, "/twiml", FORM)[0] == 403  # a stranger is told nothing


# --- /stream-status -----------------------------------------------------------------------------------------------


def report(call: SimulatedCall, event: str, error: str = "") -> dict[str, str]:
    """What Twilio says of a call's stream."""
    said = {"CallSid": call.call_sid, "StreamSid": call.stream_sid, "StreamEvent": event}
    return said | ({"StreamError": error} if error else {})


def reported(running: Relay) -> list[StreamReported]:
    return [happened.event for happened in running.told if isinstance(happened.event, StreamReported)]


def test_reports_are_told() -> None:
    with relay() as running:
        call = SimulatedCall(running.url)
        for event in ("stream-started", "stream-stopped"):
            assert post(running, by_key(running, "/stream-status"), report(call, event)) == (204, "")
        error = "31920 - handshake with wss://relay.example/media/s3cret failed"
        assert post(running, by_key(running, "/stream-status"), report(call, "stream-error", error))[0] == 204
        started, stopped, failed = reported(running)
        assert (started.event, stopped.event, failed.event) == ("stream-started", "stream-stopped", "stream-error")
        assert failed.error == "31920 - handshake with (URL) failed"
        assert failed.advice == WHAT_TO_DO["31920"]


def test_the_console_says_what_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    outlet = Outlet(sys.stdout)
    Console(outlet).hear(Happened(None, StreamReported("CA0123", "stream-error", "31902", advice("31902"))))
    outlet.close(5)
    assert capfd.readouterr().out == f"Twilio could not stream CA0123: 31902. {WHAT_TO_DO['31902']}\n"


def test_every_error_has_advice() -> None:
    assert advice("Error 31941") == WHAT_TO_DO["31941"]
    assert advice("31999") == advice("") == NO_ADVICE


@pytest.mark.parametrize("event", ["stream-stopped", "stream-error"])
def test_a_stream_that_twilio_says_is_over_is_over(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a tunnel nobody may ever close its socket. What is still on its way is heard."""
    monkeypatch.setattr(call_module, "LAST_FRAMES_WITHIN", 1.0)
    with relay() as running:
        call = answered(running.url)
        say(call, 1_000)
        running.of(call).wait_for(StreamBegun)
        assert post(running, by_key(running, "/stream-status"), report(call, event))[0] == 204
        for late in range(5):
            gevent.sleep(0.3)
            say(call, 20, at_ms=1_000 + late * 20)
        end = running.ended(call)
        assert end.reason == f"Twilio reported {event}"
        assert end.frames == 2 * 55
        assert call.wait_closed().code == 1000


def test_what_came_while_the_process_was_asleep_is_heard_before_a_stream_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_module, "LAST_FRAMES_WITHIN", 0.5)
    with relay() as running:
        call = answered(running.url)
        say(call, 1_000)
        running.of(call).wait_for(StreamBegun)
        assert post(running, by_key(running, "/stream-status"), report(call, "stream-stopped"))[0] == 204
        gevent.spawn_later(0.3, say, call, 200, at_ms=1_000)
        gevent.sleep(0)
        get_original("time", "sleep")(0.8)
        assert running.ended(call).frames == 2 * 60


def test_others_reports_end_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "LAST_FRAMES_WITHIN", 0.05)
    with relay(public_url=PUBLIC_URL) as running:
        call, other = answered(running.url), SimulatedCall(running.url)
        say(call, 200)
        running.of(call).wait_for(StreamBegun)
        said = report(call, "stream-stopped")
        assert post(running, "/stream-status", said)[0] == 403
        assert post(running, "/stream-status/wrong", said)[0] == 403
        others_word = running.admission.word_for(other.call_sid)
        assert post(running, f"/stream-status/{others_word}", said)[0] == 403
        assert post(running, f"/stream-status/{others_word}", report(other, "stream-stopped"))[0] == 204
        assert post(running, by_key(running, "/stream-status"), said | {"StreamSid": "MZother"})[0] == 204
        gevent.sleep(0.3)
        say(call, 200, at_ms=200)
        hang_up(call)
        assert running.ended(call).reason == "stop"


def test_the_twiml_says_where_to_report_on_its_own_call() -> None:
    with relay(public_url=PUBLIC_URL) as running:
        callback = the_stream(twiml_for(running)).attrib["statusCallback"]
        assert callback.startswith(f"{PUBLIC_URL}/stream-status/")
        said = {"CallSid": "CA0123", "StreamSid": "MZ1", "StreamEvent": "stream-started"}
        assert post(running, path_of(callback), said)[0] == 204
        assert post(running, path_of(callback), said | {"CallSid": "CA0124"})[0] == 403


def test_reports_and_refusals_do_no_harm_to_a_store_and_are_counted(store: Store) -> None:
    with serving(store) as running:
        call = SimulatedCall(running.relay.url)
        assert post(running.relay, by_key(running.relay, "/stream-status"), report(call, "stream-error"))[0] == 204
        assert post(running.relay, "/twiml", FORM)[0] == 403
        answered(running.relay.url).close()
        figures = running.ask("/metrics").body.decode()
        assert 'relay_refused_total{why="nothing"} 1.0' in figures
        assert 'relay_streams_admitted_total{by="key"} 1.0' in figures
        assert store.trouble == ""
        assert quote(running.passes.stream_key) not in figures

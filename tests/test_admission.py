"""Who may send: every way in, every way it is refused, and that nothing is opened, told or kept before."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import gevent
import pytest
from websocket import ABNF

from deepgram_client import Deepgram, DeepgramSettings
from relay import admission as admission_module
from relay import call as call_module
from relay.admission import Admission, TurnedAway, TwilioSettings
from relay.doorbook import Doorbook
from relay.errors import SettingsError
from relay.events import MessageReceived, SocketAccepted, StreamBegun, Track
from relay.passes import Kind, Passes, Scope
from relay.settings import Settings, read
from relay.twilio import Signature, Signatures, as_signed
from standins.deepgram import ListenServer
from standins.twilio import CallFailed, SimulatedCall, UpgradeRefused, signed
from tests.calling import Relay, answered, hang_up, relay, say
from tests.storing import eventually
from tests.talking import Hasty, listening, whole

AUTH_TOKEN = "12345"  # of Twilio's published example
PUBLIC_URL = "https://relay.example"
ENFORCED = TwilioSettings(auth_token=AUTH_TOKEN, signature="enforce")
WARNED = TwilioSettings(auth_token=AUTH_TOKEN)
REFUSED = 1008


@contextmanager
def guarded(twilio: TwilioSettings | None = None, **settings: Any) -> Iterator[tuple[Relay, ListenServer]]:
    """A relay, and the speech service that must not be opened for those who are not let in."""
    with listening() as speech:
        service = Hasty(Deepgram(DeepgramSettings(api_key="key", url=speech.url)))
        with relay(service, twilio=twilio, **settings) as running:
            yield running, speech


def at(running: Relay, path: str) -> str:
    """The URL of a path of the relay's."""
    return f"{running.url.partition('/media')[0]}{path}"


def signed_for(path: str) -> dict[str, str]:
    """What Twilio signs when the stream's URL ends so."""
    return signed(f"wss://relay.example{path}", AUTH_TOKEN)


def is_heard(running: Relay, call: SimulatedCall) -> bool:
    """Plays a little of the call; whether it was let in."""
    call.open()
    call.start()
    say(call, 200)
    hang_up(call)
    running.ended(call)
    return bool(running.of(call).of(StreamBegun))


def status_of(call: SimulatedCall) -> int | None:
    """The HTTP status with which the upgrade was refused."""
    with pytest.raises(UpgradeRefused) as refusal:
        call.open()
    return refusal.value.status


def closed_with(call: SimulatedCall) -> int:
    """The code with which the server closed a stream that it did not take."""
    call.open()
    call.start()
    return call.wait_closed(30).code


def assert_untouched(running: Relay, speech: ListenServer) -> None:
    """Nobody was told, and nothing was opened."""
    assert running.told == []
    assert not speech.connections
    assert not running.admission.doorbook.admitted


# --- The ways in ---------------------------------------------------------------------------------------------------


def test_the_key_lets_in_by_path_and_by_parameter() -> None:
    with guarded() as (running, speech):
        key = running.passes.stream_key
        assert is_heard(running, SimulatedCall(at(running, f"/media/{key}")))
        assert is_heard(running, SimulatedCall(at(running, "/media"), parameters={"key": key}))
        assert is_heard(running, SimulatedCall(at(running, f"/media/{key}/")))
        assert len(speech.connections) == 3
        assert running.admission.doorbook.admitted == {"key": 3}


@pytest.mark.parametrize("place", ["path", "parameter"])
def test_a_pass_lets_in_its_call_once(place: str) -> None:
    with guarded() as (running, speech):
        call = with_pass(running, "CAits-own", place)
        assert is_heard(running, call)
        assert running.admission.doorbook.admitted == {"pass": 1}
        again = SimulatedCall(call.url, parameters=call.parameters, call_sid="CAits-own")
        if place == "path":
            assert status_of(again) == 403
        else:
            assert closed_with(again) == REFUSED
        assert len(speech.connections) == 1


def with_pass(running: Relay, call_sid: str, place: str, *, issued_for: str | None = None) -> SimulatedCall:
    """A call that shows a fresh pass."""
    text = running.admission.pass_for(issued_for or call_sid)
    path, parameters = (f"/media/{text}", {}) if place == "path" else ("/media", {"token": text})
    return SimulatedCall(at(running, path), parameters=parameters, call_sid=call_sid)


@pytest.mark.parametrize("place", ["path", "parameter"])
def test_a_pass_for_another_call_lets_nobody_in_and_is_not_used_up(place: str) -> None:
    with guarded() as (running, speech):
        thief = with_pass(running, "CAthief", place, issued_for="CAvictim")
        assert closed_with(thief) == REFUSED
        assert_untouched(running, speech)
        assert is_heard(running, SimulatedCall(thief.url, parameters=thief.parameters, call_sid="CAvictim"))


def test_of_two_sockets_with_one_pass_one_is_let_in() -> None:
    with guarded() as (running, speech):
        first = with_pass(running, "CAone", "path")
        calls = [first, SimulatedCall(first.url, call_sid="CAone")]
        for call in calls:
            call.open()
        for call in calls:
            call.start()
        eventually(lambda: any(call.farewell for call in calls))
        refused, one = sorted(calls, key=lambda call: call.farewell is None)
        assert refused.wait_closed(30).code == REFUSED
        hang_up(one)
        running.ended(one)
        assert len(speech.connections) == 1
        assert dict(running.admission.doorbook.refused) == {"credential": 1}


def test_a_pass_is_spent_for_all_processes(tmp_path: Path) -> None:
    ours, theirs = (Admission(Passes(tmp_path), TwilioSettings(), Settings()) for _ in range(2))
    path = f"/media/{ours.pass_for('CAone')}"
    visits = [admission.enter({"PATH_INFO": path}) for admission in (ours, theirs)]
    visits[1].begin("CAone", {})
    with pytest.raises(TurnedAway):
        visits[0].begin("CAone", {})


def test_a_pass_expires(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    admission = Admission(Passes(tmp_path, now=lambda: clock[0]), TwilioSettings(), Settings())
    text = admission.pass_for("CAone")
    clock[0] += 59
    visit = admission.enter({"PATH_INFO": f"/media/{text}"})  # as late as can be ...
    clock[0] += 2
    with pytest.raises(TurnedAway):  # ... and then no `start` in time
        visit.begin("CAone", {})
    with pytest.raises(TurnedAway):
        admission.enter({"PATH_INFO": f"/media/{text}"})


def test_each_stream_of_a_call_brings_its_own_pass() -> None:
    with guarded() as (running, _):
        assert is_heard(running, with_pass(running, "CAone", "path"))
        assert is_heard(running, with_pass(running, "CAone", "path"))


@pytest.mark.parametrize("twilio", [ENFORCED, WARNED])
@pytest.mark.parametrize("signs", ["/media", "/media/", ":443/media", ":443/media/"])
def test_a_signature_lets_in_however_its_url_is_written(signs: str, twilio: TwilioSettings) -> None:
    with guarded(twilio, public_url=PUBLIC_URL) as (running, _):
        assert is_heard(running, SimulatedCall(at(running, "/media"), headers=signed_for(signs)))
        assert running.admission.doorbook.admitted == {"signature": 1}
        assert running.admission.doorbook.signatures == {"valid": 1}


def test_a_signature_with_the_shared_key_lets_in() -> None:
    twilio = TwilioSettings(shared_key_secret="shared", signature="enforce")
    with guarded(twilio, public_url=PUBLIC_URL) as (running, speech):
        digest = hmac.digest(b"shared", b"wss://relay.example/media", sha256)
        headers = {"X-Twilio-Signature": b64encode(digest).decode()}
        settings = {"X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}
        assert status_of(SimulatedCall(at(running, "/media"), headers=headers)) == 403  # said to be SHA-1
        assert_untouched(running, speech)
        assert is_heard(running, SimulatedCall(at(running, "/media"), headers=headers | settings))


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", ["forged", "session", "token", "old key", "almost"])
def test_what_is_shown_and_wrong_is_refused_before_the_socket_opens(shown: str, tmp_path: Path) -> None:
    with guarded() as (running, speech):
        texts = {
            "forged": "AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "session": running.passes.issue(Kind.SESSION, Scope, for_s=60),
            "token": running.passes.issue(Kind.TOKEN, Scope, for_s=60),
            "old key": Passes(tmp_path).stream_key,
            "almost": running.passes.stream_key[:-1],
        }
        assert status_of(SimulatedCall(at(running, f"/media/{texts[shown]}"))) == 403
        assert closed_with(SimulatedCall(at(running, "/media"), parameters={"key": texts[shown]})) == REFUSED
        assert closed_with(SimulatedCall(at(running, "/media"), parameters={"token": texts[shown]})) == REFUSED
        assert_untouched(running, speech)
        assert running.admission.doorbook.refused == {"credential": 3}


@pytest.mark.parametrize("parameters", [{"key": "wrong"}, {"token": "wrong"}, {"key": ""}, {"token": ""}])
def test_what_is_wrong_is_not_made_good_by_another(parameters: dict[str, str]) -> None:
    with guarded(WARNED, public_url=PUBLIC_URL) as (running, speech):
        assert closed_with(SimulatedCall(running.url, parameters=parameters)) == REFUSED
        call = SimulatedCall(at(running, "/media"), parameters=parameters, headers=signed_for("/media"))
        assert closed_with(call) == REFUSED
        assert status_of(SimulatedCall(at(running, "/media/wrong"), headers=signed_for("/media/wrong"))) == 403
        assert not speech.connections
        assert not any(isinstance(happened.event, StreamBegun) for happened in running.told)


def test_who_shows_nothing_is_refused_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with guarded() as (running, speech):
        assert closed_with(SimulatedCall(at(running, "/media"))) == REFUSED
        assert_untouched(running, speech)
        assert running.admission.doorbook.refused == {"nothing": 1}
    assert "`python app.py doctor` prints the TwiML that shows the key." in caplog.text


def test_who_shows_nothing_and_starts_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "START_WITHIN", 0.2)
    with guarded() as (running, speech):
        call = SimulatedCall(at(running, "/media"))
        call.open()
        call.wait_closed(30)
        assert_untouched(running, speech)
        assert running.admission.doorbook.refused == {"no start": 1}


def test_all_that_comes_with_the_start_is_heard() -> None:
    """Audio may be on its way before we have read `start`: it all comes at once then."""
    with guarded() as (running, _):
        call = with_pass(running, "CAone", "parameter")
        call.open()
        _start_and_say(call)
        running.ended(call)
        assert running.of(call).frames(Track.INBOUND) == whole(1_000)


def _start_and_say(call: SimulatedCall) -> None:
    """In one write, so that it is one read."""
    said: list[str] = []
    send, call.send = call.send, said.append  # type: ignore[method-assign, assignment]
    call.start()
    say(call, 1_000)
    call.send = send  # type: ignore[method-assign]
    call._socket.sock.sendall(b"".join(ABNF.create_frame(text, ABNF.OPCODE_TEXT).format() for text in said))
    hang_up(call)


def test_a_stranger_that_chatters_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "START_WITHIN", 1000)
    with guarded() as (running, speech):
        call = SimulatedCall(at(running, "/media"))
        call.open()
        with suppress(CallFailed):
            for _ in range(1000):
                call.send('{"event":"connected"}')
        call.wait_closed(30)
        assert_untouched(running, speech)


@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": "c2hhMQ=="}, signed_for("/other")])
def test_enforced_nothing_else_than_a_signature_lets_in(headers: dict[str, str]) -> None:
    with guarded(ENFORCED, public_url=PUBLIC_URL) as (running, speech):
        for path in ("/media", f"/media/{running.passes.stream_key}", f"/media/{running.admission.pass_for('CA1')}"):
            assert status_of(SimulatedCall(at(running, path), headers=headers)) == 403
        assert_untouched(running, speech)
        assert running.admission.doorbook.refused == {"signature": 3}


def test_a_signature_never_counts_for_the_host_that_is_asked_for(tmp_path: Path) -> None:
    admission = Admission(Passes(tmp_path), ENFORCED, replace(Settings(), public_url=PUBLIC_URL))
    asks = {"PATH_INFO": "/media", "HTTP_HOST": "evil.example"}
    for host, is_let_in in (("evil.example", False), ("relay.example", True)):
        signature = signed(f"wss://{host}/media", AUTH_TOKEN)["X-Twilio-Signature"]
        if is_let_in:
            assert admission.enter(asks | {"HTTP_X_TWILIO_SIGNATURE": signature}).by == "signature"
        else:
            with pytest.raises(TurnedAway):
                admission.enter(asks | {"HTTP_X_TWILIO_SIGNATURE": signature})


def test_warned_the_others_decide_and_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with guarded(WARNED, public_url=PUBLIC_URL) as (running, _):
        assert is_heard(running, SimulatedCall(running.url))
        assert is_heard(running, SimulatedCall(running.url, headers={"X-Twilio-Signature": "c2hhMQ=="}))
        assert running.admission.doorbook.signatures == {"missing": 1, "wrong": 1}
        assert running.admission.doorbook.admitted == {"key": 2}
        assert "signature on a stream or request is wrong" in caplog.text
        assert running.passes.stream_key not in caplog.text
        assert "c2hhMQ==" not in caplog.text


def test_turned_off_signatures_count_for_nothing() -> None:
    with guarded(replace(WARNED, signature="off"), public_url=PUBLIC_URL) as (running, speech):
        assert closed_with(SimulatedCall(at(running, "/media"), headers=signed_for("/media"))) == REFUSED
        assert_untouched(running, speech)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
def test_pages_of_other_sites_open_nothing(origin: str) -> None:
    with guarded() as (running, speech):
        assert status_of(SimulatedCall(running.url, headers={"Origin": origin})) == 403
        assert_untouched(running, speech)
        own = running.url.removeprefix("ws://").partition("/")[0]
        assert is_heard(running, SimulatedCall(running.url, headers={"Origin": f"http://{own}"}))


# --- Bounds -------------------------------------------------------------------------------------------------------


def test_no_more_streams_run_than_may() -> None:
    with guarded(TwilioSettings(max_streams=2)) as (running, _):
        calls = [answered(running.url) for _ in range(2)]
        for call in calls:
            running.of(call).wait_for(StreamBegun)
        assert status_of(SimulatedCall(running.url)) == 503
        for call in calls:
            hang_up(call)
            running.ended(call)
        running.switchboard.quiet.wait()
        gevent.sleep(0)
        assert is_heard(running, SimulatedCall(running.url))


def test_strangers_take_no_place_from_those_who_may() -> None:
    with guarded(TwilioSettings(max_streams=1)) as (running, _):
        strangers = [SimulatedCall(at(running, "/media")) for _ in range(5)]
        for stranger in strangers:
            stranger.open()
        assert is_heard(running, SimulatedCall(running.url))
        for stranger in strangers:
            stranger.close()


def test_of_too_many_strangers_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "UNPROVEN_MOST", 3)
    with guarded() as (running, _):
        strangers = [SimulatedCall(at(running, "/media")) for _ in range(5)]
        for stranger in strangers:
            stranger.open()
        assert [stranger.wait_closed(30).code for stranger in strangers[:2]] == [REFUSED] * 2
        key = {"key": running.passes.stream_key}
        assert is_heard(running, SimulatedCall(at(running, "/media"), parameters=key))  # comes last, and is let in
        assert running.admission.doorbook.refused["crowd"] == 3
        for stranger in strangers[3:]:
            stranger.close()


def test_strangers_that_were_sent_away_take_no_place_while_they_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(admission_module, "UNPROVEN_MOST", 3)
    admission = Admission(Passes(tmp_path), TwilioSettings(max_streams=1), Settings())
    for _ in range(10):
        admission.enter({"PATH_INFO": "/media"})
    admission.enter({"PATH_INFO": f"/media/{admission.stream_key}"})
    with pytest.raises(TurnedAway, match="MAX_STREAMS"):
        admission.enter({"PATH_INFO": f"/media/{admission.stream_key}"})


def test_streams_are_counted_by_the_address_that_is_known(tmp_path: Path) -> None:
    twilio = TwilioSettings(max_streams_per_address=1)
    passes = Passes(tmp_path)
    path = f"/media/{passes.stream_key}"

    def asks(address: str, forwarded: str = "") -> dict[str, str]:
        return {"PATH_INFO": path, "REMOTE_ADDR": address, "HTTP_X_FORWARDED_FOR": forwarded}

    admission = Admission(passes, twilio, Settings())
    first = admission.enter(asks("203.0.113.5"))
    with pytest.raises(TurnedAway, match="MAX_STREAMS_PER_ADDRESS") as refusal:
        admission.enter(asks("203.0.113.5", "203.0.113.77"))  # whose word does not count
    assert refusal.value.status == 503
    admission.enter(asks("203.0.113.6"))
    first.leave()
    first.leave()
    admission.enter(asks("203.0.113.5"))
    for _ in range(3):
        admission.enter(asks("127.0.0.1", "203.0.113.5"))  # a tunnel's, of whom nobody knows who asks
        admission.enter(asks("::ffff:127.0.0.1"))
    with pytest.raises(TurnedAway, match="MAX_STREAMS_PER_ADDRESS"):
        admission.enter(asks("::ffff:203.0.113.5"))

    behind_a_proxy = Admission(passes, twilio, replace(Settings(), trusted_proxies=1))
    behind_a_proxy.enter(asks("127.0.0.1", "198.51.100.9, 203.0.113.5"))
    behind_a_proxy.enter(asks("127.0.0.1", "203.0.113.5, 203.0.113.6"))
    with pytest.raises(TurnedAway):
        behind_a_proxy.enter(asks("127.0.0.1", "198.51.100.10, 203.0.113.5"))


def test_strangers_take_no_place_of_their_address(tmp_path: Path) -> None:
    """A proxy that is not trusted has one address for all it brings."""
    admission = Admission(Passes(tmp_path), TwilioSettings(max_streams_per_address=1), Settings())
    asks = {"PATH_INFO": "/media", "REMOTE_ADDR": "203.0.113.5"}
    strangers = [admission.enter(asks) for _ in range(3)]
    stream = admission.enter(asks | {"PATH_INFO": f"/media/{admission.stream_key}"})
    key = {"key": admission.stream_key}
    with pytest.raises(TurnedAway, match="MAX_STREAMS_PER_ADDRESS"):
        strangers[0].begin("CA1", key)
    stream.leave()
    strangers[0].begin("CA1", key)
    with pytest.raises(TurnedAway, match="MAX_STREAMS_PER_ADDRESS"):
        strangers[1].begin("CA2", key)


def test_who_comes_past_the_proxy_is_counted_by_the_own_address(tmp_path: Path) -> None:
    passes = Passes(tmp_path)
    twilio, settings = TwilioSettings(max_streams_per_address=1), replace(Settings(), trusted_proxies=1)
    admission = Admission(passes, twilio, settings)
    asks = {"PATH_INFO": f"/media/{passes.stream_key}", "REMOTE_ADDR": "203.0.113.5"}
    admission.enter(asks)
    with pytest.raises(TurnedAway, match="MAX_STREAMS_PER_ADDRESS"):
        admission.enter(asks)


# --- What is told -------------------------------------------------------------------------------------------------


def test_what_was_shown_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with guarded() as (running, _):
        key, token = running.passes.stream_key, running.admission.pass_for("CAone")
        call = SimulatedCall(at(running, f"/media/{key}"), parameters={"token": token, "key": key}, call_sid="CAone")
        assert is_heard(running, call)
        told = [happened.event for happened in running.told]
        assert SocketAccepted("/media") in told
        assert [event.kind for event in told if isinstance(event, MessageReceived)] == ["connected", "start"]
        assert key not in repr(told) + caplog.text
        assert token not in repr(told) + caplog.text


def test_a_flood_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    doorbook = Doorbook(tell_every_s=0.1)

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "was refused, " in record.getMessage()]

    for _ in range(1000):
        doorbook.refuse("credential", "One thing was refused, often.")
    doorbook.refuse("path", "Another thing was refused, once.")
    assert lines() == ["One thing was refused, often.", "Another thing was refused, once."]
    assert doorbook.refused == {"credential": 1000, "path": 1}
    with gevent.Timeout(10):
        while len(lines()) < 3:
            gevent.sleep(0.01)
    assert lines()[2] == "One thing was refused, often. (999 times more within 0.1 s)"


# --- Settings and signatures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"TWILIO_SIGNATURE": "enforce", "PUBLIC_URL": PUBLIC_URL}, "TWILIO_AUTH_TOKEN"),
        ({"TWILIO_SIGNATURE": "enforce", "TWILIO_AUTH_TOKEN": "t"}, "PUBLIC_URL"),
        ({"DIAL_NUMBER": "+15550100", "APPLICATION_URL": "https://app.example"}, "DIAL_NUMBER"),
        ({"DIAL_NUMBER": "5550100"}, "DIAL_NUMBER"),
        ({"APPLICATION_URL": "app.example"}, "APPLICATION_URL"),
        ({"TWILIO_SIGNATURE": "on"}, "TWILIO_SIGNATURE"),
        ({"MAX_STREAMS": "0"}, "MAX_STREAMS"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(environ: dict[str, str], names: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"^{names}"):
        Admission(Passes(tmp_path), read(TwilioSettings, environ), read(Settings, environ))


def test_secrets_are_not_shown() -> None:
    twilio = TwilioSettings(auth_token="hush", shared_key_secret="hush")
    assert "hush" not in repr(twilio) + repr(Signatures("hush", "hush"))


EXAMPLE_URL = "https://example.com/myapp.php?foo=1&bar=2"
EXAMPLE_FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675310",
    "Digits": "1234",
    "From": "+14158675310",
    "To": "+18005551212",
}


def test_twilios_published_example_verifies() -> None:
    """https://www.twilio.com/docs/usage/security, "Validating Signatures from Twilio"."""
    headers = {"X-Twilio-Signature": "L/OH5YylLD5NRKLltdqwSvS0BnU="}
    assert Signatures("12345").check([EXAMPLE_URL], headers, EXAMPLE_FORM) is Signature.VALID
    assert Signatures("12346").check([EXAMPLE_URL], headers, EXAMPLE_FORM) is Signature.WRONG
    assert Signatures("12345").check([EXAMPLE_URL], headers, EXAMPLE_FORM | {"Digits": "1235"}) is Signature.WRONG
    assert Signatures("12345").check([EXAMPLE_URL], {}, EXAMPLE_FORM) is Signature.MISSING


@pytest.mark.parametrize("algorithm", ["HMAC_SHA1", "HMAC_SHA256", "HMAC_MD5", "none", ""])
def test_an_algorithm_is_checked_with_its_own_secret_only(algorithm: str, caplog: pytest.LogCaptureFixture) -> None:
    signatures = Signatures(auth_token="one", shared_key_secret="other")
    hashed = {"HMAC_SHA256": sha256}.get(algorithm, sha1)
    for secret in ("one", "other"):
        digest = hmac.digest(secret.encode(), b"https://relay.example/twiml", hashed)
        headers = {
            "X-Twilio-Signature": b64encode(digest).decode(),
            "X-Twilio-Webhooks-Signature-Settings": f"key=k,algorithm={algorithm}",
        }
        right = {"HMAC_SHA1": "one", "": "one", "HMAC_SHA256": "other"}.get(algorithm)
        expected = Signature.VALID if secret == right else Signature.WRONG
        assert signatures.check(["https://relay.example/twiml"], headers) is expected
    assert caplog.text == ""


def test_a_json_body_is_covered_by_its_hash() -> None:
    body = json.dumps({"CallSid": "CA1"})
    url = f"https://relay.example/twiml?bodySHA256={sha256(body.encode()).hexdigest()}"
    signatures = Signatures("12345")
    headers = signed(url, "12345")
    assert signatures.check([url], headers, body) is Signature.VALID
    assert signatures.check([url], headers, body.replace("CA1", "CA2")) is Signature.WRONG
    bare = "https://relay.example/twiml"
    assert signatures.check([bare], signed(bare, "12345"), body) is Signature.WRONG  # it covers no body


def test_the_ways_to_write_a_url() -> None:
    assert as_signed("wss://host/media/x") == (
        "wss://host/media/x",
        "wss://host/media/x/",
        "wss://host:443/media/x",
        "wss://host:443/media/x/",
    )

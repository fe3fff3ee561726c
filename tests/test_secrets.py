"""No number, no key, no token, no cookie and no spoken word is in any log, whatever happens."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

import gevent
import pytest
from flask import Blueprint
from gevent.event import Event

import app as program
from relay.console import Console, Outlet
from relay.passes import Kind, Passes, Scope
from relay.settings import Settings, read
from relay.web.access import open_to_all
from relay.web.routes import create_app
from services import listeners
from standins.twilio import CallFailed, SimulatedCall
from tests.browsing import Browser
from tests.calling import hang_up, say
from tests.numbered import number_ears
from tests.receiving import Receiver
from tests.talking import listening

CALLER, CALLED = "+15550171", "+15550172"
SECRETS: Final = {
    "DEEPGRAM_API_KEY": "the-key-of-deepgram",
    "TWILIO_AUTH_TOKEN": "the-auth-token-of-twilio",
    "VIEWER_PASSWORD": "the password of viewers",
    "VIEWER_TOKEN": "the-token-of-the-access-link",
    "WEBHOOK_SECRETS": "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgbG9uZyBlbm91Z2g=",
}
WRONG: Final = ("a-wrong-key-0123456789", "a guessed password", "a-wrong-token-0123456789")
SPOKEN: Final = re.compile(r"\b(?:in|out)[0-9]{1,4}\b")  # what the stand-in's ears hear


def broken() -> Blueprint:
    """A view that fails, and a socket's."""
    part = Blueprint("broken", __name__)

    @part.get("/broken/<text>")
    @open_to_all
    def fails(text: str) -> str:
        raise RuntimeError("it failed")

    return part


def a_call(url: str, path: str, **parameters: str) -> str:
    """One call with words on both sides; gives its SID. One that is not let in is over at once."""
    call = SimulatedCall(f"{url}{path}", parameters=parameters | {"from": CALLER, "to": CALLED})
    with suppress(CallFailed):
        call.open()
        call.start()
        say(call, 1_000)
        hang_up(call)
    return call.call_sid


def test_the_log_tells_nothing_that_it_should_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(program, "create_app", lambda *given, **named: create_app(*given, broken(), **named))
    with listening(ear=number_ears(final_ms=400)) as speech, Receiver() as receiver:
        environ = SECRETS | {
            "PORT": "0",
            "DEEPGRAM_URL": speech.url,
            "ACCESS_FOLDER": str(tmp_path / "access"),
            "DATABASE_URL": f"sqlite:///{tmp_path}/calls.db",
            "RESULTS_FOLDER": str(tmp_path / "results"),
            "RECORDINGS_FOLDER": str(tmp_path / "recordings"),
            "RECORD": "wav",
            "WEBHOOK_URLS": receiver.url(),
            "WEBHOOK_ALLOW_PRIVATE": "true",
            "VERBOSE": "true",
        }
        with (tmp_path / "out").open("w") as out:
            outlet = Outlet(out)
            console = Console(outlet, verbose=True)
            settings = read(Settings, environ)
            with program.serving(environ, settings, listeners(environ), console, Event()) as (server, switchboard):
                shown = everything_that_is_secret(server.port, Passes(tmp_path / "access"), environ)
                assert switchboard.quiet.wait(30)
            outlet.close(30)
            console_says = (tmp_path / "out").read_text()
    ours = [record for record in caplog.records if not record.name.startswith("websockets")]  # the stand-in's
    told = "\n".join([*map(caplog.handler.format, ours), capfd.readouterr().err])
    assert "a failure in answering" in told
    assert "wrong password" in told
    for name, secret in {**SECRETS, **shown}.items():
        assert secret not in told, name
        assert secret not in console_says, name
    for wrong in WRONG:
        assert wrong not in told
        assert wrong not in console_says
    assert not SPOKEN.search(told)
    assert SPOKEN.search(console_says), "the transcript itself is on the console, on purpose"


def everything_that_is_secret(port: int, passes: Passes, environ: dict[str, str]) -> dict[str, str]:
    """Uses keys, tokens, cookies and numbers in every place, rightly and wrongly; gives those that were made here."""
    media, url = f"ws://127.0.0.1:{port}/media", f"http://127.0.0.1:{port}"
    stream_pass = passes.issue(Kind.STREAM, (), for_s=60)
    sid = a_call(media, f"/{passes.stream_key}")
    a_call(media, "", key=passes.stream_key)
    a_call(media, "", token=stream_pass, key="")
    a_call(media, f"/{stream_pass}")
    for wrong in WRONG:
        a_call(media, f"/{wrong.replace(' ', '_')}")
        a_call(media, "", key=wrong, token=wrong)
    browser = Browser(url)
    token = passes.issue(Kind.TOKEN, Scope, for_s=60)
    for wrong in WRONG:
        assert browser.log_in(wrong).status == 403
        assert browser.get(f"/enter/{wrong.replace(' ', '%20')}").status == 403
        assert browser.get(f"/share/{wrong.replace(' ', '%20')}").status == 403
        assert browser.get("/api/calls", Authorization=f"Bearer {wrong}").status == 401
    assert browser.get(f"/enter/{environ['VIEWER_TOKEN']}").status == 303
    assert browser.log_in(environ["VIEWER_PASSWORD"]).status == 303
    cookie = next(iter(browser.cookies.values())).value
    with gevent.Timeout(20):
        while browser.get(f"/api/calls/{sid}").status != 200:
            gevent.sleep(0.05)
    shared = browser.ask(f"/api/calls/{sid}/share", "POST", None, {"Origin": url})
    share = shared.document["url"].rpartition("/")[2]
    assert Browser(url).get(f"/share/{share}").status == 303
    assert browser.get(f"/broken/{share}").status == 500
    assert browser.get("/broken/x", Authorization=f"Bearer {token}", Cookie=f"a={cookie}").status == 500
    assert browser.get(f"/api/calls?number={CALLER.replace('+', '%2B')}").document["items"]
    assert browser.get(f"/api/search?q=in3&call={sid}").status == 200
    assert browser.get(f"/api/live?call={cookie}&x={token}").status == 400
    browser.post("/twiml", {"CallSid": sid, "From": CALLER, "To": CALLED})
    browser.post(f"/twiml/{passes.stream_key}", {"CallSid": sid, "From": CALLER, "To": CALLED})
    browser.post(f"/stream-status/{passes.stream_key}", {"CallSid": sid, "From": CALLER, "StreamEvent": "stream-error"})
    return {
        "the stream key": passes.stream_key,
        "a stream's pass": stream_pass,
        "a token": token,
        "a link": share,
        "a cookie": cookie,
        "the caller's number": CALLER,
        "the caller's number, written otherwise": CALLER[1:],
        "the called number": CALLED[1:],
    }

"""The demo call: the sample call through a running server, heard on this machine, and all of it gone at the end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import gevent
import pytest

from app import speech_at
from relay.errors import RelayError
from relay.events import ServiceRefused
from relay.passes import Kind, Passes, Scope
from relay.store.store import Store
from standins import demo_call
from standins.demo_call import NAME, WORD, DemoCall
from standins.sample_call import RUNS_ALREADY
from standins.score import spoken_words
from standins.twilio import SimulatedCall
from tests.program import ROOT, Program, program
from tests.serving import Answer, Serving, serving
from tests.talking import deepgram, listening
from tests.watching import Watcher

pytest_plugins = ("tests.databases", "tests.stores")
pytestmark = pytest.mark.once

SAMPLE = ROOT / "standins" / "audio" / "order-status-call.wav"
WITHIN = 60.0  # seconds for anything that the recogniser does, on a busy machine


def demo_in(folder: Path) -> DemoCall:
    """A demo call whose note lies there."""
    return DemoCall(folder, partial(speech_at, "deepgram"), lambda line, style: None)


@contextmanager
def offering(store: Store, demo: DemoCall, *services: object) -> Iterator[Serving]:
    """A server that offers it."""
    with serving(store, *services, on_request=[demo.provider.service], demo=demo) as running:  # type: ignore[arg-type]
        demo.goes_to(running.relay.url)
        try:
            yield running
        finally:
            demo.close()


def begin(running: Serving) -> str:
    """Begins one; gives its SID."""
    answer = running.ask("/demo-call", "POST")
    assert answer.status == 202, answer.body
    return str(answer.document["call_sid"])


def refused(answer: Answer) -> str:
    """Why there is none."""
    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json"), answer.body
    return str(answer.document["detail"])


def test_it_is_a_call_like_any_other_and_no_other_service_hears_it(store: Store, tmp_path: Path) -> None:
    demo = demo_in(tmp_path)
    with listening() as speech, offering(store, demo, deepgram(speech)) as running:
        watcher = running.watch()
        sid = begin(running)
        assert refused(running.ask("/demo-call", "POST")) == RUNS_ALREADY
        assert refused_by(demo_in(tmp_path), running.relay.url) == RUNS_ALREADY  # at another worker
        watcher.wait_for(lambda: watcher.texts(), WITHIN)
        demo.hang_up()
        watcher.wait_for(lambda: watcher.of("call.ended"), WITHIN)
        transcript = running.ask(f"/api/calls/{sid}/transcript.json").document
        assert len(speech.connections) == 0
        assert {told.data["call_sid"] for told in watcher.told} == {sid}
        demo.close()
        assert begin(running) != sid
    spoken = spoken_words(SAMPLE)
    assert spoken is not None
    heard = transcript["segments"][0]
    assert heard["service"] == NAME
    assert set(heard["text"].split()) <= set(spoken[heard["track"]])
    assert transcript["call"]["services"] == [NAME]
    assert transcript["call"]["caller"].startswith("+1202555")


def refused_by(demo: DemoCall, url: str) -> str:
    """Why another process may not begin one."""
    demo.goes_to(url)
    try:
        demo.begin()
    except RelayError as why_not:
        return str(why_not)
    raise AssertionError("it began")


def test_what_keeps_it_from_beginning_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = demo_in(tmp_path)
    with offering(store, demo) as running:
        demo.goes_to(running.relay.url.replace("/media/", "/media/x"))
        assert "HTTP 403" in refused(running.ask("/demo-call", "POST"))
        assert refused(running.ask("/demo-call", "POST")) != RUNS_ALREADY
        demo.goes_to("ws://127.0.0.1:1/media")
        assert "nothing listens there" in refused(running.ask("/demo-call", "POST"))
        monkeypatch.setattr(demo_call, "BEGIN_WITHIN", 0.01)
        assert refused(running.ask("/demo-call", "POST")) == "The demo call did not begin in time."


def test_without_its_packages_it_says_what_to_install(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo_in(tmp_path).why_not == ""
    monkeypatch.setattr(demo_call, "NEEDED", ("nowhere_to_be_had",))
    demo = demo_in(tmp_path)
    with offering(store, demo) as running:
        assert refused(running.ask("/demo-call", "POST")) == demo.why_not
    assert demo.why_not == "nowhere_to_be_had is not installed: pip install -r requirements-demo.txt"


def test_its_service_hears_no_other_call(store: Store, tmp_path: Path) -> None:
    demo = demo_in(tmp_path)
    with offering(store, demo) as running:
        call = SimulatedCall(running.relay.url, parameters={"service": WORD})
        call.open()
        call.start()
        trouble = running.relay.of(call).wait_for(ServiceRefused)
        call.stop()
        call.close()
    assert isinstance(trouble, ServiceRefused)
    assert trouble.service == NAME
    assert "the demo call only" in trouble.reason


# --- A whole server --------------------------------------------------------------------------------------------


def descendants(pid: int) -> set[int]:
    """All processes that it has started, and they."""
    children = {
        int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and parent_of(int(path.name)) == pid
    }
    return children.union(*map(descendants, children))


def parent_of(pid: int) -> int:
    """Of a process that is not over; else 0."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def eventually(holds: Callable[[], object]) -> None:
    """Waits for what nobody announces."""
    with gevent.Timeout(WITHIN):
        while not holds():
            gevent.sleep(0.05)


def watch_demo(started: Program) -> Watcher:
    """Asks a server for a demo call, and watches it until somebody has said something."""
    port = started.line(r"localhost:(\d+)")[1]
    token = Passes(started.folder / "data" / "access").issue(Kind.TOKEN, Scope, for_s=600)
    running = partial(ask, f"127.0.0.1:{port}", token)
    sid = running("/demo-call", "POST").document["call_sid"]
    watcher = Watcher(f"http://127.0.0.1:{port}", sid, 0, token=token)
    watcher.wait_for(lambda: watcher.texts(), WITHIN)
    return watcher


def ask(host: str, token: str, path: str, method: str) -> Answer:
    """One request of a program."""
    connection = HTTPConnection(host, timeout=WITHIN)
    connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    return Answer(response.status, {}, response.read())


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_it_outlives_the_server(tmp_path: Path, told: signal.Signals) -> None:
    with program(folder=tmp_path, PORT="0", WORKERS="2") as started:
        watcher = watch_demo(started)
        started.line("heard by a speech service for trying out")
        everybody = descendants(started.process.pid)
        assert len(everybody) == 4  # two workers, the call, and its recogniser
        started.tell(told)
        watcher.wait_for(lambda: watcher.over, WITHIN)
        eventually(lambda: not any(map(parent_of, everybody)))
        assert told is signal.SIGKILL or started.end() == 0

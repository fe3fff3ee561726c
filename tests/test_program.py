"""The program as people start it, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import gevent
import pytest
from click.testing import CliRunner

from app import main
from relay.admission import TwilioSettings
from relay.doctor import what_is_open
from relay.passes import Passes
from relay.settings import Settings
from relay.web.entrance import AccessSettings
from services import OFFERS, what_each_can_do
from standins.deepgram import Drop, Fault, Refusal
from standins.gladia import GladiaServer
from standins.score import spoken_words, word_errors, words_of
from standins.twilio import SimulatedCall
from tests.calling import answered, hang_up, say
from tests.numbered import number_ears
from tests.program import ROOT, Program, clean_environment, program, running
from tests.talking import listening

pytestmark = pytest.mark.once

SAMPLE = ROOT / "standins" / "audio" / "order-status-call.wav"
KEY = "k3y-n0b0dy-may-s33"


def media_url(started: Program) -> str:
    """Where the program said that it takes calls, and its stream key."""
    endpoint = started.line(r"WebSocket endpoint: (ws://\S+)")[1]
    return f"{endpoint}/{Passes(started.folder / 'data' / 'access').stream_key}"


# --- The start -----------------------------------------------------------------------------------------------------


def test_without_a_key_it_starts_and_says_what_to_do(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0") as started:
        port = started.line(r"Server listening on: http://localhost:(\d+)")[1]
        started.line(f"WebSocket endpoint: ws://localhost:{port}/media$")
        started.line("^WARNING: Deepgram API key not set$")
        started.line("DEEPGRAM_API_KEY.*python app.py demo")
        assert started.out[0] == "Starting WebSocket server..."
        call = answered(media_url(started), "inbound")
        say(call, 200)
        hang_up(call)
        started.line("^Not transcribed: DEEPGRAM_API_KEY is not set")
        started.line("^Call CA.* ended")
        started.tell()
        assert started.end() == 0
    assert started.err == []


def test_the_port_may_be_named_in_two_ways_and_in_a_file(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with program(folder=tmp_path, HTTP_PORT=str(port)) as started:
        started.line(f"http://localhost:{port}$")
    (tmp_path / ".env").write_text(f"PORT={port}\nDEEPGRAM_API_KEY={KEY}\n")
    with program(folder=tmp_path) as started:
        started.line(f"http://localhost:{port}$")
        started.tell(signal.SIGINT)
        started.end()
    assert "WARNING" not in str(started)
    assert KEY not in str(started)


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program(folder=tmp_path, PORT=str(port)) as started:
            assert started.end() == 1
    assert started.err == [f"Error: Port {port} is taken; set PORT to another one."]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "many"),
        ("PORT", "70000"),
        ("AUDIO_CHUNK_MS", "5"),
        ("REPLAY_SECONDS", "-1"),
        ("CALL_TRACKS", "both"),
        ("VERBOSE", "perhaps"),
        ("DEEPGRAM_MODEL", "flux-general-de"),
        ("SPEECH_SERVICE", "siri"),
        ("DEEPGRAM_LANGUAGE", "english"),
        ("PUBLIC_URL", "my-tunnel"),
        ("DEEPGRAM_URL", "wss://localhost:port"),
    ],
)
def test_a_bad_setting_is_one_sentence_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    with program(folder=tmp_path, **{"DEEPGRAM_API_KEY": KEY, name: value}) as started:
        assert started.end() == 1
    (sentence,) = started.err
    assert sentence.startswith(f"Error: {name} should be")
    assert KEY not in sentence


@pytest.mark.skipif(sys.platform != "linux", reason="processes share a port on Linux only")
def test_no_worker_is_started_with_a_bad_setting(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0", WORKERS="2", TWILIO_SIGNATURE="enforce") as started:
        assert started.end() == 1
    (sentence,) = started.err
    assert sentence.startswith("Error: TWILIO_AUTH_TOKEN should be set")


def test_the_key_that_is_missing_is_named(tmp_path: Path) -> None:
    settings = {"PORT": "0", "SPEECH_SERVICES": "deepgram,gladia", "DEEPGRAM_API_KEY": KEY}
    with program(folder=tmp_path, **settings) as started:
        started.line("^WARNING: Gladia API key not set$")
        started.line("^Calls will not be transcribed: GLADIA_API_KEY is not set")
    with program(folder=tmp_path, SPEECH_FALLBACKS="gladia", DEEPGRAM_API_KEY=KEY) as started:
        assert started.end() == 1
    assert started.err == ["Error: SPEECH_FALLBACKS names gladia, and GLADIA_API_KEY is not set."]


def test_a_file_of_settings_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DEEPGRAM_API_KEY={KEY}", encoding="utf-16")
    with program(folder=tmp_path) as started:
        assert started.end() == 1
    (sentence,) = started.err
    assert sentence.endswith("should be UTF-8 text; save it as that.")
    (tmp_path / ".env").write_text(f"DEEPGRAM_API_KEY={KEY}\nPORT=many", encoding="utf-8-sig")
    with program(folder=tmp_path) as started:
        assert started.end() == 1
    assert started.err[0].startswith("Error: PORT should be")


def test_help_lists_the_commands(tmp_path: Path) -> None:
    with program("--help", folder=tmp_path) as started:
        assert started.end() == 0
    for command in ("serve", "simulate", "demo", "services", "doctor"):
        started.line(rf"^  {command} ")


# --- Calls ---------------------------------------------------------------------------------------------------------


def test_a_call_of_one_track_prints_what_the_user_asked_for(tmp_path: Path) -> None:
    with listening(ear=number_ears(final_ms=2000)) as speech:
        with program(folder=tmp_path, PORT="0", DEEPGRAM_URL=speech.url, DEEPGRAM_API_KEY=KEY) as started:
            call = answered(media_url(started), "inbound")
            say(call, 4_000)
            hang_up(call)
            started.line("^Call CA.* ended")
    transcript = started.out[started.out.index("NEW WEBSOCKET CONNECTION ACCEPTED") - 1 :]
    rule = "=" * 60
    assert transcript[:4] == [rule, "NEW WEBSOCKET CONNECTION ACCEPTED", "WebSocket path: /media", rule]
    assert transcript[4] == 'Connected Message received: {"event":"connected","protocol":"Call","version":"1.0.0"}'
    assert transcript[5].startswith('Start Message received: {"event":"start"')
    rest = transcript[6:]
    assert rest.count("Deepgram connection initiated...") == 1
    assert rest.count("Connected to Deepgram WebSocket") == 1
    assert rest.count("Media message received: 160 bytes") == 1
    assert any(line.startswith("[INTERIM] Transcription: in0 in1 ") for line in rest)
    finals = " ".join(line.removeprefix("[FINAL] Transcription: ") for line in rest if line.startswith("[FINAL]"))
    assert finals.split() == [f"in{n}" for n in range(200)]
    assert "200 frames, 0 audio gaps (0 ms), 200 words, 0 reconnects, 0 ms lost" in transcript[-1]
    assert KEY not in str(started)
    assert started.err == []


def test_a_call_of_both_tracks_names_the_sides_and_tells_times(tmp_path: Path) -> None:
    with listening(ear=number_ears(final_ms=2000)) as speech:
        with program(folder=tmp_path, PORT="0", DEEPGRAM_URL=speech.url, DEEPGRAM_API_KEY=KEY) as started:
            call = answered(media_url(started))
            say(call, 2_000)
            hang_up(call)
            started.line("^Call CA.* ended")
    started.line(r"^\[FINAL\] Inbound: in0 .* in99 \[0 - 2000\]$")
    started.line(r"^\[FINAL\] Outbound: out0 .* out99 \[0 - 2000\]$")


def test_when_several_calls_run_every_line_tells_whose_it_is(tmp_path: Path) -> None:
    with listening() as speech:
        with program(folder=tmp_path, PORT="0", DEEPGRAM_URL=speech.url, DEEPGRAM_API_KEY=KEY) as started:
            calls = [answered(media_url(started), "inbound") for _ in range(2)]
            for call in calls:
                say(call, 4_000)
            for call in calls:
                started.line(rf"^CA\.\.{call.call_sid[-6:]} \[FINAL\] Transcription: in0 ")
            for call in calls:
                hang_up(call)
                started.line(f"Call CA..{call.call_sid[-6:]} ended")


def test_a_refused_key_is_told_and_never_shown(tmp_path: Path) -> None:
    refusal = Fault(refuse=Refusal(401, "INVALID_AUTH", "Invalid credentials."))
    with listening(refusal) as speech:
        with program(folder=tmp_path, PORT="0", DEEPGRAM_URL=speech.url, DEEPGRAM_API_KEY=KEY) as started:
            call = answered(media_url(started))
            say(call, 1_000)
            hang_up(call)
            started.line("^Call CA.* ended.* 2000 ms lost")
    started.line(r"^Not transcribed: Deepgram refused the key \(401: Invalid credentials., request .*DEEPGRAM_API_KEY")
    started.line(r"^\[MISSING\] Inbound: from 0.0 s to 1.0 s \(Deepgram refused the key")
    assert KEY not in str(started)


def test_a_lost_connection_is_told(tmp_path: Path) -> None:
    with listening(Fault(drop=Drop(1_000, "reset"))) as speech:
        with program(folder=tmp_path, PORT="0", DEEPGRAM_URL=speech.url, DEEPGRAM_API_KEY=KEY) as started:
            call = answered(media_url(started), "inbound")
            say(call, 3_000)
            hang_up(call)
            started.line("^Call CA.* 150 words, 1 reconnects, 0 ms lost")
    started.line("^Deepgram connection lost: .* Trying again in")


def test_gladia_hears_a_call_and_its_result_is_kept(tmp_path: Path) -> None:
    with GladiaServer(ear=number_ears(final_ms=2000), key=KEY) as speech:
        settings = {"SPEECH_SERVICE": "gladia", "GLADIA_URL": speech.url, "GLADIA_API_KEY": KEY}
        with program(folder=tmp_path, PORT="0", GLADIA_SUMMARY="concise", **settings) as started:
            call = answered(media_url(started))
            say(call, 2_000)
            hang_up(call)
            started.line("^Call CA.* 200 words, 0 reconnects, 0 ms lost")
            started.tell()
            assert started.end() == 0
        (session,) = speech.sessions
    assert speech.violations == []
    assert started.out.count(f"Gladia session ID: {session}") == 1
    assert started.out.count("Connected to Gladia WebSocket") == 1
    started.line(r"^\[FINAL\] Inbound: in0 .* in99 \[0 - 2000\]$")
    started.line(r"^\[FINAL\] Outbound: out0 .* out99 \[0 - 2000\]$")
    started.line(r"^\[SUMMARY\] 2 utterances in 2 seconds\.$")
    (result,) = (tmp_path / "data" / "results").iterdir()
    assert result.name == f"{call.call_sid}-gladia-{session}.json"
    assert json.loads(result.read_bytes())["status"] == "done"
    assert KEY not in str(started)
    assert started.err == []


def test_several_services_hear_a_call_side_by_side(tmp_path: Path) -> None:
    with listening() as one, GladiaServer(ear=number_ears()) as other:
        settings = {"DEEPGRAM_URL": one.url, "DEEPGRAM_API_KEY": KEY, "GLADIA_URL": other.url, "GLADIA_API_KEY": KEY}
        with program(folder=tmp_path, PORT="0", SPEECH_SERVICES="deepgram,gladia", **settings) as started:
            call = answered(media_url(started), "inbound")
            say(call, 1_000)
            hang_up(call)
            started.line("^Call CA.* 100 words")
    for service in ("Deepgram", "Gladia"):
        started.line(rf"^{service}: \[FINAL\] Transcription: in0 .* in49$")


def test_the_next_service_hears_a_call_when_the_first_is_away(tmp_path: Path) -> None:
    with socket.socket() as dead, listening() as speech:
        dead.bind(("127.0.0.1", 0))
        settings = {
            "SPEECH_SERVICE": "gladia",
            "GLADIA_API_KEY": KEY,
            "GLADIA_URL": f"http://127.0.0.1:{dead.getsockname()[1]}",
            "SPEECH_FALLBACKS": "deepgram",
            "DEEPGRAM_API_KEY": KEY,
            "DEEPGRAM_URL": speech.url,
        }
        with program(folder=tmp_path, PORT="0", **settings) as started:
            for _ in range(2):
                call = answered(media_url(started), "inbound")
                say(call, 1_000)
                hang_up(call)
                started.line(rf"^Call CA\.\.{call.call_sid[-6:]} ended .* 50 words, 0 reconnects, 0 ms lost")
    why = r"Gladia could not be asked \(.*Connection refused\)"
    started.line(rf"^Gladia is taken for down \({why}\): new calls go to another service for now\.$")
    started.line(rf"^Gladia is given up: {why}\. Deepgram goes on from 0\.0 s\.$")
    assert str(started).count("is given up") == 1, "the second call went straight to the next one"
    assert started.out.count("[FINAL] Transcription: " + " ".join(f"in{n}" for n in range(50))) == 2
    assert KEY not in str(started)


def test_a_terminal_that_is_held_up_holds_up_no_call(tmp_path: Path) -> None:
    """Nobody reads standard output, and far more is said than a pipe holds; the calls come and go all the same."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "app.py")],
        cwd=tmp_path,
        env=clean_environment() | {"PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        while b"WebSocket endpoint: " not in (line := process.stdout.readline()):
            assert line
        url = f"{line.split()[-1].decode()}/{Passes(tmp_path / 'data' / 'access').stream_key}"
        chatty = {f"{n:0400}": "x" for n in range(4)}  # names of parameters are shown
        for _ in range(150):
            call = SimulatedCall(url, tracks=("inbound",), parameters=chatty)
            call.open()
            call.start()
            say(call, 40)
            call.stop()
            assert call.wait_closed().code == 1000
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


# --- The end -------------------------------------------------------------------------------------------------------


def test_told_to_leave_it_finishes_the_running_calls_first(tmp_path: Path) -> None:
    with listening() as speech:
        with program(folder=tmp_path, PORT="0", DEEPGRAM_URL=speech.url, DEEPGRAM_API_KEY=KEY) as started:
            url = media_url(started)
            call = answered(url, "inbound")
            say(call, 1_000)
            started.line("Media message received")
            started.tell()
            started.line("No new streams; 1 still running")
            with pytest.raises(Exception, match="reach"):
                SimulatedCall(url).open()
            say(call, 1_000, at_ms=1_000)
            hang_up(call)
            assert started.end() == 0
    started.line("^Call CA.* ended .*100 words")


def test_told_twice_it_leaves_at_once(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0") as started:
        call = answered(media_url(started), "inbound")
        say(call, 100)
        started.line("Media message received")
        started.tell()
        started.line("No new streams; 1 still running")
        started.tell()
        assert started.end() == 0
    started.line("Left with 1 streams still running")


@pytest.mark.parametrize("told", [["services"], []])
def test_nothing_that_python_does_at_its_end_changes_how_it_ends(tmp_path: Path, told: list[str]) -> None:
    """Such as a crash in a thread that is still there."""
    at_the_end = "import atexit, os; atexit.register(os.abort); import app; app.run()"
    with running(["-c", at_the_end, *told], tmp_path, {"PORT": "0"}) as started:
        if not told:
            started.line("Server listening on")
            started.tell()
        assert started.end() == 0
    assert started.out


# --- Several workers -----------------------------------------------------------------------------------------------


def children(pid: int) -> set[int]:
    """The workers of a program, by process."""
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.mark.skipif(sys.platform != "linux", reason="processes share a port on Linux only")
def test_several_workers_share_the_calls_and_are_replaced(tmp_path: Path) -> None:
    with listening() as speech:
        settings = {"WORKERS": "2", "PORT": "0", "DEEPGRAM_URL": speech.url, "DEEPGRAM_API_KEY": KEY}
        with program(folder=tmp_path, **settings) as started:
            url = media_url(started)
            wait_until(lambda: _listeners(url) == 2)
            calls = [answered(url, "inbound") for _ in range(20)]
            for call in calls:
                say(call, 1_000)
            sockets = {pid: _sockets(pid) for pid in children(started.process.pid)}
            lines = len(sockets)  # to each other
            assert all(count > 3 + lines for count in sockets.values()), "one of them answered nearly every call"
            for call in calls:
                hang_up(call)
            wait_until(lambda: sum("50 words" in line for line in _ends(started)) == 20)
            victim = min(children(started.process.pid))
            os.kill(victim, signal.SIGKILL)
            started.line("a worker ended with status -9 and is replaced")
            wait_until(lambda: len(children(started.process.pid) - {victim}) == _listeners(url) == 2)
            started.tell()
            assert started.end() == 0
    assert started.out.count("Starting WebSocket server...") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="processes share a port on Linux only")
def test_workers_finish_their_calls_even_when_nobody_looks_after_them(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0", WORKERS="2") as started:
        url = media_url(started)
        wait_until(lambda: _listeners(url) == 2)
        workers = children(started.process.pid)
        call = answered(url, "inbound")
        say(call, 200)
        started.line("Media message received")
        started.process.kill()
        started.line("No new streams; 1 still running")
        hang_up(call)
        wait_until(lambda: not any(map(_is_running, workers)))


def wait_until(predicate: Callable[[], object], within: float = 30.0) -> None:
    """Returns once the predicate holds; of other processes there is no event to wait for."""
    with gevent.Timeout(within):
        while not predicate():
            gevent.sleep(0.05)


def _listeners(url: str) -> int:
    """How many sockets listen at the URL's port: the fourth column of the kernel's table says 0A for each."""
    port = int(url.split(":")[-1].split("/")[0])
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in table)


def _sockets(pid: int) -> int:
    return sum(str(link.readlink()).startswith("socket:") for link in Path(f"/proc/{pid}/fd").iterdir())


def _ends(started: Program) -> list[str]:
    return [line for line in started.out if line.startswith("Call CA")]


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it is gone, perhaps just now
        return False


# --- The other commands --------------------------------------------------------------------------------------------


def test_simulate_plays_a_file_and_reports(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0") as server:
        arguments = ["--url", media_url(server), "--speed", "200", "--calls", "2", "--fault", "gap=1000@5"]
        with program("simulate", str(SAMPLE), *arguments, folder=tmp_path) as simulation:
            assert simulation.end() == 0
        server.line(r"^Call CA.* ended \(stop\): 43.2 s, 4224 frames, 2 audio gaps \(2000 ms\)")
    simulation.line("^2 calls: 2 stopped")


def test_ctrl_c_ends_a_simulation_with_its_calls_hung_up(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0") as server:
        with program("simulate", str(SAMPLE), "--url", media_url(server), folder=tmp_path) as simulation:
            server.line("Media message received")
            simulation.tell(signal.SIGINT)
            assert simulation.end() == 1
        server.line(r"^Call CA.* ended \(stop\)")
    assert simulation.err == ["", "Aborted!"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.wav"], "nowhere.wav cannot be opened"),
        ([str(ROOT / "README.md")], "no recording that can be read"),
        ([str(ROOT)], "directory"),
        ([str(SAMPLE), "--fault", "earthquake"], '"earthquake" is no fault'),
        ([str(SAMPLE), "--url", "http://localhost/media"], "ws://"),
        ([str(SAMPLE), "--calls", "0"], "one is the least"),
    ],
)
def test_what_cannot_be_simulated_is_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    with program("simulate", *arguments, folder=tmp_path) as started:
        assert started.end() == 1
    (sentence,) = started.err
    assert says in sentence


def test_simulating_to_nobody_is_told_and_fails(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}/media"
        with program("simulate", str(SAMPLE), "--url", url, folder=tmp_path) as started:
            assert started.end() == 1
    started.line("nothing listens there")


def test_the_doctor_finds_all_well(tmp_path: Path) -> None:
    with listening(key=KEY) as speech:
        settings = {"PORT": "0", "DEEPGRAM_URL": speech.url, "DEEPGRAM_API_KEY": KEY}
        with program("doctor", folder=tmp_path, **settings) as started:
            assert started.end() == 0
    started.line("^ok .*Deepgram accepts the key")
    started.line("^ok .*Port")
    started.line("^ +- .*PUBLIC_URL")
    started.line('<Stream url="wss://HOST/media/[A-Za-z0-9_-]{32}" track="both_tracks"/>')
    assert KEY not in str(started)


def test_the_doctor_says_what_to_do(tmp_path: Path) -> None:
    with listening(key="another") as speech, socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {
            "PORT": str(taken.getsockname()[1]),
            "DEEPGRAM_URL": speech.url,
            "DEEPGRAM_API_KEY": KEY,
            "PUBLIC_URL": "https://127.0.0.1:1",
        }
        refusing = gevent.spawn(_hang_up_on_all, taken)
        with program("doctor", folder=tmp_path, **settings) as started:
            assert started.end() == 1
        refusing.kill()
    started.line("^to do .*refused the key.*Invalid credentials.*DEEPGRAM_API_KEY")
    started.line("^to do .*is taken; set PORT")
    started.line("^to do .*wss://127.0.0.1:1/media does not lead here")
    started.line('<Stream url="wss://127.0.0.1:1/media/')


def test_the_doctor_looks_at_every_service_with_a_key(tmp_path: Path) -> None:
    with listening(key=KEY) as well, GladiaServer(ear=number_ears(), key="another") as ill:
        settings = {"DEEPGRAM_URL": well.url, "DEEPGRAM_API_KEY": KEY, "GLADIA_URL": ill.url, "GLADIA_API_KEY": KEY}
        with program("doctor", folder=tmp_path, PORT="0", **settings) as started:
            assert started.end() == 1
        assert (len(well.connections), len(ill.sessions)) == (1, 0)
    started.line("^ok .*Deepgram accepts the key")
    started.line("^to do .*Gladia refused the key.*GLADIA_API_KEY")
    assert KEY not in str(started)


def _hang_up_on_all(taken: socket.socket) -> None:
    while True:
        taken.accept()[0].close()


@pytest.mark.parametrize(("workers", "host"), [("1", "localhost"), ("2", "127.0.0.2")])
def test_the_doctor_knows_a_server_that_runs_already(tmp_path: Path, workers: str, host: str) -> None:
    settings = {"LISTEN_ON": host, "WORKERS": workers}
    with program(folder=tmp_path, PORT="0", **settings) as server:
        port = server.line(rf"^See your calls at: http://{host}:(\d+)/enter/")[1]
        with program("doctor", folder=tmp_path, PORT=port, **settings) as started:
            assert started.end() == 1
    started.line(f"^ok .*runs on port {port} already")
    started.line("^to do .*DEEPGRAM_API_KEY is not set")


def test_where_signatures_are_enforced_the_simulator_and_the_doctor_sign(tmp_path: Path) -> None:
    settings = {
        "TWILIO_SIGNATURE": "enforce",
        "TWILIO_AUTH_TOKEN": "hush-hush",
        "PUBLIC_URL": "https://relay.invalid",
        "DATABASE_URL": "none",
    }
    with program(folder=tmp_path, PORT="0", **settings) as server:
        settings["PORT"] = media_url(server).split(":")[-1].split("/")[0]
        with program("simulate", str(SAMPLE), "--speed", "200", folder=tmp_path, **settings) as simulation:
            assert simulation.end() == 0
        with program("doctor", folder=tmp_path, **settings) as doctor:
            assert doctor.end() == 1
        doctor.line(f"^ok .*runs on port {settings['PORT']} already")
        doctor.line("^ok .*Twilio should sign wss://relay.invalid/media.* nothing is let in without")
        doctor.line("/media.*Twilio's signature only")
        with program("simulate", str(SAMPLE), "--url", media_url(server), folder=tmp_path) as unsigned:
            assert unsigned.end() == 1
        unsigned.line("HTTP 403")
    assert "hush-hush" not in f"{server}{simulation}{doctor}"


def test_the_doctor_knows_a_server_with_another_key(tmp_path: Path) -> None:
    with program(folder=tmp_path, PORT="0", DATABASE_URL="none") as server:
        port = media_url(server).split(":")[-1].split("/")[0]
        with program("doctor", folder=tmp_path, PORT=port, ACCESS_FOLDER="another") as started:
            assert started.end() == 1
    started.line(f"^to do .*port {port} does not know this key")


@pytest.mark.parametrize(
    ("name", "value"), [("VIEWER_PASSWORD", "short"), ("VIEWER_TOKEN", "short"), ("WEBHOOK_URLS", "https://a.example")]
)
def test_the_doctor_reads_all_that_the_server_reads(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(main, ["doctor"], env={"PORT": "0", name: value})
    assert (answer.exit_code, answer.output.startswith(f"Error: {name} ")) == (1, True), answer.output


def test_the_table_says_who_may_see_in_this_setting() -> None:
    for access, ways in (
        (AccessSettings(), "the access link that is printed"),
        (AccessSettings(password="hush"), "VIEWER_PASSWORD"),
        (AccessSettings(token="hush"), "the access link with VIEWER_TOKEN"),
        (AccessSettings(password="hush", token="hush"), "VIEWER_PASSWORD, the access link with VIEWER_TOKEN"),
    ):
        table = dict(what_is_open(Settings(), TwilioSettings(), access))
        assert table["/, /calls, /api"].partition(";")[0] == table["/metrics"].partition(";")[0] == ways


def test_services_shows_what_each_can_do(tmp_path: Path) -> None:
    with (
        program("services", folder=tmp_path, COLUMNS="400") as wide,
        program("services", folder=tmp_path, COLUMNS="80") as narrow,
    ):
        assert (wide.end(), narrow.end()) == (0, 0)
    head, rows = what_each_can_do()
    for cells in (head, *rows):
        wide.line(r"\s+".join(map(re.escape, cells)))
    for offer in OFFERS.values():
        narrow.line(rf"\b{offer.name}\b")
    assert "…" not in str(narrow), "something was left out"


# --- The whole chain, with real speech -------------------------------------------------------------------------------


def test_real_speech_through_the_whole_chain(tmp_path: Path) -> None:
    """The sample call, played at real time to the program, which asks the local recogniser; each in its own process."""
    with running(["-m", "standins.deepgram", "--port", "0"], tmp_path) as recogniser:
        url = recogniser.line(r"on (ws://[^:]+:\d+):")[1]
        with program(folder=tmp_path, PORT="0", DEEPGRAM_URL=url, DEEPGRAM_API_KEY=KEY) as server:
            with program("simulate", str(SAMPLE), "--url", media_url(server), folder=tmp_path) as simulation:
                assert simulation.end(90) == 0
            server.line(r"^Call CA.* ended \(stop\): 43.2 s, 4324 frames, 0 audio gaps")
    spoken = spoken_words(SAMPLE)
    assert spoken is not None
    for track, words in spoken.items():
        finals = [final for line in server.out if (final := FINAL.match(line)) and final[1] == track.capitalize()]
        heard = words_of(" ".join(final[2] for final in finals))
        assert word_errors(words, heard) < 0.15 * len(words)
        others = next(other for side, other in spoken.items() if side is not track)
        assert word_errors(others, heard) > 0.5 * len(others), "swapped tracks would not be noticed"
        starts = word_starts(track)
        for final in finals:
            assert min(abs(int(final[3]) - start) for start in starts) <= 250, final[0]


def test_demos_speak_every_services_protocol(tmp_path: Path) -> None:
    """At once, since each takes as long as its call; a proxy that answers nobody is not asked for this very machine."""
    recording = beginning_of_sample(tmp_path, 9.0)
    nowhere = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    with ExitStack() as stack:
        demos = {
            offer.name: stack.enter_context(
                program("demo", str(recording), "--service", word, folder=tmp_path, **nowhere)
            )
            for word, offer in OFFERS.items()
            if word != "deepgram"
        }
        for name, demo in demos.items():
            assert demo.end(60) == 0, str(demo)
            demo.line(f"It is not {name}:")
            demo.line(f"^Connected to {name} WebSocket$")
            demo.line(r"^\[FINAL\] Outbound: .*help you")
            demo.line(r"^\[FINAL\] Inbound: .*last week")
            wrong, total = map(int, demo.line(r"^Words that differ from the text: (\d+) of (\d+) ").groups())
            assert total == 25
            assert wrong < 0.2 * total
            demo.line(r"^Call CA.* ended \(stop\): 9.0 s, 900 frames, 0 audio gaps")
            assert demo.err == []


def beginning_of_sample(folder: Path, seconds: float) -> Path:
    """The first sentences of the sample call, with their text beside them."""
    recording = folder / "beginning.wav"
    with wave.open(str(SAMPLE)) as whole, wave.open(str(recording), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(round(seconds * whole.getframerate())))
    segments = json.loads(SAMPLE.with_suffix(".json").read_text())["segments"]
    spoken = [segment for segment in segments if segment["end"] <= seconds]
    recording.with_suffix(".json").write_text(json.dumps({"segments": spoken}))
    return recording


FINAL = re.compile(r"\[FINAL\] (Inbound|Outbound): (.*) \[(\d+) - \d+\]")


def word_starts(track: str) -> list[int]:
    """When the words of one track of the sample call begin, in ms."""
    segments = json.loads(SAMPLE.with_suffix(".json").read_text())["segments"]
    return [
        round(word["start"] * 1000) for segment in segments if segment["track"] == track for word in segment["words"]
    ]

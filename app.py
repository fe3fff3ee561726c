"""Listens in on phone calls and turns them into words, live. Start here: `python app.py --help`."""

from gevent import monkey

monkey.patch_all()  # before anything that opens a socket is imported (gevent's documentation, "monkey patching")

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import gevent
from dotenv import dotenv_values, find_dotenv
from flask import Blueprint
from gevent.event import Event
from rich.box import SIMPLE
from rich.console import Console as Rich
from rich.progress import Progress
from rich.table import Table

from commands import COMMANDS
from relay.admission import Admission, TwilioSettings
from relay.call import Switchboard
from relay.console import Console, Outlet, OutletHandler
from relay.doctor import examine, what_is_open
from relay.endpoints import WebhookSettings
from relay.errors import RelayError, SettingsError
from relay.hub import Hub, Listener
from relay.listening import Listening
from relay.passes import Passes
from relay.protocol import SpeechService
from relay.recording import Recorder
from relay.results import Results, kept_beside
from relay.settings import Settings, read
from relay.store.store import Store
from relay.twilio import twiml
from relay.web.access import LOGIN, sweep_hourly
from relay.web.api import api
from relay.web.entrance import AccessSettings, entrance, with_access_link
from relay.web.live import Live
from relay.web.metrics import Metrics, health
from relay.web.neighbours import Neighbours
from relay.web.pages import pages
from relay.web.routes import MEDIA_PATH, create_app, media_url
from relay.web.server import Server, allow_many_files, reached_by, run_until_told
from relay.web.telephony import TWIML_PATH, telephony
from relay.web.trial import trial
from relay.web.workers import run_workers, when_alone
from relay.webhooks import Webhooks
from services import OFFERS, listeners, what_each_can_do, without_key
from standins.demo_call import DemoCall

STORED_WITHIN: Final = 10.0  # seconds the database gets to take what has not been written yet
LAST_LINES_WITHIN: Final = 2.0  # seconds the terminal gets to take what was still to be said

MARKS: Final = {True: "ok   ", False: "to do", None: "  -  "}  # of the doctor's findings


def environment() -> Mapping[str, str]:
    """The environment, and below it what `.env` says, looked for here and in the folders above."""
    path = find_dotenv(usecwd=True)
    try:
        written = dotenv_values(path, encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{path} should be UTF-8 text; save it as that.") from None
    return {**{name: value for name, value in written.items() if value is not None}, **os.environ}


@contextmanager
def terminal(settings: Settings) -> Iterator[Console]:
    """The console, and the log beside it, until what they have to say is written."""
    out, err = Outlet(sys.stdout), Outlet(sys.stderr)
    handler = OutletHandler(err)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    try:
        yield Console(out, verbose=settings.verbose)
    finally:
        out.close(LAST_LINES_WITHIN)
        err.close(LAST_LINES_WITHIN)


def speech_at(word: str, url: str) -> SpeechService:
    """A service of ours at an address on this machine, where anybody is let in."""
    offer = OFFERS[word]
    return offer.make(offer.settings(api_key="none-needed", url=url))


class OneSentence(click.Group):
    """Ends with one sentence, not a traceback, where the person who started us can mend what is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except RelayError as trouble:
            raise click.ClickException(str(trouble)) from None


@click.group(cls=OneSentence, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(ctx: click.Context) -> None:
    """Listens in on phone calls and turns them into words, live.

    Without a command, serves: Twilio streams a call to /media, and what is said scrolls by. Settings come from the
    environment and from .env; .env.example explains each.
    """
    ctx.obj = environment
    if ctx.invoked_subcommand is None:
        ctx.invoke(serve)


def announce(console: Console, host: str, port: int) -> None:
    """Says where the server is."""
    console.say(f"Server listening on: http://{host}:{port}")
    console.say(f"WebSocket endpoint: ws://{host}:{port}{MEDIA_PATH}")


def whom_to_tell(environ: Mapping[str, str], settings: Settings) -> WebhookSettings:
    """The webhooks. Raises SettingsError."""
    chosen = read(WebhookSettings, environ)
    if chosen.urls and settings.database_url is None:
        raise SettingsError("WEBHOOK_URLS needs a DATABASE_URL: what is sent is kept there until it has arrived.")
    return chosen


def check(environ: Mapping[str, str], settings: Settings) -> None:
    """Raises SettingsError for what each worker would stumble over, and its successor again."""
    Admission(Passes(Path(settings.access_folder)), read(TwilioSettings, environ), settings)
    whom_to_tell(environ, settings)


@contextmanager
def keeping(environ: Mapping[str, str], settings: Settings, say: Callable[[str], None]) -> Iterator[Store | None]:
    """The store, and the webhooks that are told from it; None if calls are not kept."""
    webhook_settings = whom_to_tell(environ, settings)
    if settings.database_url is None:
        yield None
        return
    recordings = Path(settings.recordings_folder)
    store = Store(
        settings.database_url,
        keep_days=settings.keep_days,
        recordings=recordings,
        beside=kept_beside(recordings, Path(settings.results_folder)),
        endpoints=webhook_settings.wanted,
    )
    store.open(say, at_any_rate=True)
    webhooks = Webhooks(webhook_settings, store)
    webhooks.start()
    try:
        yield store
    finally:
        webhooks.close(LAST_LINES_WITHIN)
        store.close(STORED_WITHIN)


@contextmanager
def serving(
    environ: Mapping[str, str],
    settings: Settings,
    listening: Listening,
    console: Console,
    leave: Event,
    neighbours: Neighbours | None = None,
) -> Iterator[tuple[Server, Switchboard]]:
    """The server, and all that hears of calls; closed in the order in which they need one another."""
    allow_many_files()
    metrics, passes = Metrics(), Passes(Path(settings.access_folder))
    admission = Admission(passes, read(TwilioSettings, environ), settings)
    metrics.look_at_the_door(admission.doorbook)
    if neighbours is not None:
        metrics.look_at_the_neighbours(neighbours)
    with ExitStack() as ends:
        results = Results(Path(settings.results_folder))
        ends.callback(results.close, LAST_LINES_WITHIN)
        store = ends.enter_context(keeping(environ, settings, console.say))
        hears: list[Listener] = [console.hear, results.hear, metrics.hear]
        parts: list[Blueprint] = [entrance(passes, read(AccessSettings, environ), settings, store)]
        live, demo_call = None, None
        if store is not None:
            live = ends.enter_context(closing(Live(store, neighbours=neighbours)))
            demo = DemoCall(Path(settings.access_folder), partial(speech_at, "deepgram"), console.say)
            demo_call = ends.enter_context(closing(demo))
            leave.rawlink(lambda leave: demo.hang_up())
            listening = replace(listening, on_request=(*listening.on_request, demo.provider))
            hears += [store.hear, live.hear]
            parts += [api(store, live), trial(demo)]
        recorder = Recorder(Path(settings.recordings_folder), store) if settings.record == "wav" else None
        switchboard = Switchboard(settings, listening, Hub(*hears), recorder=recorder)
        parts += [
            health(metrics, switchboard, store, live),
            pages(settings, passes, store, demo_call),
            telephony(admission, switchboard, neighbours),
        ]
        ends.callback(gevent.spawn(sweep_hourly, passes).kill)
        server = Server(create_app(switchboard, *parts, passes=passes, admission=admission), settings)
        if demo_call is not None:
            url = f"ws://{reached_by(settings)}:{server.port}{MEDIA_PATH}/{passes.stream_key}"
            demo_call.goes_to(url, admission.signed_upgrade())
        yield server, switchboard


@main.command()
def serve() -> None:
    """Take Twilio's media streams and print what is said (the default)."""
    environ, token = with_access_link(environment())
    settings, listening = read(Settings, environ), listeners(environ)

    with terminal(settings) as console:

        def say_where(port: int) -> None:
            host = reached_by(settings)
            announce(console, host, port)
            console.say("What to put into your TwiML: python app.py doctor")
            console.say(f"See your calls at: http://{host}:{port}{f'/enter/{token}' if token else LOGIN}")
            if not listening.services:
                console.say(f"WARNING: {without_key(environ)} API key not set", "yellow")
                console.say(f"Calls will not be transcribed: {listening.why_not}.", "yellow")

        console.say("Starting WebSocket server...")
        if settings.workers > 1:
            check(environ, settings)
            run_workers(settings, [sys.executable, __file__, "work"], environ, say_where)
        else:
            leave = Event()
            with serving(environ, settings, listening, console, leave) as (server, switchboard):
                say_where(server.port)
                run_until_told(server, switchboard, console.say, leave)


@main.command(hidden=True)
@click.argument("place", type=int)
@click.argument("lines", nargs=-1, type=int)
def work(place: int, lines: tuple[int, ...]) -> None:
    """Be one of several workers; `serve` starts them, looks after them, and hands them lines to each other."""
    environ = environment()
    settings, leave = read(Settings, environ), Event()
    with (
        closing(Neighbours(place, lines)) as neighbours,
        terminal(settings) as console,
        serving(environ, settings, listeners(environ), console, leave, neighbours) as (server, switchboard),
    ):
        when_alone(leave.set)
        run_until_told(server, switchboard, console.say, leave)


@main.command("simulate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--url", help="The media socket to stream to, with its key.  [default: this server's, on PORT]")
@click.option("--calls", default=1, show_default=True, help="How many calls at once.")
@click.option("--speed", default=1.0, show_default=True, help="Times real time.")
@click.option(
    "--tracks", type=click.Choice(["inbound", "outbound", "both"]), help="What to stream.  [default: what FILE has]"
)
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT", help="What shall go wrong; see below. May be repeated."
)
def simulate_command(
    file: Path, url: str | None, calls: int, speed: float, tracks: str | None, faults: tuple[str, ...]
) -> None:
    """Play the part of Twilio: stream FILE as a phone call.

    FILE is a recording of any rate and width. Stereo: left is inbound, right is outbound. Mono is inbound.

    \b
    Faults:
      jitter=MS                 each frame is late by up to so much
      burst=MS@EVERY_SECONDS    frames are held up, then come all at once
      gap=MS@SECOND             audio is missing and timestamps jump
      no-stop                   the socket is closed without a stop message
      drop@SECOND               the connection is reset
    """
    from standins.simulation import Faults, simulate
    from standins.wav import read as read_recording

    environ = environment()
    settings, twilio = read(Settings, environ), read(TwilioSettings, environ)
    admission = Admission(Passes(Path(settings.access_folder)), twilio, settings)
    audio = read_recording(file)
    chosen = None if tracks is None else ("inbound", "outbound") if tracks == "both" else (tracks,)
    with ctrl_c(), progress_bar("Streaming") as on_progress:
        report = simulate(
            url or f"ws://{reached_by(settings)}:{settings.port}{MEDIA_PATH}/{admission.stream_key}",
            audio,
            headers=None if url else admission.signed_upgrade(),  # as Twilio itself does
            calls=calls,
            tracks=chosen,
            speed=speed,
            faults=Faults.parse(faults),
            on_progress=on_progress,
        )
    for call in report.calls:
        click.echo(str(call))
    if calls > 1:
        click.echo(str(report))
    sys.exit(0 if report.went_well else 1)


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Ctrl-C ends what is inside, and whoever is in the middle of it; gevent's loop would print a traceback first."""
    watcher = gevent.signal_handler(signal.SIGINT, gevent.kill, gevent.getcurrent(), KeyboardInterrupt)
    try:
        yield
    finally:
        watcher.cancel()


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], None]]:
    """A bar on standard error, where that is a terminal."""
    with Progress(console=Rich(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--vocabulary",
    type=click.Choice(["call", "general"]),
    default="call",
    show_default=True,
    help="Words the local recogniser knows: those of the sample call, or English at large (for your own FILE).",
)
@click.option(
    "--service",
    type=click.Choice(list(OFFERS)),
    default="deepgram",
    show_default=True,
    help="Whose protocol is spoken between the server and the local speech service.",
)
def demo(file: Path | None, vocabulary: str, service: str) -> None:
    """See it work without phone or key: a simulated call, transcribed by a speech service on this machine."""
    try:
        from standins.demo import SAMPLE_CALL, demonstrate
    except ModuleNotFoundError as missing:
        raise SettingsError(f"{missing.name} is not installed: pip install -r requirements-demo.txt") from None
    settings = read(Settings, environment())
    with terminal(settings) as console, ctrl_c():
        console.say("Starting WebSocket server...")
        demonstrate(
            file or SAMPLE_CALL,
            vocabulary,
            service,
            settings,
            console,
            partial(speech_at, service),
            lambda server: announce(console, reached_by(settings), server.port),
        )


@main.command("services")
def services_command() -> None:
    """Show what each speech service can do."""
    head, rows = what_each_can_do()
    table = Table(box=SIMPLE, highlight=False)
    for name in head:
        table.add_column(name, overflow="fold")  # in a narrow terminal nothing is left out
    for row in rows:
        table.add_row(*row)
    Rich().print(table)


@main.command()
def doctor() -> None:
    """Check settings, keys, port and public URL, and print the TwiML to paste."""
    environ = environment()
    settings, twilio, access = read(Settings, environ), read(TwilioSettings, environ), read(AccessSettings, environ)
    whom_to_tell(environ, settings)
    listening: Listening | SettingsError
    try:
        listening = listeners(environ)
    except SettingsError as trouble:
        listening = trouble
    all_well = True
    for finding in examine(settings, twilio, listening):
        all_well &= finding.well is not False
        click.echo(f"{MARKS[finding.well]}  {finding.sentence}")
    key = Passes(Path(settings.access_folder)).stream_key
    base = settings.public_url or "https://HOST"
    click.echo(f"\nInto the TwiML of your calls, before <Dial>:\n\n{twiml(f'{media_url(base)}/{key}')}")
    click.echo(f"\nOr have Twilio ask for all of it: POST {base}{TWIML_PATH}/{key}\n")
    table = Table("what", "who may", box=SIMPLE, highlight=False)
    for what, who in what_is_open(settings, twilio, access):
        table.add_row(what, who)
    Rich().print(table)
    sys.exit(0 if all_well else 1)


for command in COMMANDS:
    main.add_command(command)


def run() -> None:
    """Runs the command, and ends this process as soon as that has closed what it opened.

    The interpreter's own way out crashes now and then: before Python 3.14 a thread that wants to go on while Python
    finalizes is thrown out of its frames, greenlet's C++ among them (CPython's issue 87135). Threads of gevent's pools
    do, that end just then or come back from a name server.
    """
    try:
        main()
    except SystemExit as end:  # how click ends, always
        status = int(end.code or 0)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            status = 1
        os._exit(status)


if __name__ == "__main__":
    run()

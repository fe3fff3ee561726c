"""Listens in on phone calls and turns them into words, live. Start here: `python app.py --help`."""

from gevent import monkey

monkey.patch_all()  # before anything that opens a socket is imported (gevent's documentation, "monkey patching")

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
from dotenv import dotenv_values, find_dotenv

from deepgram_client import Deepgram, DeepgramSettings
from relay.call import Listening, Switchboard
from relay.console import Console, Outlet, OutletHandler
from relay.doctor import examine
from relay.errors import RelayError, SettingsError
from relay.hub import Hub
from relay.protocol import SpeechService
from relay.settings import Settings, read
from relay.twilio import twiml
from relay.web.routes import MEDIA_PATH, create_app, media_url
from relay.web.server import Server, run_until_told

LAST_LINES_WITHIN: Final = 2.0  # seconds the terminal gets to take what was still to be said

NO_KEY: Final = "DEEPGRAM_API_KEY is not set; put your key into .env, or try `python app.py demo`, which needs none"


def environment() -> Mapping[str, str]:
    """The environment, and below it what `.env` says, looked for here and in the folders above."""
    written = {name: value for name, value in dotenv_values(find_dotenv(usecwd=True)).items() if value is not None}
    return {**written, **os.environ}


def speech_service(environ: Mapping[str, str]) -> SpeechService:
    """The service that listens. Raises SettingsError when it has no key or a setting is wrong."""
    settings = read(DeepgramSettings, environ)
    if settings.api_key is None:
        raise SettingsError(NO_KEY)
    return Deepgram(settings)


@contextmanager
def terminal(settings: Settings) -> Iterator[Console]:
    """The console, and the log beside it, until what they have to say is written."""
    out, err = Outlet(sys.stdout), Outlet(sys.stderr)
    logging.basicConfig(
        level=logging.INFO, format="%(levelname)s: %(message)s", handlers=[OutletHandler(err)], force=True
    )
    try:
        yield Console(out, verbose=settings.verbose)
    finally:
        out.close(LAST_LINES_WITHIN)
        err.close(LAST_LINES_WITHIN)


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
    if ctx.invoked_subcommand is None:
        ctx.invoke(serve)


@main.command()
def serve() -> None:
    """Take Twilio's media streams and print what is said (the default)."""
    environ = environment()
    settings = read(Settings, environ)
    try:
        listening = Listening((speech_service(environ),))
    except SettingsError as trouble:
        if read(DeepgramSettings, environ).api_key is not None:
            raise
        listening = Listening((), str(trouble))
    with terminal(settings) as console:
        console.say("Starting WebSocket server...")
        switchboard = Switchboard(settings, listening, Hub(console.hear))
        server = Server(create_app(switchboard), settings)
        console.say(f"Server listening on: http://localhost:{server.port}")
        console.say(f"WebSocket endpoint: ws://localhost:{server.port}{MEDIA_PATH}")
        if not listening.services:
            console.say("WARNING: Deepgram API key not set", "yellow")
            console.say(f"Calls will not be transcribed: {listening.why_not}.", "yellow")
        run_until_told(server, switchboard, console.say)


@main.command()
def doctor() -> None:
    """Check settings, key, port and public URL, and print the TwiML to paste."""
    environ = environment()
    settings = read(Settings, environ)
    service: SpeechService | SettingsError
    try:
        service = speech_service(environ)
    except SettingsError as trouble:
        service = trouble
    all_well = True
    for finding in examine(settings, service):
        all_well &= finding.well
        click.echo(f"{'ok   ' if finding.well else 'to do'}  {finding.sentence}")
    click.echo(
        f"\nInto the TwiML of your calls, before <Dial>:\n\n{twiml(media_url(settings.public_url) or 'wss://HOST/media')}"
    )
    sys.exit(0 if all_well else 1)


if __name__ == "__main__":
    main()

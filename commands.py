"""The commands for calls that were kept: list, show, export, search, delete, back-fill, and their webhooks; and tokens.

`app.py` adds them to its own, and gives them, as click's object, the function that reads the environment.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import orjson
from rich.box import SIMPLE
from rich.console import Console as Rich
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from relay import export
from relay.backfill import Filled, fill, open_gaps
from relay.connection import Patience
from relay.console import short
from relay.endpoints import WebhookSettings
from relay.errors import RelayError, SettingsError
from relay.events import Track
from relay.passes import Kind, Pass, Passes, Scope
from relay.results import kept_beside
from relay.settings import Settings, read
from relay.store.query import dialled
from relay.store.records import PAGE_MOST, Call, Delivery, DeliveryState, Gap, Hit, Part, Segment, State
from relay.store.store import Store
from relay.store.telling import storable
from relay.text import printable
from relay.webhooks import replay_failed
from services import OFFERS, SpeechSettings, speech_service

Environment = Callable[[], Mapping[str, str]]

SHOWN_OF_ID: Final = 12  # characters of a pass's; no two begin with the same
SHOWN: Final = 20  # calls, hits or deliveries, unless asked otherwise
CLOSE_WITHIN: Final = 10.0  # seconds the database gets to take what is still to be written
LEAST_OF_SID: Final = 3  # characters, where it is shortened
NAMED_AT_MOST: Final = 3  # calls that a shortened SID may mean
UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}  # seconds

NO_CALLS: Final = (
    "No call was kept yet. `python app.py demo` shows one without phone or key; "
    "`python app.py doctor` says what a real one needs."
)
SID_HELP: Final = "SID is a call's, or so much of its beginning or end that no other call is meant (CA..1f2e3d)."


class NoSuchCall(RelayError):
    """A SID means no call that was kept, or more than one."""


class _AboutSids(click.Command):
    """Says below its help how calls may be named."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text(SID_HELP)


@contextmanager
def opened(environment: Environment) -> Iterator[Store]:
    """The store as the settings have it; the server may run beside."""
    environ = environment()
    settings = read(Settings, environ)
    if (url := settings.database_url) is None:
        raise SettingsError("DATABASE_URL is none: calls are not kept.")
    beside = kept_beside(Path(settings.recordings_folder), Path(settings.results_folder))
    store = Store(url, beside=beside, endpoints=read(WebhookSettings, environ).wanted)
    store.open(lambda line: click.echo(line, err=True))
    try:
        yield store
    finally:
        store.close(CLOSE_WITHIN)


def found(store: Store, typed: str) -> Call:
    """The call of a SID, which may be shortened. Raises NoSuchCall."""
    given = storable(typed)
    if call := store.call(given):
        return call
    named = []
    for call in every_call(store):
        if _means(given, call.sid):
            named.append(call)
        if len(named) == NAMED_AT_MOST:
            break
    if len(named) > 1:
        sids = ", ".join(printable(call.sid) for call in named)
        raise NoSuchCall(f"{printable(given)} is the SID of more than one call ({sids}); write more of it.")
    if not named:
        there_are_some = store.calls(limit=1).items
        raise NoSuchCall(
            f"There is no call {printable(given)}; `python app.py calls` lists those there are."
            if there_are_some
            else NO_CALLS
        )
    if len(given.replace("..", "")) < LEAST_OF_SID:  # a script's empty variable means no call
        raise NoSuchCall(f"Write at least {LEAST_OF_SID} characters of a SID; `python app.py calls` lists the calls.")
    return named[0]


def every_call(store: Store) -> Iterator[Call]:
    """All calls, newest first."""
    cursor = None
    while True:
        page = store.calls(cursor=cursor, limit=PAGE_MOST)
        yield from page.items
        if (cursor := page.next) is None:
            return


def _means(given: str, sid: str) -> bool:
    """Whether a SID was shortened to this, perhaps as the console does it, to its ends."""
    head, dots, tail = given.partition("..")
    return sid.startswith(head) and sid.endswith(tail) if dots else sid.startswith(given) or sid.endswith(given)


def _moment(_ctx: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Milliseconds since 1970."""
    if value is None:
        return None
    if ago := re.fullmatch(r"(\d{1,5})([mhd])", value):
        return round(time.time() - int(ago[1]) * UNITS[ago[2]]) * 1000
    try:
        return round(datetime.fromisoformat(value).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            "should be a time (2026-11-21, 2026-11-21T09:30) or how long ago (90m, 12h, 7d)."
        ) from None


def _storable(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """A text that a database takes, whatever was typed."""
    return None if value is None else storable(value)


def _dialled(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """A part of a number, however it is written, or of another name."""
    return None if value is None else dialled(storable(value))


as_json = click.option("--json", "json", is_flag=True, help="For programs: JSON, as the API gives it.")
at_most = click.option(
    "--limit", default=SHOWN, show_default=True, type=click.IntRange(1, PAGE_MOST), help="How many at most."
)
sid_argument = click.argument("sid")


# --- Reading ------------------------------------------------------------------------------------------------


@click.command()
@click.option("--live", is_flag=True, help="Only calls that still run.")
@click.option("--number", callback=_dialled, help="Only calls from or to a number that contains this.")
@click.option("--since", callback=_moment, help="Only newer calls: since a time (2026-11-21), or 90m, 12h or 7d ago.")
@click.option(
    "--text",
    callback=_storable,
    help='Only calls in which these words were said; "words in quotes" follow one another.',
)
@at_most
@as_json
@click.pass_obj
def calls(
    environment: Environment,
    live: bool,
    number: str | None,
    since: int | None,
    text: str | None,
    limit: int,
    json: bool,
) -> None:
    """List calls, newest first."""
    state = State.LIVE if live else None
    with opened(environment) as store:
        page = store.calls(state=state, number=number, since=since, text=text, limit=limit)
        if json:
            _print_json([call.as_json() for call in page.items])
        elif page.items:
            _print_table(
                ("Began", "From", "To", "Length", "State", "Words", "Call"),
                (_call_row(call, store.segments(call.sid)) for call in page.items),
            )
            if page.next is not None:
                click.echo(f"There are more; --limit {PAGE_MOST} shows up to {PAGE_MOST}.")
        else:
            click.echo("No call is like that." if store.calls(limit=1).items else NO_CALLS)


def _call_row(call: Call, segments: list[Segment]) -> Iterable[str | Text]:
    words = sum(len(segment.words) or len(segment.text.split()) for segment in segments)
    state = Text(call.state.value, style="green" if call.state is State.LIVE else "")
    numbers = (_number(call.caller), _number(call.called))
    return (_local(call.started_at), *numbers, _length(call), state, str(words), short(call.sid))


@click.command(cls=_AboutSids)
@sid_argument
@as_json
@click.pass_obj
def show(environment: Environment, sid: str, json: bool) -> None:
    """Show what was said on a call, and what is missing of it."""
    with opened(environment) as store:
        call = found(store, sid)
        segments, gaps = store.segments(call.sid), store.gaps(call.sid)
    if json:
        click.echo(export.written("json", call, segments, gaps))
        return
    click.echo("\n".join(_about(call)) + "\n")
    terminal = Rich(highlight=False)
    for passage in export.passages(segments, gaps):
        line = Text(export.txt([passage]).rstrip("\n"), style="red" if passage.is_gap else "")
        line.stylize("dim", 0, line.plain.index("]") + 1)
        terminal.print(line, soft_wrap=True)
    if not segments and not gaps:
        click.echo("Nothing was said." if call.state is State.ENDED else "Nothing has been said yet.")


def _about(call: Call) -> Iterator[str]:
    ended = f"ended ({printable(call.end_reason or 'no reason')})" if call.state is State.ENDED else "live"
    yield f"{printable(call.sid)}: {_local(call.started_at)}, {_length(call)} min, {ended}"
    if call.caller or call.called:
        yield f"From {_number(call.caller)} to {_number(call.called)}"
    if call.services:
        yield f"Transcribed by {', '.join(map(printable, call.services))}"
    if call.recording is not None:
        yield f"Recorded in {call.recording}"


@click.command("export", cls=_AboutSids)
@sid_argument
@click.option("--format", "form", default="txt", show_default=True, type=click.Choice(export.FORMATS), help="As what.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.  [default: prints]")
@click.pass_obj
def export_command(environment: Environment, sid: str, form: str, output: Path | None) -> None:
    """Write a call's transcript as text, JSON or subtitles.

    What was said so far, if the call still runs. Times are the call's, and interim text is never in it.
    """
    with opened(environment) as store:
        call = found(store, sid)
        segments, gaps = store.segments(call.sid), store.gaps(call.sid)
    written = export.written(form, call, segments, gaps)
    if output is None:
        click.echo(written, nl=False)
        return
    try:
        output.write_bytes(written)
    except OSError as trouble:
        raise click.FileError(str(output), trouble.strerror or "") from trouble
    click.echo(f"Wrote {output}.", err=True)


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--call", "sid", help="Only in this call.")
@click.option("--track", type=click.Choice([track.value for track in Track]), help="Only on this side.")
@at_most
@as_json
@click.pass_obj
def search(
    environment: Environment, words: tuple[str, ...], sid: str | None, track: str | None, limit: int, json: bool
) -> None:
    """Find words in what was said.

    All WORDS must be said in one breath; '"words in quotes"' follow one another, and wor* is the beginning of one.
    Accents and capitals do not count.
    """
    with opened(environment) as store:
        call_sid = None if sid is None else found(store, sid).sid
        page = store.search(storable(" ".join(words)), call_sid=call_sid, track=track, limit=limit)
        there_are_calls = bool(page.items or store.calls(limit=1).items)
    if json:
        _print_json([hit.as_json() for hit in page.items])
    elif page.items:
        _print_table(("Call began", "Call", "At", "Side", "Said"), map(_hit_row, page.items))
        if page.next is not None:
            click.echo(f"There is more; --limit {PAGE_MOST} shows up to {PAGE_MOST}.")
    else:
        click.echo("Nobody said that." if there_are_calls else NO_CALLS)


def _hit_row(hit: Hit) -> Iterable[str | Text]:
    at_s = hit.segment.start_ms // 1000
    snippet = Text.assemble(*map(_highlighted, hit.snippet))
    return _local(hit.call.started_at), short(hit.call.sid), _minutes(at_s), hit.segment.track.capitalize(), snippet


def _highlighted(part: Part) -> tuple[str, str]:
    shown = "".join(character if character.isprintable() else " " for character in part.text)
    return shown, "bold reverse" if part.is_match else ""


# --- Changing -----------------------------------------------------------------------------------------------


@click.command(cls=_AboutSids)
@sid_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(environment: Environment, sid: str, yes: bool) -> None:
    """Delete a call and all that belongs to it.

    That is its transcript, what webhooks have not been told of it yet, and its recording.
    """
    with opened(environment) as store:
        call = found(store, sid)
        if not yes:
            what = "its transcript" if call.recording is None else "its transcript and its recording"
            click.confirm(f"Delete {printable(call.sid)} of {_local(call.started_at)} with {what}?", abort=True)
        store.delete(call.sid)
        store.scour()
    click.echo(f"{printable(call.sid)} is deleted.")


@click.command(cls=_AboutSids)
@sid_argument
@click.option("--service", type=click.Choice(list(OFFERS)), help="Who transcribes.  [default: who listens to calls]")
@click.pass_obj
def backfill(environment: Environment, sid: str, service: str | None) -> None:
    """Transcribe what is missing of a call from its recording.

    A service that was away, or too slow, leaves gaps. Where the call was recorded (RECORD=wav), the words are found
    there, and are put into their place in the transcript.
    """
    environ = environment()
    with opened(environment) as store:
        call = found(store, sid)
        gaps = open_gaps(store, call)
        words = [service] if service else read(SpeechSettings, environ).chosen
        listeners = [speech_service(word, environ) for word in words]
        patience = Patience(answer=read(Settings, environ).service_silence_s)
        for gap in gaps:
            listener = next((one for one in listeners if one.traits.name == gap.service), listeners[0])
            with _bar(gap) as on_progress:
                filled = fill(store, call, gap, listener, patience=patience, on_progress=on_progress)
            click.echo("\n".join(_outcome(gap, filled)))


@contextmanager
def _bar(gap: Gap) -> Iterator[Callable[[int], None]]:
    """How far a gap has been heard, in ms, where someone looks."""
    with Progress(console=Rich(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(_place(gap), total=gap.end_ms - gap.start_ms)
        yield lambda ms: progress.update(task, completed=ms)


def _place(gap: Gap) -> str:
    return f"{export.NAMES[gap.track]}, {gap.start_ms / 1000:.1f} s to {gap.end_ms / 1000:.1f} s"


def _outcome(gap: Gap, filled: Filled) -> Iterator[str]:
    """What was found of a gap, and what of it stays missing."""
    stays = [replace(gap, start_ms=start_ms, end_ms=end_ms) for start_ms, end_ms in filled.rest]
    if stays != [gap]:
        words = sum(len(final.words) or len(final.text.split()) for final in filled.said)
        yield f"{_place(gap)}: {words} {'word' if words == 1 else 'words'} found."
    for part in stays:
        yield f"{_place(part)} stays missing. {filled.why}."


@click.command()
@click.option(
    "--state", type=click.Choice([state.value for state in DeliveryState]), help="Only those that are in this state."
)
@click.option("--replay", metavar="ID|failed", help="Have one sent again, or all that were given up.")
@at_most
@as_json
@click.pass_obj
def webhooks(environment: Environment, state: str | None, replay: str | None, limit: int, json: bool) -> None:
    """List what webhooks were told, or have it sent again.

    Newest first, with what has not been sent yet. What is to be sent again the server sends, within a few seconds if it
    runs.
    """
    with opened(environment) as store:
        if replay is not None:
            click.echo(_replay(store, replay))
            return
        page = store.deliveries(state=state, limit=limit)
    if json:
        _print_json([delivery.as_json() for delivery in page.items])
    elif page.items:
        _print_table(("ID", "To", "What", "Call", "State", "Attempts", "Last answer"), map(_delivery_row, page.items))
    else:
        click.echo("There is nothing that webhooks were told or will be told. WEBHOOK_URLS says whom to tell.")


def _replay(store: Store, which: str) -> str:
    if which == DeliveryState.FAILED:
        count = replay_failed(store)
        return f"{count} {'delivery is' if count == 1 else 'deliveries are'} sent again."
    if not re.fullmatch(r"[0-9]{1,18}", which) or not store.replay_delivery(int(which)):
        raise click.BadParameter(f"there is no delivery {printable(which)}.", param_hint="--replay")
    return f"Delivery {which} is sent again."


def _delivery_row(delivery: Delivery) -> Iterable[str | Text]:
    style = {DeliveryState.DELIVERED: "green", DeliveryState.FAILED: "red"}.get(delivery.state, "")
    answer = delivery.last_error or (str(delivery.last_status) if delivery.last_status is not None else "")
    event = delivery.event
    return (
        str(delivery.id),
        printable(delivery.endpoint),
        event.kind.value,
        short(event.call_sid),
        Text(delivery.state.value, style=style),
        str(delivery.attempts),
        printable(answer),
    )


@click.group()
def token() -> None:
    """Let programs in: issue, list and end tokens, and end sessions and links to calls.

    A token is sent as `Authorization: Bearer TOKEN`. What is ended is worth nothing at once, and live feeds that it
    opened are closed within seconds.
    """


@token.command("issue", cls=_AboutSids)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    default=(Scope.READ.value,),
    show_default=True,
    help="What it may do; may be repeated.",
)
@click.option("--call", "sid", metavar="SID", help="Only with this call.  [default: with all]")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it is good.")
@click.option("--name", default="", callback=_storable, help="What you call it.")
@click.pass_obj
def issue_token(environment: Environment, scopes: tuple[str, ...], sid: str | None, days: int, name: str) -> None:
    """Print a new token. It is kept nowhere: nobody can print it again."""
    if sid is not None:
        with opened(environment) as store:
            sid = found(store, sid).sid
    try:
        text = _passes(environment).issue(Kind.TOKEN, map(Scope, scopes), for_s=days * 86_400, call_sid=sid, name=name)
    except OSError as trouble:
        raise SettingsError(f"ACCESS_FOLDER cannot be written to: {trouble.strerror}.") from None
    click.echo(text)


@token.command("list")
@click.pass_obj
def list_tokens(environment: Environment) -> None:
    """List tokens, links to calls, and sessions of people who have logged in."""
    passes = [one for one in _passes(environment).all() if one.kind is not Kind.STREAM]
    if passes:
        head = ("ID", "Kind", "May", "Call", "Name", "Good until")
        _print_table(head, map(_pass_row, sorted(passes, key=lambda one: one.created_at, reverse=True)))
    else:
        click.echo("There is no token. `python app.py token issue` makes one.")


@token.command("end")
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all-sessions", is_flag=True, help="Log everybody out.")
@click.pass_obj
def end_token(environment: Environment, ids: tuple[str, ...], all_sessions: bool) -> None:
    """End tokens, links and sessions by their IDs, which `token list` shows."""
    if not ids and not all_sessions:
        raise click.UsageError("Name an ID, or --all-sessions.")
    passes = _passes(environment)
    ending = {_meant(passes, id_).id for id_ in ids}
    ending |= {one.id for one in passes.all() if all_sessions and one.kind is Kind.SESSION}
    for id_ in ending:
        passes.end(id_)
    click.echo(f"{len(ending)} ended.")


def _meant(passes: Passes, shown: str) -> Pass:
    """The pass of an ID as it was shown."""
    for one in passes.all():
        if len(shown) >= SHOWN_OF_ID and one.id.startswith(shown):
            return one
    raise click.BadParameter(f"there is nothing with the ID {printable(shown)}.", param_hint="ID")


def _passes(environment: Environment) -> Passes:
    return Passes(Path(read(Settings, environment()).access_folder))


def _pass_row(one: Pass) -> Iterable[str | Text]:
    return (
        one.id[:SHOWN_OF_ID],
        one.kind.value,
        ", ".join(sorted(one.scopes)),
        "all" if one.call_sid is None else printable(one.call_sid),
        printable(one.name),
        _local(one.expires_at * 1000),
    )


COMMANDS: Final = (calls, show, export_command, search, delete, backfill, webhooks, token)


# --- How it is shown ----------------------------------------------------------------------------------------


def _print_table(head: tuple[str, ...], rows: Iterable[Iterable[str | Text]]) -> None:
    table = Table(box=SIMPLE, highlight=False)
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name in ("Call", "ID"))  # SIDs are copied; nothing is left out
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    Rich().print(table)


def _print_json(value: object) -> None:
    click.echo(orjson.dumps(value))


def _local(at: int) -> str:
    """A moment as the clock on the wall shows it."""
    return datetime.fromtimestamp(at / 1000).strftime("%Y-%m-%d %H:%M")


def _length(call: Call) -> str:
    return _minutes(call.duration_ms // 1000)


def _minutes(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02}"


def _number(number: str) -> str:
    return printable(number) or "unknown"

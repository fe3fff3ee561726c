"""The repository keeps its own promises: floors, settings, commands, files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import yaml
from click.testing import CliRunner

import app
from relay.settings import Settings, variables
from services import OFFERS, what_each_can_do
from tests.env_example import PATH as ENV_EXAMPLE
from tests.env_example import SECTIONS, env_example, written
from tests.program import ROOT

FLOORS: Final = {
    "relay.events": 0,
    "relay.errors": 0,
    "relay.text": 0,
    "relay.settings": 1,
    "relay.audio": 1,
    "relay.twilio": 1,
    "relay.frames": 1,
    "relay.protocol": 1,
    "relay.reading": 1,
    "relay.replay": 1,
    "relay.connection": 2,
    "relay.mediasocket": 2,
    "relay.conversation": 2,
    "relay.speech": 2,
    "relay.export": 1,
    "relay.signing": 1,
    "relay.passes": 1,
    "relay.doorbook": 1,
    "relay.admission": 2,
    "relay.endpoints": 1,
    "relay.store.records": 1,
    "relay.store.tables": 1,
    "relay.store.query": 1,
    "relay.store.owner": 1,
    "relay.store.telling": 1,
    "relay.store.migrations.beginning": 1,
    "relay.store.migrations.finals": 1,
    "relay.store.migrations.gaps": 1,
    "relay.store.migrations.search": 1,
    "relay.store.backlog": 2,
    "relay.store.batch": 2,
    "relay.store.database": 2,
    "relay.store.ledger": 2,
    "relay.store.lifetime": 2,
    "relay.store.outbox": 2,
    "relay.store.reading": 2,
    "relay.store.searching": 2,
    "relay.store.sounds": 2,
    "relay.store.threads": 2,
    "relay.store.writer": 2,
    "relay.store.writing": 2,
    "relay.store.store": 2,
    "relay.outward": 2,
    "relay.fetch": 2,
    "relay.provider": 2,
    "relay.listening": 2,
    "relay.hub": 2,
    "deepgram_client": 2,
    "gladia_client": 2,
    "assemblyai_client": 2,
    "relay.feed": 3,
    "relay.results": 3,
    "relay.playback": 3,
    "relay.waveform": 3,
    "relay.recording": 3,
    "relay.backfill": 3,
    "relay.webhooks": 3,
    "relay.call": 3,
    "relay.console": 3,
    "relay.web.access": 4,
    "relay.web.entrance": 4,
    "relay.web.api": 4,
    "relay.web.live": 4,
    "relay.web.elsewhere": 4,
    "relay.web.neighbours": 4,
    "relay.web.present": 4,
    "relay.web.shown": 4,
    "relay.web.sound": 4,
    "relay.web.trial": 4,
    "relay.web.unopened": 4,
    "relay.web.metrics": 4,
    "relay.web.openapi": 4,
    "relay.web.pages": 4,
    "relay.web.parameters": 4,
    "relay.web.routes": 4,
    "relay.web.handler": 4,
    "relay.web.telephony": 4,
    "relay.web.server": 4,
    "relay.web.workers": 4,
    "services": 4,
    "commands": 5,
    "relay.doctor": 5,
    "app": 5,
}
SERVICE_FILES: Final = ("deepgram_client", "gladia_client", "assemblyai_client")
README: Final = (ROOT / "README.md").read_text()


def path_of(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def imports_of(module: str) -> set[str]:
    """All modules that a module's file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            found |= {f"{node.module}.{name.name}" for name in node.names} & FLOORS.keys() or {node.module}
    return found


def test_every_module_has_a_floor() -> None:
    files = {path.relative_to(ROOT) for path in (ROOT / "relay").rglob("*.py") if path.name != "__init__.py"}
    assert files == {path_of(module).relative_to(ROOT) for module in FLOORS if module.startswith("relay")}


@pytest.mark.parametrize("module", FLOORS)
def test_imports_go_down_or_stay_on_their_floor(module: str) -> None:
    for imported in imports_of(module) & FLOORS.keys():
        assert FLOORS[imported] <= FLOORS[module], f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", [module for module in FLOORS if module.startswith("relay")])
def test_the_relay_knows_no_vendor_and_no_stand_in(module: str) -> None:
    assert not {
        name
        for name in imports_of(module)
        if name in SERVICE_FILES or name.split(".")[0] in ("app", "services", "standins")
    }
    if module not in ("relay.events", "relay.audio", "relay.conversation"):  # which cite its pages
        text = path_of(module).read_text().lower()
        assert not any(word in text for word in OFFERS)


def test_one_module_knows_the_websocket_library() -> None:
    users = [module for module in FLOORS if any(name.split(".")[0] == "websocket" for name in imports_of(module))]
    assert users == ["relay.connection"]


@pytest.mark.parametrize("service", SERVICE_FILES)
def test_a_service_file_imports_nothing_that_waits(service: str) -> None:
    script = f"import sys; had = set(sys.modules); import {service}; print(*(set(sys.modules) - had))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"gevent", "websocket", "geventwebsocket", "flask"} & set(loaded.stdout.split())


def test_the_server_loads_no_numpy() -> None:
    script = "import sys, app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "soundfile", "soxr", "pocketsphinx", "websockets"} & set(loaded.stdout.split())


def test_monkey_patching_is_the_first_statement_of_the_program() -> None:
    _docstring, first, second, *_ = ast.parse((ROOT / "app.py").read_text()).body
    assert ast.unparse(first) == "from gevent import monkey"
    assert ast.unparse(second) == "monkey.patch_all()"


def test_env_example_is_what_the_settings_say() -> None:
    assert ENV_EXAMPLE.read_text() == env_example(), "write it anew: python -m tests.env_example"


def test_every_setting_the_readme_names_exists_with_its_default() -> None:
    settings = {variable.name: variable for kind in SECTIONS.values() for variable in variables(kind)}
    for name, default in re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? *\|", README, re.MULTILINE):
        assert name in settings
        assert default == written(settings[name].default), name
    families = {name.partition("_")[0] for name in settings if "_" in name}
    for name in set(re.findall(r"\b([A-Z]+_[A-Z_]+)\b", README)):
        assert name in settings or name.partition("_")[0] not in families, name


def test_the_readme_shows_what_each_service_can_do() -> None:
    head, rows = what_each_can_do()
    for cells in (head, *rows):
        assert "| " + " | ".join(cells) + " |" in README


def test_a_service_file_knows_no_other() -> None:
    for service in SERVICE_FILES:
        assert not imports_of(service) & {*SERVICE_FILES, "services", "app"}


def test_every_command_the_readme_names_exists() -> None:
    commands = set(re.findall(r"python app\.py ([a-z]+)", README))
    assert commands == {name for name, command in app.main.commands.items() if not command.hidden}
    for command in commands:
        result = CliRunner().invoke(app.main, [command, "--help"])
        assert result.exit_code == 0
    help_of_simulate = CliRunner().invoke(app.main, ["simulate", "--help"]).output
    for option in ("--url", "--calls", "--speed", "--tracks", "--fault"):
        assert option in help_of_simulate


def test_every_make_target_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"make ([a-z]+)\b", (ROOT / document).read_text()):
            assert target in targets | {"or"}, f"{document} names make {target}"  # "Python and make or ..."


def test_every_file_the_documents_link_to_exists() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        path = ROOT / document
        for link in re.findall(r"""(?:\]\(|src(?:set)?=")([^)"#:]+)[)"]""", path.read_text()):
            assert (path.parent / link).exists(), f"{document} links to {link}"


def test_the_tunnel_is_the_one_the_readme_starts() -> None:
    ngrok = yaml.safe_load((ROOT / "ngrok.yml.example").read_text())
    assert ngrok["version"] == "2"
    tunnel = ngrok["tunnels"]["websocket-app"]
    assert tunnel == {"addr": Settings().port, "proto": "http"}
    assert "ngrok start websocket-app" in README


def test_the_architecture_names_every_room() -> None:
    drawn = (ROOT / "docs" / "architecture.md").read_text()
    for module in FLOORS:
        assert path_of(module).name in drawn, f"docs/architecture.md does not draw {module}"


def test_packages_are_pinned() -> None:
    for name in ("requirements.txt", "requirements-demo.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            requirement = line.partition("#")[0].strip()
            assert not requirement or requirement.startswith("-r ") or re.fullmatch(r"[\w.-]+==[\w.]+", requirement), (
                line
            )

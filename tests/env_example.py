"""What `.env.example` has to say, from the settings themselves. To write it anew: python -m tests.env_example"""

from __future__ import annotations

import textwrap
from typing import Final

from assemblyai_client import AssemblyAISettings
from deepgram_client import DeepgramSettings
from gladia_client import GladiaSettings
from relay.admission import TwilioSettings
from relay.endpoints import WebhookSettings
from relay.settings import Settings, Variable, variables
from relay.web.entrance import AccessSettings
from services import SpeechSettings
from tests.program import ROOT

PATH: Final = ROOT / ".env.example"

_HEAD: Final = """\
# Copy this file to .env and put your key in. Everything else has a default, which is shown; remove the # to change it.
# A variable of the same name in the environment comes first.
"""
SECTIONS: Final = {
    "Deepgram": DeepgramSettings,
    "Gladia": GladiaSettings,
    "AssemblyAI": AssemblyAISettings,
    "Which service listens": SpeechSettings,
    "The relay": Settings,
    "Twilio, and who may send": TwilioSettings,
    "Who may see": AccessSettings,
    "Webhooks": WebhookSettings,
}
_TO_FILL_IN: Final = "DEEPGRAM_API_KEY"


def env_example() -> str:
    """The whole file."""
    return _HEAD + "".join(
        f"\n# --- {title} {'-' * (70 - len(title))}\n" + "".join(map(_entry, variables(kind)))
        for title, kind in SECTIONS.items()
    )


def _entry(variable: Variable) -> str:
    about = textwrap.fill(variable.about, 110, break_on_hyphens=False, initial_indent="# ", subsequent_indent="# ")
    mark = "" if variable.name == _TO_FILL_IN else "#"
    return f"\n{about}\n{mark}{variable.name}={written(variable.default)}\n"


def written(default: object) -> str:
    """A default as it stands in a file of settings."""
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default)


if __name__ == "__main__":
    PATH.write_text(env_example())

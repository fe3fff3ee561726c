"""What keeps people from using a page, as axe-core finds it (https://github.com/dequelabs/axe-core)."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Final

from playwright.sync_api import Page

SOURCE: Final = files("axe_playwright_python").joinpath("axe.min.js").read_text()


RUN: Final = """async () => {
  // Forced colours are the browser's own, and not those that it tells of an element.
  const rules = { "color-contrast": { enabled: !matchMedia("(forced-colors: active)").matches } };
  const { violations, incomplete } = await axe.run(document, { rules });
  // A name where no role may have one is often not read out; of text, axe leaves that open.
  return [...violations, ...incomplete.filter(({ id }) => id === "aria-prohibited-attr")];
}"""


def obstacles(page: Page) -> list[str]:
    """All that is wrong with the page as it is shown now: the rule, what it says, and where."""
    page.evaluate(SOURCE)
    found: list[dict[str, Any]] = page.evaluate(RUN)
    return [
        f"{violation['id']}: {violation['help']}: {node['html']}" for violation in found for node in violation["nodes"]
    ]

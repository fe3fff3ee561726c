"""How much work a page is for a browser: counted, which is the same on every machine, and timed, which is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from playwright.sync_api import Browser, Page

CATEGORIES: Final = ["devtools.timeline"]

# Turns the wheel through the page, a step a frame, and gives the milliseconds between frames.
SCROLL: Final = """async ({ steps, by }) => {
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  let last = await frame();
  for (let step = 0; step < steps; step++) {
    scrollBy(0, by);
    const now = await frame();
    times.push(now - last);
    last = now;
  }
  return times;
}"""

# Counts the nodes that come and go from now on.
COUNT_NODES: Final = """() => {
  window.changedNodes = 0;
  new MutationObserver((changes) => {
    for (const { addedNodes, removedNodes } of changes) {
      for (const node of [...addedNodes, ...removedNodes]) {
        window.changedNodes += 1 + (node.querySelectorAll?.("*").length ?? 0);
      }
    }
  }).observe(document.querySelector("main"), { childList: true, subtree: true });
}"""


@dataclass(frozen=True, slots=True)
class Work:
    """What a browser did meanwhile. The first three are the same on every machine."""

    styled: int  # elements whose style was computed
    laid_out: int  # objects that were marked to be laid out, in all layouts together
    within_reach: (
        int  # objects that one layout might have had to lay out; not those that are skipped for being far away
    )
    busy_ms: float  # scripts, style, layout and painting, on the page's main thread


@dataclass(frozen=True, slots=True)
class Weight:
    """What a page keeps, after the garbage was collected."""

    nodes: int
    heap_bytes: int


def work(browser: Browser, page: Page, doing: Callable[[], object]) -> Work:
    """The work that this was."""
    browser.start_tracing(page=page, categories=CATEGORIES)
    try:
        doing()
    finally:
        trace = json.loads(browser.stop_tracing())
    events: list[dict[str, Any]] = trace["traceEvents"]
    return Work(
        styled=sum(event["args"].get("elementCount", 0) for event in events if event["name"] == "UpdateLayoutTree"),
        laid_out=sum(_of_layout(event, "dirtyObjects") for event in events),
        within_reach=max((_of_layout(event, "totalObjects") for event in events), default=0),
        busy_ms=sum(event.get("dur", 0) for event in events if event["name"] in _TASKS) / 1000,
    )


_TASKS: Final = ("FunctionCall", "EvaluateScript", "EventDispatch", "UpdateLayoutTree", "Layout", "Paint", "PrePaint")


def _of_layout(event: dict[str, Any], what: str) -> int:
    count: int = event["args"].get("beginData", {}).get(what, 0) if event["name"] == "Layout" else 0
    return count


def weight(page: Page) -> Weight:
    """What the page keeps now."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return Weight(int(found["Nodes"]), int(found["JSHeapUsedSize"]))


def frame_times(page: Page, *, steps: int, by: int) -> list[float]:
    """Milliseconds between frames while the page is scrolled so many steps by so many pixels."""
    times: list[float] = page.evaluate(SCROLL, {"steps": steps, "by": by})
    return times

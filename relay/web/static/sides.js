// The row above the conversation: what its columns are, which of them a narrow window shows, and how the services are now.

import { byId, element } from "./element.js";
import { SIDES } from "./segment.js";
import { inBrief } from "./services.js";

export class Sides {
  /** @param {(column: number) => void} choose shows this column where there is room for one only */
  constructor(choose) {
    this.row = byId("sides");
    this.columns = null;
    this.chosen = 0;
    this.row.addEventListener("change", (event) => {
      this.chosen = Number(event.target.value);
      choose(this.chosen);
    });
    this.watch(byId("conversation-title"));
  }

  /** Once the row sticks, the list of services is out of view, and the row tells in its stead. @param {HTMLElement} beside */
  watch(beside) {
    const edge = document.querySelector(".top").offsetHeight;
    const see = (seen) => this.row.toggleAttribute("data-tells", seen.at(-1).boundingClientRect.top <= edge);
    new IntersectionObserver(see, { rootMargin: `-${edge}px 0px 0px` }).observe(beside);
  }

  /** @param {import("./columns.js").Columns} columns */
  show(columns) {
    if (columns === this.columns) return;
    this.columns = columns;
    this.row.dataset.columns = String(columns.count);
    this.row.replaceChildren(...(columns.count > 1 ? columns.names.map(makeChoice) : makeSides()));
    if (columns.count === 1) return;
    this.row.setAttribute("role", "group");
    this.row.setAttribute("aria-label", "Column");
  }

  /** How the services are now, each at its column. @param {import("./services.js").Listening[]} services */
  tell(services) {
    const briefs = [...this.row.querySelectorAll(".brief")];
    const said = briefs.map(() => []);
    for (const one of services) {
      const column = this.columns.of(one.name);
      const isNamed = this.columns.count > 1 && this.columns.names[column] === one.name;
      said[column].push(isNamed ? inBrief(one) : `${one.name} ${inBrief(one)}`);
    }
    briefs.forEach((brief, column) => (brief.textContent = said[column].join(", ")));
  }
}

function makeSides() {
  return [...Object.values(SIDES).map((name) => element("span", { class: "side", "aria-hidden": "true" }, name)), makeBrief()];
}

/** @param {string} service @param {number} column */
function makeChoice(service, column) {
  const button = element("input", { type: "radio", name: "column", value: column, checked: column === 0, class: "unseen" });
  return element("span", { class: "choice" }, element("label", {}, button, service), makeBrief());
}

/** The same as in the list of services, which is read out. */
function makeBrief() {
  return element("span", { class: "brief", "aria-hidden": "true" });
}

// Who listens to a call, how it is with them, and how far behind they are now.

import { byId, element } from "./element.js";
import { length } from "./times.js";

const STATES = { connecting: "connecting", listening: "listening", lost: "lost, trying again", refused: "refused" };
const WAITS_MS = 1500; // of audio that a service has not taken yet, before it is worth telling

/** @typedef {{name: string, state: string|null, behindMs: number|null, unsentMs: number}} Listening */

export class Services {
  /** @param {(services: Listening[]) => void} tell of those that listen now */
  constructor(tell) {
    this.tell = tell;
    this.list = byId("services").querySelector("ul");
    /** @type {Map<string, any>} */
    this.ofStream = new Map();
    this.known = [];
  }

  /** Those that ever listened to the call. @param {string[]} names */
  know(names) {
    this.known = names;
    this.show();
  }

  /** @param {any} status as the feed tells it */
  hear(status) {
    if (Object.keys(status.services).length) this.ofStream.set(status.stream_sid, status);
    else this.ofStream.delete(status.stream_sid);
    this.show();
  }

  /** Nobody listens any more. */
  end() {
    this.ofStream.clear();
    this.show();
  }

  show() {
    const now = [...this.ofStream.values()].flatMap((status) =>
      Object.entries(status.services).map(([name, { state, behind_ms: behindMs }]) => ({ name, state, behindMs, unsentMs: status.unsent_ms })),
    );
    const shown = now.length ? now : this.known.map((name) => ({ name, state: null, behindMs: null, unsentMs: 0 }));
    while (this.list.children.length > shown.length) this.list.lastElementChild.remove();
    while (this.list.children.length < shown.length) this.list.append(makeItem());
    shown.forEach((one, number) => showItem(this.list.children[number], one));
    this.tell(now);
  }
}

/** How it is with a service, where its name is known. @param {Listening} service */
export function inBrief({ state, behindMs }) {
  return state === "listening" && behindMs !== null ? `${length(behindMs)} behind` : STATES[state];
}

function makeItem() {
  return element("li", {}, element("span", { class: "dot", "aria-hidden": "true" }), element("span", { class: "words" }));
}

/** @param {HTMLElement} item @param {Listening} service */
function showItem(item, { name, state, behindMs, unsentMs }) {
  item.dataset.service = name;
  if (state) item.dataset.state = state;
  else delete item.dataset.state;
  const behind = state === "listening" && behindMs !== null ? `, ${length(behindMs)} behind` : "";
  const waits = unsentMs > WAITS_MS ? `, ${length(unsentMs)} of audio waits` : "";
  const said = state ? `${name} ${STATES[state]}${behind}${waits}` : name;
  const words = item.lastElementChild;
  if (words.textContent !== said) words.textContent = said;
}

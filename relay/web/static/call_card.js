// A call in the list: who with whom, when, how long, and what is being said.

import { durationOf, isNumbered, partiesOf, titleOf } from "./call_facts.js";
import { element } from "./element.js";
import { clock, moment, spoken } from "./times.js";

const LONGEST_SHOWN = 300; // characters of the newest words
const STAYS_MS = 5000; // of services that hear the same, the one that is shown stays until it was silent for so long

export class CallCard {
  /** @param {import("./call_facts.js").Call} call */
  constructor(call) {
    this.clock = element("span", { class: "clock", role: "timer" });
    this.facts = element("p", { class: "facts" });
    this.said = element("span");
    this.newest = element("p", { class: "newest", dir: "auto" }, this.said);
    /** @type {Map<string, {service: string, at: number}>} whose words are shown of each side, and when they came */
    this.tellers = new Map();
    const title = element("h3", {}, element("a", { class: "open", href: `/calls/${encodeURIComponent(call.call_sid)}`, "aria-label": titleOf(call) }, ...numbers(call)));
    const about = { class: "card", "data-call-sid": call.call_sid, "aria-label": nameOf(call) };
    this.article = element("article", about, title, this.clock, this.facts, this.newest);
    this.item = element("li", {}, this.article);
    this.update(call);
  }

  /** @param {import("./call_facts.js").Call} call */
  update(call) {
    this.call = call;
    this.article.dataset.state = call.state;
    this.facts.textContent = [moment(call.started_at), ...call.services].join(" · ");
    this.newest.hidden = call.state !== "live"; // while it is live, room is kept for what will be said
    if (this.newest.hidden) this.forget();
    this.tick();
  }

  /** Shows how long the call has lasted. */
  tick() {
    const lasted = durationOf(this.call);
    this.clock.textContent = clock(lasted);
    this.clock.setAttribute("aria-label", spoken(lasted));
  }

  /** Shows the words, unless another service tells this side just now. @param {string} track @param {string} service @param {string} text */
  hear(track, service, text) {
    const [teller, now] = [this.tellers.get(track), Date.now()];
    if (teller && teller.service !== service && now - teller.at < STAYS_MS) return;
    this.tellers.set(track, { service, at: now });
    this.newest.dataset.track = track;
    this.said.textContent = text.length > LONGEST_SHOWN ? `…${text.slice(-LONGEST_SHOWN)}` : text;
  }

  /** Nothing is being said. */
  forget() {
    this.tellers.clear();
    this.said.textContent = "";
    delete this.newest.dataset.track;
  }

  /** This service was replaced: another may tell at once. @param {string} service */
  leave(service) {
    for (const [track, teller] of this.tellers) if (teller.service === service) this.tellers.delete(track);
  }
}

/** @param {import("./call_facts.js").Call} call */
function nameOf(call) {
  return isNumbered(call) ? `Call from ${titleOf(call)}` : titleOf(call);
}

/** @param {import("./call_facts.js").Call} call */
function numbers(call) {
  if (!isNumbered(call)) return [titleOf(call)];
  const [caller, called] = partiesOf(call);
  return [
    element("bdi", { class: "from" }, caller),
    element("span", { class: "to", "aria-hidden": "true" }),
    element("bdi", { class: "into" }, called),
  ];
}

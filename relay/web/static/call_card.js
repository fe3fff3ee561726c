// A call in the list: who with whom, when, how long, and what is being said.

import { durationOf, partiesOf, titleOf } from "./call_facts.js";
import { element } from "./element.js";
import { clock, moment, spoken } from "./times.js";

const LONGEST_SHOWN = 300; // characters of the newest words

export class CallCard {
  /** @param {import("./call_facts.js").Call} call */
  constructor(call) {
    this.clock = element("span", { class: "clock" });
    this.facts = element("p", { class: "facts" });
    this.newest = element("p", { class: "newest", dir: "auto", hidden: true });
    const title = element("h3", {}, element("a", { class: "open", href: `/calls/${encodeURIComponent(call.call_sid)}`, "aria-label": titleOf(call) }, ...numbers(call)));
    const about = { class: "card", "data-call-sid": call.call_sid, "aria-label": `Call from ${titleOf(call)}` };
    this.article = element("article", about, title, this.clock, this.facts, this.newest);
    this.item = element("li", {}, this.article);
    this.update(call);
  }

  /** @param {import("./call_facts.js").Call} call */
  update(call) {
    this.call = call;
    this.article.dataset.state = call.state;
    this.facts.textContent = [moment(call.started_at), ...call.services].join(" · ");
    if (call.state !== "live") this.newest.hidden = true;
    this.tick();
  }

  /** Shows how long the call has lasted. */
  tick() {
    const lasted = durationOf(this.call);
    this.clock.textContent = clock(lasted);
    this.clock.setAttribute("aria-label", spoken(lasted));
  }

  /** @param {string} track @param {string} text */
  hear(track, text) {
    this.newest.hidden = false;
    this.newest.dataset.track = track;
    this.newest.textContent = text.length > LONGEST_SHOWN ? `…${text.slice(-LONGEST_SHOWN)}` : text;
  }
}

/** @param {import("./call_facts.js").Call} call */
function numbers(call) {
  if (!call.caller && !call.called) return [titleOf(call)];
  const [caller, called] = partiesOf(call);
  return [
    element("bdi", { class: "from" }, caller),
    element("span", { class: "to", "aria-hidden": "true" }),
    element("bdi", { class: "into" }, called),
  ];
}

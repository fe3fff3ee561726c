// One segment as it is shown: who, when, and what. An interim is shown by the same element that will be its final.

import { element } from "./element.js";
import { clock, fragment } from "./times.js";
import { shade, spell, uncertainty } from "./words.js";

export const SIDES = { inbound: "Inbound", outbound: "Outbound" };

export class SegmentView {
  /** @param {string} track @param {string} service */
  constructor(track, service) {
    this.who = element("p", { class: "who", "aria-hidden": "true" }, SIDES[track]);
    this.time = element("a", { class: "time" });
    this.text = element("p", { class: "text", dir: "auto" });
    this.element = element("article", { class: "segment", "data-track": track, "data-service": service }, this.who, this.time, this.text);
    this.track = track;
    this.service = service;
    this.segment = null;
  }

  /** Shows what someone seems to be saying. @param {string} text @param {number} startMs */
  growTo(text, startMs) {
    this.element.dataset.interim = "";
    this.text.textContent = text;
    this.place(startMs);
  }

  /** Shows what was said. @param {import("./words.js").Segment} segment @param {boolean} isSaved */
  settle(segment, isSaved) {
    this.segment = segment;
    delete this.element.dataset.interim;
    this.element.toggleAttribute("data-unsaved", !isSaved);
    if (isSaved) this.element.dataset.id = segment.id;
    if (segment.backfilled) this.element.dataset.backfilled = "";
    if (segment.language) this.text.lang = segment.language;
    delete this.text.dataset.spelled;
    shade(this.text, segment);
    this.place(segment.start_ms);
    this.note(segment);
  }

  /** @param {import("./words.js").Segment} segment */
  note(segment) {
    this.doubt?.remove();
    const doubt = uncertainty(segment);
    this.doubt = doubt ? element("p", { class: "uncertain unseen" }, doubt) : null;
    if (this.doubt) this.element.append(this.doubt);
    const more = segment.speaker === null ? "" : `, speaker ${segment.speaker + 1}`;
    this.name = SIDES[this.track] + more + (segment.backfilled ? ", from the recording" : "");
    this.who.textContent = this.name;
    this.who.classList.toggle("more", this.name !== SIDES[this.track]);
    this.label();
  }

  /** @param {number} startMs */
  place(startMs) {
    if (this.startMs === startMs) return;
    this.startMs = startMs;
    this.element.dataset.startMs = startMs;
    this.time.href = fragment(startMs);
    this.time.textContent = clock(startMs);
    this.label();
  }

  label() {
    this.element.setAttribute("aria-label", `${this.name ?? SIDES[this.track]}, ${clock(this.startMs)}`);
  }

  /** Makes a span of every word. */
  spell() {
    if (this.segment) spell(this.text, this.segment);
  }
}

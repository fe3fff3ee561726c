// What happened on a call beside what was said, in a sentence at its place.

import { element } from "./element.js";
import { SIDES } from "./segment.js";
import { clock } from "./times.js";

const SENTENCES = {
  "call.resumed": () => "The call goes on in a new stream.",
  "call.ended": (data) => `The call ended after ${clock(data.duration_ms ?? 0)}${because(data.reason, "stop")}`,
  "service.lost": (data) => `${data.service} was lost${because(data.reason)} What is said meanwhile is kept and sent again.`,
  "service.back": (data) => `${data.service} hears again, from ${clock(data.from_ms ?? 0)} on.`,
  "service.replaced": (data) => `${data.by} took over from ${data.service}${because(data.reason)}`,
  error: (data) => `${data.service ? `${data.service}: ` : ""}${sentence(data.reason)}`,
};

/** @param {string} reason @param {string} [usual] what needs no telling */
function because(reason, usual) {
  return reason && reason !== usual ? `: ${sentence(reason)}` : ".";
}

/** @param {string} text */
function sentence(text) {
  return /[.?]$/.test(text) ? text : `${text}.`;
}

/** @param {string} kind @param {any} data @returns {HTMLElement|null} null: such a thing is not shown between the segments */
export function noticeOf(kind, data) {
  const say = SENTENCES[kind];
  return say ? element("p", { class: "notice", "data-notice": kind }, element("span", { dir: "auto" }, say(data))) : null;
}

/** @param {{id: number, track: string, start_ms: number, end_ms: number, reason: string, filled: boolean}} gap */
export function noticeOfGap(gap) {
  const notice = element("p", { class: "notice", "data-notice": "gap", "data-id": gap.id, "data-track": gap.track }, element("span", { dir: "auto" }));
  showGap(notice, gap);
  return notice;
}

/** @param {HTMLElement} notice @param {any} gap */
export function showGap(notice, gap) {
  const where = `${SIDES[gap.track]}, ${clock(gap.start_ms)} to ${clock(gap.end_ms)}`;
  const what = gap.filled ? "transcribed later, from the recording." : `nothing was transcribed${because(gap.reason)}`;
  notice.toggleAttribute("data-filled", gap.filled);
  notice.firstElementChild.textContent = `${where}: ${what}`;
}

// The words of a segment within its text: those that the service was less sure of, and each one where it was said.

import { element } from "./element.js";

const UNSURE_BELOW = 0.8;
const VERY_UNSURE_BELOW = 0.6;

/** @typedef {{text: string, start_ms: number, end_ms: number, confidence: number}} Word */
/** @typedef {{id: number, track: string, start_ms: number, end_ms: number, text: string, confidence: number,
 *             speaker: number|null, language: string|null, service: string, backfilled: boolean, words: Word[]}} Segment */

/** How a word is marked; empty: not at all. A service that gives no confidence gives 0. @param {Word} word */
function markOf(word) {
  if (word.confidence === 0 || word.confidence >= UNSURE_BELOW) return "";
  return word.confidence < VERY_UNSURE_BELOW ? "very-unsure" : "unsure";
}

/**
 * The text with spans for the words that need one. Words that are not in the text are left out.
 * @param {HTMLElement} place @param {Segment} segment @param {(word: Word, mark: string) => HTMLElement|null} spanFor
 */
function fill(place, segment, spanFor) {
  const parts = [];
  let done = 0;
  for (const word of segment.words) {
    const at = word.text ? segment.text.indexOf(word.text, done) : -1;
    if (at < 0) continue;
    const span = spanFor(word, markOf(word));
    if (span === null) continue;
    span.textContent = word.text;
    parts.push(segment.text.slice(done, at), span);
    done = at + word.text.length;
  }
  place.replaceChildren(...parts, segment.text.slice(done));
}

/** Shows the text, shaded where the service was less sure. @param {HTMLElement} place @param {Segment} segment */
export function shade(place, segment) {
  if (segment.words.some(markOf)) fill(place, segment, (_word, mark) => (mark ? element("span", { class: mark }) : null));
  else place.textContent = segment.text;
}

/** Shows the text with a span for every word, once. @param {HTMLElement} place @param {Segment} segment */
export function spell(place, segment) {
  if (place.dataset.spelled) return;
  place.dataset.spelled = "yes";
  fill(place, segment, (word, mark) => element("span", { class: `word ${mark}`.trim(), "data-start-ms": word.start_ms }));
}

/** What is said to those who do not see the shades; empty: nothing. @param {Segment} segment */
export function uncertainty(segment) {
  const unsure = segment.words.filter(markOf).map((word) => word.text);
  return unsure.length ? `Uncertain: ${unsure.join(", ")}.` : "";
}

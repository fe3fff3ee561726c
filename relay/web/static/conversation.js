// What is said on a call, in order of time. Everything comes by its id or its place, so what comes twice is shown once.

import { Columns } from "./columns.js";
import { isShown } from "./element.js";
import { noticeOf, noticeOfGap, showGap } from "./notices.js";
import { SegmentView } from "./segment.js";
import { Slices } from "./slices.js";

const AT_ONCE_MS = 12; // of work, before the browser may paint
const OVERLAP = 8; // segments that may run beside a later one
const OF_ALL = ["call.resumed", "call.ended"]; // notices that are no service's
const STALE_MS = 4000; // after coming back, an interim that nobody repeats is void

export class Conversation {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    /** @type {Map<number, SegmentView>} */
    this.byId = new Map();
    /** @type {Map<string, SegmentView>} */
    this.unsaved = new Map();
    /** @type {Map<string, SegmentView>} */
    this.interims = new Map();
    this.notices = new Map();
    /** @type {SegmentView[]} by their beginnings */
    this.order = [];
    /** @type {WeakMap<Element, SegmentView>} */
    this.views = new WeakMap();
    this.arrange(new Columns());
  }

  /** Begins with these columns, and nothing in them. @param {Columns} columns */
  arrange(columns) {
    this.columns = columns;
    this.place.replaceChildren();
    this.place.dataset.columns = String(columns.count);
    this.slices = new Slices(this.place, columns);
  }

  /** Shows what was kept, a bit at a time. @param {{segments: any[], gaps: any[], events: any[]}} transcript */
  async show(transcript) {
    const all = [ // of one moment, first what a stream's end or beginning was, and then what was missed or said from there on
      ...(transcript.events ?? []).map((event) => [event.at_ms ?? 0, () => this.note(event.kind, event.id, event.data, event.at_ms)]),
      ...transcript.gaps.map((gap) => [gap.start_ms, () => this.miss(gap)]),
      ...transcript.segments.map((segment) => [segment.start_ms, () => this.say(segment, null)]),
    ].sort((one, other) => one[0] - other[0]);
    let until = performance.now() + AT_ONCE_MS;
    for (const [, put] of all) {
      put();
      if (performance.now() < until) continue;
      await new Promise((resolve) => setTimeout(resolve));
      until = performance.now() + AT_ONCE_MS;
    }
  }

  /** A final that is kept. @param {import("./words.js").Segment} segment @param {string|null} streamSid @returns {boolean} whether it is news */
  say(segment, streamSid) {
    if (this.byId.has(segment.id)) return false;
    const place = placeOf(segment);
    const waited = this.unsaved.get(place);
    this.unsaved.delete(place);
    const view = waited ?? this.endInterim(segment, streamSid) ?? new SegmentView(segment.track, segment.service);
    this.byId.set(segment.id, view);
    this.settle(view, segment, true);
    if (!waited) this.enlist(view);
    return !waited;
  }

  /** A final that cannot be kept yet. @param {any} segment @param {string} streamSid @returns {boolean} whether it is news */
  sayUnsaved(segment, streamSid) {
    const place = placeOf(segment);
    if (this.unsaved.has(place)) return false;
    const view = this.endInterim(segment, streamSid) ?? new SegmentView(segment.track, segment.service);
    this.unsaved.set(place, view);
    this.settle(view, segment, false);
    this.enlist(view);
    return true;
  }

  /** @param {SegmentView} view @param {any} segment @param {boolean} isSaved */
  settle(view, segment, isSaved) {
    view.settle(segment, isSaved);
    this.views.set(view.element, view);
    this.slices.put(view.element, segment.start_ms, this.columns.of(segment.service));
  }

  /** @param {SegmentView} view */
  enlist(view) {
    let at = this.order.length;
    while (at && this.order[at - 1].startMs > view.startMs) at--;
    this.order.splice(at, 0, view);
  }

  /** What someone seems to be saying; no text: nothing after all. @param {any} said */
  guess(said) {
    const key = keyOf(said.stream_sid, said);
    if (!said.text) return this.drop(key);
    let view = this.interims.get(key);
    if (!view) this.interims.set(key, (view = new SegmentView(said.track, said.service)));
    const startMs = (said.start_ms ?? 0) + (said.offset_ms ?? 0);
    view.heardAt = performance.now();
    view.growTo(said.text, startMs);
    this.slices.put(view.element, startMs, this.columns.of(said.service));
  }

  /** The interim that has become this final, if there is one. @param {any} segment @param {string|null} streamSid */
  endInterim(segment, streamSid) {
    const key = keyOf(streamSid, segment);
    const view = this.interims.get(key);
    if (!view) return null;
    if (view.startMs >= segment.end_ms) return null; // the next words: a final is told once it is kept, interims at once
    this.interims.delete(key);
    return view;
  }

  /** @param {string} key */
  drop(key) {
    this.interims.get(key)?.element.remove();
    this.interims.delete(key);
  }

  /** Drops the interims of a service that was lost, or all. @param {string} [service] */
  dropInterims(service) {
    for (const [key, view] of this.interims) if (!service || view.service === service) this.drop(key);
  }

  /** After coming back: interims that are not told again soon are those of words that have become final. */
  doubtInterims() {
    const since = performance.now();
    setTimeout(() => {
      for (const [key, view] of this.interims) if (view.heardAt < since) this.drop(key);
    }, STALE_MS);
  }

  /** @param {any} gap */
  miss(gap) {
    const key = `gap ${gap.id}`;
    const known = this.notices.get(key);
    if (known) return showGap(known, gap);
    if (this.columns.count > 1 && !gap.service) this.putAcross(key, noticeOfGap(gap), gap.start_ms);
    else this.putNotice(key, noticeOfGap(gap), gap.start_ms, this.columns.of(gap.service));
  }

  /** Something that happened. @param {string} kind @param {number} id @param {any} data @param {number|null} atMs */
  note(kind, id, data, atMs) {
    if (this.notices.has(id)) return;
    const notice = noticeOf(kind, data);
    if (!notice) return;
    if (this.columns.count > 1 && OF_ALL.includes(kind)) this.putAcross(id, notice, atMs ?? this.lastMs);
    else this.putNotice(id, notice, atMs ?? this.lastMs, this.columns.of(data.service));
  }

  putNotice(key, notice, ms, column) {
    this.notices.set(key, notice);
    this.slices.put(notice, ms, column);
  }

  putAcross(key, notice, ms) {
    this.notices.set(key, notice);
    this.slices.putAcross(notice, ms);
  }

  get lastMs() {
    return this.order.at(-1)?.segment.end_ms ?? 0;
  }

  // --- Finding --------------------------------------------------------------------------------------------------------

  /** What was being said at this time, or last before it. @param {number} ms @returns {SegmentView|undefined} */
  at(ms) {
    let [low, high] = [0, this.order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.order[middle].startMs <= ms) low = middle + 1;
      else high = middle;
    }
    return this.order[Math.max(0, low - 1)];
  }

  /** What is being said at this time, on both sides. @param {number} ms @returns {SegmentView[]} */
  around(ms) {
    const last = this.order.indexOf(this.at(ms));
    return this.order.slice(Math.max(0, last - OVERLAP), last + 1).filter(({ segment }) => segment.start_ms <= ms && ms < segment.end_ms);
  }

  /** Marks what was said at this time, in a column that is shown. @param {number} ms @returns {SegmentView|undefined} */
  markAt(ms) {
    const last = this.at(ms + 100); // links name tenths of seconds
    const view = this.order.slice(0, this.order.indexOf(last) + 1).findLast((one) => isShown(one.element)) ?? last;
    this.unmark();
    view?.element.setAttribute("aria-current", "true");
    return view;
  }

  unmark() {
    this.place.querySelector('.segment[aria-current="true"]')?.removeAttribute("aria-current");
  }
}

/** What tells a final that was not kept from others. */
function placeOf(segment) {
  return `${segment.track} ${segment.start_ms} ${segment.service}`;
}

function keyOf(streamSid, said) {
  return `${streamSid} ${said.track} ${said.service}`;
}

// The conversation's elements in order of time, in slices of a minute or less: a browser lays out only those near the view
// (content-visibility), and in each slice every column begins anew, so that columns stay side by side.

import { ceiling, element } from "./element.js";

const MINUTE_MS = 60_000;
const SHORT_MS = 20_000; // where there are several columns

export class Slices {
  /** @param {HTMLElement} place @param {import("./columns.js").Columns} columns */
  constructor(place, columns) {
    this.place = place;
    this.columns = columns;
    this.lengthMs = columns.count > 1 ? SHORT_MS : MINUTE_MS;
    /** @type {Map<number, HTMLElement>} by their beginnings */
    this.made = new Map();
    this.cuts = [];
    /** @type {WeakMap<Element, number>} */
    this.times = new WeakMap();
    this.newest = -1;
    this.chosen = 0;
  }

  /** Shows this column where there is room for one only; the reader stays at the same time. @param {number} column */
  choose(column) {
    this.chosen = column;
    const edge = ceiling();
    const slice = [...this.place.children].find((one) => one.getBoundingClientRect().bottom > edge);
    const before = slice?.getBoundingClientRect();
    for (const one of this.place.querySelectorAll(".column")) one.classList.toggle("aside", Number(one.dataset.column) !== column);
    if (!slice || before.top > edge) return;
    const now = slice.getBoundingClientRect();
    scrollBy({ top: now.top + ((edge - before.top) / before.height) * now.height - edge, behavior: "instant" });
  }

  /** Puts an element where it belongs; one that stands right already is left alone. @param {HTMLElement} one @param {number} ms @param {number} column */
  put(one, ms, column) {
    if (this.times.get(one) === ms) return;
    this.times.set(one, ms);
    if (one.isConnected && this.isInOrder(one, ms)) return;
    const among = this.slice(this.beginning(ms)).querySelectorAll(":scope > .column")[column];
    let after = among.lastElementChild;
    while (after && (after === one || this.times.get(after) > ms)) after = after.previousElementSibling;
    if (after) after.after(one);
    else among.prepend(one);
  }

  /** Puts an element across all columns: a slice begins with it. @param {HTMLElement} one @param {number} ms */
  putAcross(one, ms) {
    this.cuts.push(ms);
    this.slice(ms).querySelector(":scope > .column").before(one);
  }

  /** Where the slice begins that a time belongs to. @param {number} ms */
  beginning(ms) {
    const cuts = this.cuts.filter((cut) => cut <= ms);
    return Math.max(ms - (ms % this.lengthMs), ...cuts);
  }

  /** @param {HTMLElement} one @param {number} ms */
  isInOrder(one, ms) {
    const [before, after] = [one.previousElementSibling, one.nextElementSibling];
    if (before && this.times.get(before) > ms) return false;
    if (after) return this.times.get(after) >= ms;
    return this.beginning(ms) >= Number(one.parentElement.parentElement.dataset.beginning);
  }

  /** @param {number} beginning */
  slice(beginning) {
    let slice = this.made.get(beginning);
    if (!slice) {
      slice = this.make(beginning);
      this.made.set(beginning, slice);
      this.insert(slice, beginning);
    }
    return slice;
  }

  /** @param {number} beginning */
  make(beginning) {
    const columns = Array.from({ length: this.columns.count }, (_, column) => this.makeColumn(column));
    const slice = element("div", { class: "slice", "data-beginning": beginning }, ...columns);
    slice.style.setProperty("--columns", String(this.columns.count));
    return slice;
  }

  /** @param {number} column */
  makeColumn(column) {
    const about = { class: column === this.chosen ? "column" : "column aside", "data-column": column };
    const { count, names } = this.columns;
    return element("div", count > 1 ? { ...about, role: "group", "aria-label": names[column] } : about);
  }

  /** @param {HTMLElement} slice @param {number} beginning */
  insert(slice, beginning) {
    if (beginning > this.newest) {
      this.newest = beginning;
      this.place.append(slice);
      return;
    }
    const later = [...this.made.keys()].filter((other) => other > beginning);
    this.made.get(Math.min(...later)).before(slice);
  }
}

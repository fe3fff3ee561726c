// The conversation's elements in order of time, in slices of a minute or less: a browser lays out only those near the view
// (content-visibility), and in each slice every column begins anew, so that columns stay side by side.

import { element } from "./element.js";

const MINUTE_MS = 60_000;
const SHORT_MS = 20_000; // where there are several columns

export class Slices {
  /** @param {HTMLElement} place @param {import("./columns.js").Columns} columns */
  constructor(place, columns) {
    this.place = place;
    this.columns = columns;
    this.lengthMs = columns.count > 1 ? SHORT_MS : MINUTE_MS;
    /** @type {Map<number, HTMLElement>} */
    this.made = new Map();
    /** @type {WeakMap<Element, number>} */
    this.times = new WeakMap();
    this.newest = -1;
  }

  /** Puts an element where it belongs; one that stands right already is left alone. @param {HTMLElement} one @param {number} ms @param {number} column */
  put(one, ms, column) {
    if (this.times.get(one) === ms) return;
    this.times.set(one, ms);
    if (one.isConnected && this.isInOrder(one, ms)) return;
    const among = this.slice(Math.floor(ms / this.lengthMs)).children[column];
    let after = among.lastElementChild;
    while (after && (after === one || this.times.get(after) > ms)) after = after.previousElementSibling;
    if (after) after.after(one);
    else among.prepend(one);
  }

  /** @param {HTMLElement} one @param {number} ms */
  isInOrder(one, ms) {
    const [before, after] = [one.previousElementSibling, one.nextElementSibling];
    if (before && this.times.get(before) > ms) return false;
    if (after) return this.times.get(after) >= ms;
    return Math.floor(ms / this.lengthMs) >= Number(one.parentElement.parentElement.dataset.number);
  }

  /** @param {number} number */
  slice(number) {
    let slice = this.made.get(number);
    if (!slice) {
      slice = this.make(number);
      this.made.set(number, slice);
      this.insert(slice, number);
    }
    return slice;
  }

  /** @param {number} number */
  make(number) {
    const names = this.columns.names;
    const columns = Array.from({ length: this.columns.count }, (_, column) =>
      this.columns.count > 1
        ? element("div", { class: "column", "data-column": column, role: "group", "aria-label": names[column] })
        : element("div", { class: "column", "data-column": column }),
    );
    return element("div", { class: "slice", "data-number": number }, ...columns);
  }

  /** @param {HTMLElement} slice @param {number} number */
  insert(slice, number) {
    if (number > this.newest) {
      this.newest = number;
      this.place.append(slice);
      return;
    }
    const later = [...this.made.keys()].filter((other) => other > number);
    this.made.get(Math.min(...later)).before(slice);
  }
}

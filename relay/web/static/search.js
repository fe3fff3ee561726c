// The search: words that were said, found with the second to jump to; and calls by a part of a number.

import { ask } from "./api.js";
import { titleOf } from "./call_facts.js";
import { byId, element, say } from "./element.js";
import { SIDES } from "./segment.js";
import { clock, fragment, moment, spoken } from "./times.js";

const PAGES_AT_ONCE = 10; // gone through before the reader is asked whether to go on
const BETWEEN_DIGITS = /[\s().\-/\u2010-\u2015\u200e\u202a-\u202e\u2066-\u2069]/g;

export class Search {
  /** @param {(number: string) => void} byNumber shows the calls with this number */
  constructor(byNumber) {
    this.byNumber = byNumber;
    this.number = "";
    this.searches = 0;
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    byId("search").addEventListener("reset", () => setTimeout(() => this.run()));
    byId("more-hits").addEventListener("click", () => this.more());
    this.recall();
  }

  /** What was searched for stands in the address: who comes back from a call finds it again. */
  recall() {
    const asked = new URLSearchParams(location.search);
    [byId("words").value, byId("number").value] = [asked.get("q") ?? "", asked.get("number") ?? ""];
    if (location.search) this.run();
  }

  /** @param {string} words @param {string} number */
  remember(words, number) {
    const asked = new URLSearchParams(Object.entries({ q: words, number }).filter(([, value]) => value));
    history.replaceState(null, "", String(asked) ? `/?${asked}` : "/");
  }

  run() {
    const [words, written] = [byId("words").value.trim(), byId("number").value.trim()];
    const number = digitsOf(written);
    byId("clear").hidden = !words && !number;
    this.remember(words, written);
    if (number !== this.number) this.byNumber((this.number = number));
    this.find(words);
  }

  /** @param {string} words */
  async find(words) {
    const mine = ++this.searches;
    this.words = words;
    byId("found").hidden = !words;
    if (!words) return;
    say(byId("found-count"), "Searching");
    const page = await this.page(null, mine);
    if (!page) return;
    byId("hits").replaceChildren(...page.items.map(hit));
    this.tell(page);
  }

  async more() {
    const page = await this.page(this.next, ++this.searches);
    if (!page) return;
    byId("hits").append(...page.items.map(hit));
    this.tell(page);
  }

  /** The places of the next page; null if there are none to show. @param {string|null} cursor @param {number} search */
  async page(cursor, search) {
    try {
      const page = await this.placesFrom(cursor);
      return search === this.searches ? page : null;
    } catch (trouble) {
      if (search !== this.searches) return null;
      if (cursor === null) byId("hits").replaceChildren(); // what was found for other words
      byId("more-hits").hidden = cursor === null;
      say(byId("found-count"), trouble.message);
      return null;
    }
  }

  /** With a number, pages are gone through until some places are of its calls. @param {string|null} cursor */
  async placesFrom(cursor) {
    const { words, number } = this;
    for (let pages = 1; ; pages++) {
      const asked = new URLSearchParams(Object.entries({ q: words, cursor }).filter(([, value]) => value));
      const { items, next } = await ask(`/api/search?${asked}`);
      const ours = items.filter(({ call }) => [call.caller, call.called].some((one) => one.includes(number)));
      if (ours.length || !next || pages === PAGES_AT_ONCE) return { items: ours, next };
      cursor = next;
    }
  }

  tell(page) {
    this.next = page.next;
    byId("more-hits").hidden = page.next === null;
    const count = byId("hits").children.length;
    const places = count === 1 ? "1 place" : `${count} places`;
    say(byId("found-count"), count ? (page.next ? `The newest ${places}` : places) : page.next ? "None so far" : "Nothing was found");
  }
}

/** A number without what people write between its digits, as the API reads it. @param {string} written */
function digitsOf(written) {
  const digits = written.replace(BETWEEN_DIGITS, "");
  return /^[+\d]+$/.test(digits) ? digits : written;
}

/** One place where the words were said. */
function hit({ call, segment, snippet }) {
  const said = element("span", { class: "said", dir: "auto" });
  for (const part of snippet) said.append(part.match ? element("mark", {}, part.text) : part.text);
  const when = element("span", { class: "clock" }, element("span", { "aria-hidden": "true" }, clock(segment.start_ms)));
  when.append(element("span", { class: "unseen" }, `at ${spoken(segment.start_ms)}`));
  const about = element("span", { class: "facts" }, `${SIDES[segment.track]} · ${titleOf(call)} · ${moment(call.started_at)}`);
  const path = `/calls/${encodeURIComponent(call.call_sid)}${fragment(segment.start_ms)}`;
  return element("li", {}, element("a", { class: "hit", href: path, "data-track": segment.track }, when, said, about));
}

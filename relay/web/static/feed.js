// The live feed, followed through losses: every loss is answered by coming back with the last id that was seen.
//
// Server-Sent Events are read here by fetch: a browser's EventSource gives up on an answer like 503, tells nobody which it
// was, and does not notice a line that is dead but not closed.

import { reached, refusal, Refused } from "./api.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
const SILENCE_MS = 40_000; // the server says something every 15 s
const UNSEEN_MS = 60_000; // a page that nobody sees lets its line go: browsers open six to a server, for all tabs together

/** @typedef {"connecting"|"live"|"waiting"|"offline"|"ended"|"logged-out"|"gone"} FeedState */
/** @typedef {{kind: string, id: number, data: any}} FeedEvent */

/** What an answer of this status means for good; null: another try may help. @param {number} status @returns {FeedState|null} */
export function endOf(status) {
  if (status === 401) return "logged-out";
  return status === 403 || status === 404 ? "gone" : null;
}

export class Feed {
  /**
   * @param {string|null} callSid null: all calls, whose past the list of calls tells
   * @param {(event: FeedEvent) => void} hear
   * @param {(state: FeedState, waitMs: number) => void} become
   */
  constructor(callSid, hear, become) {
    this.callSid = callSid;
    this.hear = hear;
    this.become = become;
    this.lastId = 0;
    this.failures = 0;
    this.retryMs = FIRST_WAIT_MS;
    this.isBegun = this.isResting = this.isOver = false;
    this.timer = 0;
    this.heardAt = 0;
    addEventListener("offline", () => this.lose());
    addEventListener("online", () => this.comeBack());
    document.addEventListener("visibilitychange", () => this.seen(!document.hidden));
  }

  /** Follows from this event on. @param {number} [lastId] */
  follow(lastId = 0) {
    this.lastId = lastId;
    this.isBegun = true;
    this.isResting = document.hidden; // opened behind others, it takes no line before it is first seen
    this.comeBack();
  }

  /** Connects, unless it is connected or over. */
  comeBack() {
    if (this.line && Date.now() - this.heardAt > SILENCE_MS) this.lose(); // timers stand still while a computer sleeps
    if (this.isOver || this.isResting || this.line || !this.isBegun) return;
    clearTimeout(this.timer);
    this.read().catch((trouble) => this.failed(trouble));
  }

  /** Cuts the line; it comes back by itself. */
  lose() {
    this.line?.abort();
  }

  /** @param {boolean} isSeen whether anybody can see the page */
  seen(isSeen) {
    clearTimeout(this.unseen);
    if (isSeen) {
      this.isResting = false;
      this.comeBack();
    } else {
      this.unseen = setTimeout(() => this.rest(), UNSEEN_MS);
    }
  }

  rest() {
    this.isResting = true;
    clearTimeout(this.timer);
    this.lose();
  }

  /** Ends it, once: why it ended stays so. @param {FeedState} state */
  end(state) {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.timer);
    this.lose();
    this.become(state, 0);
  }

  async read() {
    const line = (this.line = new AbortController());
    this.heardAt = Date.now();
    this.become(navigator.onLine ? "connecting" : "offline", 0);
    this.expectNews(line);
    try {
      const answer = await reached(this.url, { signal: line.signal, cache: "no-store" });
      if (!answer.ok) throw await refusal(answer);
      this.become("live", 0);
      await this.take(answer, line);
      throw new Refused(0, "The server ended it.");
    } finally {
      clearTimeout(this.watch);
      this.line = null;
    }
  }

  get url() {
    if (this.callSid === null) return "/api/live";
    return `/api/live?${new URLSearchParams({ call: this.callSid, last_event_id: String(this.lastId) })}`;
  }

  /** @param {Response} answer @param {AbortController} line */
  async take(answer, line) {
    const parser = new EventParser((event) => this.told(event), (ms) => (this.retryMs = ms));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.expectNews(line);
      this.failures = 0;
      this.heardAt = Date.now();
      parser.feed(value);
    }
  }

  /** A line that brings nothing for long, not even an answer, is cut. @param {AbortController} line */
  expectNews(line) {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => line.abort(), SILENCE_MS);
  }

  /** @param {FeedEvent} event */
  told(event) {
    if (this.isOver) return;
    if (event.id) this.lastId = event.id;
    this.hear(event);
  }

  /** @param {unknown} trouble */
  failed(trouble) {
    if (this.isOver || this.isResting) return;
    const end = trouble instanceof Refused && endOf(trouble.status);
    if (end) return this.end(end);
    const waitMs = Math.min(this.retryMs * 2 ** this.failures, LONGEST_WAIT_MS);
    this.failures += 1;
    this.become(navigator.onLine ? "waiting" : "offline", waitMs);
    this.timer = setTimeout(() => this.comeBack(), waitMs);
  }
}

/** Reads lines as the standard says (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
class EventParser {
  /** @param {(event: FeedEvent) => void} hear @param {(ms: number) => void} retry */
  constructor(hear, retry) {
    this.hear = hear;
    this.retry = retry;
    this.rest = "";
    this.fields = {};
  }

  /** @param {string} text as much as has come */
  feed(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.take(line);
  }

  /** @param {string} line */
  take(line) {
    if (!line) return this.dispatch();
    const colon = line.indexOf(": ");
    if (colon > 0) this.fields[line.slice(0, colon)] = line.slice(colon + 2);
  }

  dispatch() {
    const { event, id, data, retry } = this.fields;
    this.fields = {};
    if (retry) this.retry(Number(retry));
    if (data) this.hear({ kind: event, id: Number(id ?? 0), data: JSON.parse(data) });
  }
}

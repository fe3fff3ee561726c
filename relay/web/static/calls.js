// The page of all calls: live ones on top with their newest words, and those before, newest first.

import { ask } from "./api.js";
import { callFrom, streamFrom } from "./call_facts.js";
import { CallCard } from "./call_card.js";
import { showConnection } from "./connection.js";
import { makeCopying } from "./copying.js";
import { byId, say } from "./element.js";
import { Feed } from "./feed.js";
import { makeDemo } from "./demo.js";
import { Search } from "./search.js";
import { Unopened } from "./unopened.js";

const TICK_MS = 1000;
const AGAIN_MS = 5000; // from a list that could not be had to the next try
const AT_ONCE = 200; // calls that are asked for again at once
const ASKED_AGAIN = 10; // times at most, of a reader who has gone very far back

/** @type {Map<string, CallCard>} */
const cards = new Map();
const unopened = new Unopened();
let number = ""; // a part of the numbers that are shown; empty: all
let next = null; // the cursor of the page that follows
let farthest = null; // the oldest call that "Show more" has brought
let loads = 0;
let again = 0;
/** @type {import("./feed.js").FeedEvent[]|null} what happens while the list is on its way, which may be older */
let meanwhile = null;

/** Shows the newest calls anew, as far as the reader has gone. */
async function load() {
  const mine = ++loads;
  clearTimeout(again);
  meanwhile ??= [];
  try {
    const page = await newest(() => mine === loads);
    if (mine !== loads) return;
    show(page);
    say(byId("trouble"), "");
  } catch (trouble) {
    if (mine !== loads) return;
    say(byId("trouble"), trouble.message);
    if (trouble.status !== 401) again = setTimeout(load, AGAIN_MS);
  }
  const missed = meanwhile;
  meanwhile = null;
  missed.forEach(told);
  arrange();
}

/** The first page, and on to where the reader has come. @param {() => boolean} isWanted */
async function newest(isWanted) {
  const page = await ask(listPath(null));
  for (let asked = 0; page.next && !hasComeFar(page.items) && asked < ASKED_AGAIN && isWanted(); asked++) {
    const { items, next } = await ask(listPath(page.next, AT_ONCE));
    page.items.push(...items);
    page.next = next;
  }
  return page;
}

/** Whether these calls, newest first, go as far back as the reader did. */
function hasComeFar(calls) {
  if (!farthest) return true;
  const isOlder = (call) => Date.parse(call.started_at) < Date.parse(farthest.started_at);
  return calls.some((call) => call.call_sid === farthest.call_sid || isOlder(call));
}

function show(page) {
  const listed = new Set(page.items.map((call) => call.call_sid));
  for (const sid of [...cards.keys()]) if (!listed.has(sid)) forget(sid);
  const last = new Map(); // of each list, the item that was placed last
  for (const call of page.items) {
    const [{ item }, list] = [cardOf(call), listOf(call)];
    const place = last.has(list) ? last.get(list).nextElementSibling : list.firstElementChild;
    if (item !== place) list.insertBefore(item, place); // what stays where it is keeps the reader's place
    last.set(list, item);
  }
  next = page.next;
}

async function loadMore() {
  const mine = loads;
  try {
    const page = await ask(listPath(next));
    if (mine !== loads) return;
    for (const call of page.items) put(call);
    next = page.next;
    farthest = page.items.at(-1) ?? farthest;
    say(byId("trouble"), "");
  } catch (trouble) {
    say(byId("trouble"), trouble.message);
  }
  arrange();
}

/** @param {string|null} cursor @param {number} [limit] */
function listPath(cursor, limit) {
  const asked = new URLSearchParams();
  if (number) asked.set("number", number);
  if (cursor) asked.set("cursor", cursor);
  if (limit) asked.set("limit", String(limit));
  return `/api/calls?${asked}`;
}

/**
 * Shows a call at its place: newest first. Of those that began together, the list says which is first, and else it is the
 * one that is news.
 * @param {import("./call_facts.js").Call} call
 */
function put(call, isNews = false) {
  const [card, list] = [cardOf(call), listOf(call)];
  if (isNews && card.item.parentElement === list) return;
  const start = Date.parse(call.started_at) + (isNews ? 1 : 0);
  const later = [...list.children].find((item) => item !== card.item && startOf(item) < start) ?? null;
  const isThere = card.item.parentElement === list && card.item.nextElementSibling === later;
  if (!isThere) list.insertBefore(card.item, later); // what is moved loses the focus
}

/** The call's card, which tells what is known now. @param {import("./call_facts.js").Call} call */
function cardOf(call) {
  const card = cards.get(call.call_sid) ?? new CallCard(call);
  cards.set(call.call_sid, card);
  card.update(call);
  unopened.look(call);
  return card;
}

/** @param {import("./call_facts.js").Call} call */
function listOf(call) {
  return byId(call.state === "live" ? "live-calls" : "earlier-calls");
}

/** @param {Element} item */
function startOf(item) {
  return Date.parse(cards.get(item.firstElementChild.dataset.callSid).call.started_at);
}

/** @param {string} sid */
function forget(sid) {
  cards.get(sid)?.item.remove();
  cards.delete(sid);
}

/** Shows the parts of the page that have something in them. */
function arrange() {
  const [live, earlier] = [byId("live-calls").children.length, byId("earlier-calls").children.length];
  byId("live").hidden = !live;
  byId("earlier").hidden = !earlier;
  byId("more-calls").hidden = next === null;
  unopened.show(!number);
  byId("no-calls").hidden = Boolean(live || earlier || !number);
  byId("first-call").hidden = Boolean(live || earlier || number) || !byId("trouble").hidden;
}

// --- What happens -----------------------------------------------------------------------------------------------------

const HEARD = {
  "call.started": begin,
  "call.resumed": resume,
  "call.ended": end,
  "service.replaced": (data) => cards.get(data.call_sid)?.leave(data.service),
  "segment.final": (data) => hear(data.call_sid, data.segment),
  "final-unsaved": (data) => hear(data.call_sid, data.segment),
  interim: (data) => hear(data.call_sid, data),
  "stream-unopened": fail,
};

function begin(data) {
  const call = callFrom(data);
  unopened.look(call);
  if (cards.has(call.call_sid) || !isAskedFor(call) || isOfLaterPage(call)) return;
  put(call, true);
  arrange();
}

function fail(data) {
  unopened.tell(data);
  cards.forEach(({ call }) => unopened.look(call)); // of a failure that is told late
  arrange();
}

/** Whether "Show more" will show it: what happened elsewhere may be told late. */
function isOfLaterPage(call) {
  const last = byId("earlier-calls").lastElementChild;
  return next !== null && last !== null && Date.parse(call.started_at) <= startOf(last);
}

function isAskedFor(call) {
  return !number || call.caller.includes(number) || call.called.includes(number);
}

function resume(data) {
  change(data.call_sid, (call) => ({ ...call, state: "live", ended_at: null, streams: [...call.streams, streamFrom(data)] }));
}

function end(data) {
  change(data.call_sid, (call) => ({ ...call, state: "ended", ended_at: data.created_at, duration_ms: data.duration_ms ?? call.duration_ms }));
}

function change(sid, how) {
  const card = cards.get(sid);
  if (!card) return;
  put(how(card.call), true);
  arrange();
}

function hear(sid, said) {
  if (said.text) cards.get(sid)?.hear(said.track, said.service, said.text);
}

/** @param {import("./feed.js").FeedEvent} event */
function told({ kind, data }) {
  HEARD[kind]?.(data);
}

// --- The page ---------------------------------------------------------------------------------------------------------

const feed = new Feed(
  null,
  (event) => (meanwhile ? meanwhile.push(event) : told(event)),
  (state, waitMs) => {
    showConnection(state, waitMs);
    if (state === "live") load(); // of what was missed, the list says all
  },
);

setInterval(() => {
  for (const card of cards.values()) if (card.call.state === "live") card.tick();
}, TICK_MS);

new Search((asked) => {
  number = asked;
  farthest = null;
  load();
});
byId("more-calls").addEventListener("click", loadMore);
makeCopying();
makeDemo();
feed.follow();

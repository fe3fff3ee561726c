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

const TICK_MS = 1000;

/** @type {Map<string, CallCard>} */
const cards = new Map();
let number = ""; // a part of the numbers that are shown; empty: all
let next = null; // the cursor of the page that follows
let loads = 0;

/** Shows the newest calls anew, as many as a page has. */
async function load() {
  const mine = ++loads;
  try {
    const page = await ask(listPath(null));
    if (mine !== loads) return;
    for (const sid of [...cards.keys()]) forget(sid);
    for (const call of page.items) append(call);
    next = page.next;
    say(byId("trouble"), "");
  } catch (trouble) {
    say(byId("trouble"), trouble.message);
  }
  arrange();
}

async function loadMore() {
  const page = await ask(listPath(next)).catch((trouble) => say(byId("trouble"), trouble.message));
  if (!page) return;
  for (const call of page.items) if (!cards.has(call.call_sid)) append(call);
  next = page.next;
  arrange();
}

/** @param {string|null} cursor */
function listPath(cursor) {
  const asked = new URLSearchParams();
  if (number) asked.set("number", number);
  if (cursor) asked.set("cursor", cursor);
  return `/api/calls?${asked}`;
}

/** @param {import("./call_facts.js").Call} call */
function append(call) {
  const card = new CallCard(call);
  cards.set(call.call_sid, card);
  listOf(call).append(card.item);
}

/** @param {import("./call_facts.js").Call} call */
function listOf(call) {
  return byId(call.state === "live" ? "live-calls" : "earlier-calls");
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
  byId("no-calls").hidden = Boolean(live || earlier || !number);
  byId("first-call").hidden = Boolean(live || earlier || number) || !byId("trouble").hidden;
}

// --- What happens -----------------------------------------------------------------------------------------------------

const HEARD = {
  "call.started": begin,
  "call.resumed": resume,
  "call.ended": end,
  "segment.final": (data) => hear(data.call_sid, data.segment),
  "final-unsaved": (data) => hear(data.call_sid, data.segment),
  interim: (data) => hear(data.call_sid, data),
};

function begin(data) {
  const call = callFrom(data);
  if (cards.has(call.call_sid) || !isAskedFor(call)) return;
  const card = new CallCard(call);
  cards.set(call.call_sid, card);
  listOf(call).prepend(card.item);
  arrange();
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
  card.update(how(card.call));
  listOf(card.call).prepend(card.item);
  arrange();
}

function hear(sid, said) {
  if (said.text) cards.get(sid)?.hear(said.track, said.text);
}

// --- The page ---------------------------------------------------------------------------------------------------------

const feed = new Feed(
  null,
  (event) => HEARD[event.kind]?.(event.data),
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
  load();
});
byId("more-calls").addEventListener("click", loadMore);
makeCopying();
makeDemo();
feed.follow(null);

// The page of one call: what was kept is shown first, then the live feed goes on from there.

import { announce } from "./announcer.js";
import { ask, pathOf } from "./api.js";
import { durationOf, streamFrom, titleOf } from "./call_facts.js";
import { Columns } from "./columns.js";
import { showConnection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { makeCopying } from "./copying.js";
import { makeDialogs } from "./dialogs.js";
import { byId, say } from "./element.js";
import { makeExports } from "./exports.js";
import { endOf, Feed } from "./feed.js";
import { Follow } from "./follow.js";
import { Player } from "./player.js";
import { SIDES } from "./segment.js";
import { Services } from "./services.js";
import { Sides } from "./sides.js";
import { clock, moment, secondOf, spoken } from "./times.js";

const TICK_MS = 1000;
const LINGER_MS = 300_000; // after its end a call is followed for so long: it may go on in another stream
const AGAIN_MS = [1000, 2000, 4000, 8000, 15_000]; // from one try to load the call to the next
const RECORDED_AFTER_MS = [2500, 5000, 10_000]; // after the call's end its recording is whole; a slow disk takes longer
const FILLED_MS = 1000; // what is filled in comes in one piece after another: looked at once

const sid = byId("call").dataset.callSid;
const conversation = new Conversation(byId("conversation"));
const follow = new Follow(byId("conversation"), byId("now"));
const sides = new Sides((column) => conversation.slices.choose(column));
const services = new Services((listening) => sides.tell(listening));
/** @type {import("./call_facts.js").Call} */
let call;
let player = null;
let lingering = 0;
let looking = 0;
let filling = 0;
/** @type {[import("./feed.js").FeedState, number]} */
let line = ["connecting", 0];

// --- What is kept -----------------------------------------------------------------------------------------------------

async function load() {
  for (let failures = 0; ; failures++) {
    try {
      return await ask(`${pathOf(sid)}/transcript.json`);
    } catch (trouble) {
      say(byId("trouble"), trouble.message);
      const end = endOf(trouble.status);
      if (end) {
        showConnection(end, 0);
        throw trouble;
      }
      const waitMs = AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)];
      showConnection("waiting", waitMs);
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }
}

async function begin() {
  const transcript = await load();
  say(byId("trouble"), "");
  call = transcript.call;
  conversation.arrange(columnsOf(transcript));
  showCall();
  await conversation.show(transcript);
  byId("conversation").dataset.ready = "true";
  showNothing();
  const canBeHeard = await showPlayer();
  goToFragment();
  if (!location.hash && isLive()) follow.jump();
  feed.follow(transcript.last_event_id ?? 0);
  if (isLive()) return;
  linger();
  if (!canBeHeard) awaitRecording();
}

/** @param {any} transcript */
function columnsOf({ call, events = [] }) {
  const columns = new Columns();
  for (const { kind, data } of events) if (kind === "service.replaced") columns.replace(data.service, data.by);
  for (const stream of call.streams) columns.seat(stream.services);
  return columns;
}

/** Looks again at what was kept: something was filled in later. */
async function reload() {
  filling = 0;
  const transcript = await ask(`${pathOf(sid)}/transcript.json`).catch(() => null);
  if (transcript) await conversation.show(transcript);
}

function isLive() {
  return call.state === "live";
}

// --- The head ---------------------------------------------------------------------------------------------------------

function showCall() {
  const title = titleOf(call);
  byId("title").textContent = title;
  document.title = `${isLive() ? "Live: " : ""}${title}`;
  byId("state").textContent = isLive() ? "Live" : "Ended";
  byId("call").dataset.state = call.state;
  byId("when").textContent = moment(call.started_at);
  if (byId("delete")) byId("delete").hidden = isLive();
  sides.show(conversation.columns);
  services.know(call.services);
  follow.set(isLive());
  tick();
  showLine();
}

function tick() {
  const lasted = durationOf(call);
  byId("clock").textContent = clock(lasted);
  byId("clock").setAttribute("aria-label", spoken(lasted));
}

function showNothing() {
  const isEmpty = !conversation.place.querySelector("article");
  say(byId("nothing"), !isEmpty ? "" : isLive() ? "Nobody has said anything yet." : "Nothing was said on this call.");
}

function showLine() {
  const [state, waitMs] = line;
  const isOver = call && !isLive() && state !== "logged-out" && state !== "gone";
  showConnection(isOver ? "ended" : state, waitMs);
}

// --- What happens -----------------------------------------------------------------------------------------------------

const HEARD = {
  interim: (data) => conversation.guess(data),
  status: (data) => services.hear(data),
  "segment.final": (data) => {
    if (conversation.say(data.segment, data.stream_sid)) tellFinal(data.segment);
    if (data.segment.backfilled) filling ||= setTimeout(reload, FILLED_MS);
  },
  "final-unsaved": (data) => {
    if (conversation.sayUnsaved(data.segment, data.stream_sid)) tellFinal(data.segment);
  },
  gap: (data) => conversation.miss(data.gap),
  "call.resumed": resume,
  "call.ended": end,
  "service.lost": (data) => conversation.dropInterims(data.service),
  "service.replaced": (data) => {
    conversation.columns.replace(data.service, data.by);
    conversation.dropInterims(data.service);
    if (!call.services.includes(data.by)) change({ ...call, services: [...call.services, data.by] });
  },
};

/** @param {import("./feed.js").FeedEvent} event */
function hear({ kind, id, data }) {
  HEARD[kind]?.(data);
  if (id) conversation.note(kind, id, data, data.at_ms ?? null);
  showNothing();
}

/** Of several services one is read out, as everything would be told twice. */
function tellFinal(segment) {
  const isTold = !segment.backfilled && conversation.columns.of(segment.service) === sides.chosen;
  if (isTold) announce(`${SIDES[segment.track]}: ${segment.text}`);
}

function resume(data) {
  clearTimeout(lingering);
  change({ ...call, state: "live", ended_at: null, streams: [...call.streams, streamFrom(data)] });
}

function end(data) {
  conversation.dropInterims();
  services.end();
  const streams = call.streams.map((stream) => ({ ...stream, ended_at: stream.ended_at ?? data.created_at }));
  change({ ...call, state: "ended", ended_at: data.created_at, duration_ms: data.duration_ms ?? call.duration_ms, streams });
  linger();
  awaitRecording();
}

function change(now) {
  call = now;
  showCall();
}

function linger() {
  clearTimeout(lingering);
  lingering = setTimeout(() => feed.end("ended"), LINGER_MS);
}

/** @param {number[]} [waits] from now to each look */
function awaitRecording([waitMs, ...later] = RECORDED_AFTER_MS) {
  clearTimeout(looking);
  if (waitMs) looking = setTimeout(() => lookForRecording(later), waitMs);
}

/** @param {number[]} later the waits to further looks, if there is none yet */
async function lookForRecording(later) {
  const now = await ask(pathOf(sid)).catch(() => call);
  if (isLive() || now.state !== "ended") return;
  change(now);
  if (!(await showPlayer())) awaitRecording(later);
}

const feed = new Feed(sid, hear, (state, waitMs) => {
  if (state === "live") conversation.doubtInterims();
  else if (state !== "connecting") services.end(); // how they are now, nobody knows
  line = [state, waitMs];
  showLine();
});

// --- The recording, and links to a second -----------------------------------------------------------------------------

/** @returns {Promise<boolean>} whether there is something to play */
async function showPlayer() {
  if (isLive() || !call.recorded) return false;
  player ??= new Player(sid, conversation);
  return player.open();
}

function goToFragment() {
  const ms = secondOf(location.hash);
  conversation.unmark();
  follow.release();
  if (ms === null) return;
  const view = conversation.markAt(ms);
  if (view) follow.goTo(view.element);
  player?.seek(ms);
}

addEventListener("hashchange", goToFragment);
byId("conversation").addEventListener("click", (event) => {
  const link = event.target.closest("a.time");
  if (link && link.hash === location.hash) goToFragment(); // which is no change of the address
});
setInterval(() => call && isLive() && tick(), TICK_MS);
makeCopying();
makeDialogs(sid);
makeExports(sid);
begin().catch((trouble) => say(byId("trouble"), trouble.message));

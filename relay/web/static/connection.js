// The connection's state, always in view.

import { byId, element } from "./element.js";
import { announce } from "./announcer.js";

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  waiting: "Reconnecting",
  offline: "Offline",
  ended: "Call ended",
  gone: "No longer shown",
  "logged-out": "Logged out",
};
const LINK_ENDED = "Link expired: ask for a new one"; // to those who came by one, and have nothing to log in with
const TOLD = ["offline", "waiting", "logged-out", "gone", "ended"]; // to those who hear the page, and "live" after one of these

let countdown = 0;
let told = "";

/** @param {keyof WORDS} state @param {number} waitMs until the next try */
export function showConnection(state, waitMs) {
  const place = byId("connection");
  clearInterval(countdown);
  place.dataset.state = state;
  showWords(place, state, waitMs);
  if (state === "waiting") {
    const until = Date.now() + waitMs;
    countdown = setInterval(() => showWords(place, state, until - Date.now()), 1000);
  }
  tell(state);
}

/** @param {HTMLElement} place @param {keyof WORDS} state @param {number} waitMs */
function showWords(place, state, waitMs) {
  const words = place.querySelector(".words");
  const seconds = Math.max(1, Math.ceil(waitMs / 1000));
  words.textContent = state === "waiting" ? `Reconnecting in ${seconds} s` : wordsFor(state);
  if (state === "logged-out" && !isGuest()) words.append(" ", element("a", { href: loginPath() }, "Log in"));
}

/** @param {keyof WORDS} state */
function wordsFor(state) {
  return state === "logged-out" && isGuest() ? LINK_ENDED : WORDS[state];
}

/** Whether this visitor came by a link to one call. */
function isGuest() {
  return "guest" in byId("connection").dataset;
}

function loginPath() {
  return `/login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`;
}

/** @param {keyof WORDS} state */
function tell(state) {
  if (state === told || !(TOLD.includes(state) || (state === "live" && told))) return;
  told = state;
  announce(state === "live" ? "Connected again." : `${wordsFor(state)}.`);
}

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
const TOLD = ["offline", "waiting", "logged-out", "ended"]; // to those who hear the page, and "live" after one of these

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
  words.textContent = state === "waiting" ? `Reconnecting in ${seconds} s` : WORDS[state];
  if (state === "logged-out") words.append(" ", element("a", { href: loginPath() }, "Log in"));
}

function loginPath() {
  return `/login?next=${encodeURIComponent(location.pathname + location.search)}`;
}

/** @param {keyof WORDS} state */
function tell(state) {
  if (state === told || !(TOLD.includes(state) || (state === "live" && told))) return;
  told = state;
  announce(state === "live" ? "Connected again." : `${WORDS[state]}.`);
}

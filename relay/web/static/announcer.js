// What those hear who do not see the page: one polite region, not faster than it can be read out.

import { byId } from "./element.js";

const EVERY_MS = 2500;
const MOST = 4; // sentences that wait; of a flood, the newest are told

/** @type {string[]} */
let waiting = [];
let timer = 0;

/** @param {string} sentence */
export function announce(sentence) {
  waiting = [...waiting, sentence].slice(-MOST);
  timer ||= setTimeout(tell, 200);
}

function tell() {
  byId("announcer").textContent = waiting.join(" ");
  waiting = [];
  timer = setTimeout(() => {
    timer = 0;
    if (waiting.length) tell();
  }, EVERY_MS);
}

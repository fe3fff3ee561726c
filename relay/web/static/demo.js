// The demo call, started from the page.

import { ask, pathOf, send } from "./api.js";
import { byId } from "./element.js";

const LOOK_EVERY_MS = 500;
const LOOKS = 20;

export function makeDemo() {
  byId("demo-call")?.addEventListener("click", start);
}

async function start() {
  const [button, told] = [byId("demo-call"), byId("demo-told")];
  button.disabled = true;
  told.textContent = "Dialling; this takes a few seconds.";
  try {
    const { call_sid: sid } = await send("/demo-call");
    await untilKept(sid);
    location.href = `/calls/${encodeURIComponent(sid)}`;
  } catch (trouble) {
    told.textContent = trouble.message;
    button.disabled = false;
  }
}

/** A call's audio flows a moment before the call is in the database. @param {string} sid */
async function untilKept(sid) {
  for (let look = 1; ; look++) {
    try {
      return await ask(pathOf(sid));
    } catch (trouble) {
      if (look === LOOKS) throw trouble;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  }
}

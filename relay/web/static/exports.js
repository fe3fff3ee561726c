// The call as a file. A link that downloads shows nothing but the file, so whether there is one is asked before.

import { ask, pathOf } from "./api.js";
import { byId, say } from "./element.js";

/** @param {string} sid */
export function makeExports(sid) {
  for (const link of document.querySelectorAll("a[download]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      download(sid, link);
    });
  }
}

/** @param {string} sid @param {HTMLAnchorElement} link */
async function download(sid, link) {
  try {
    await ask(pathOf(sid));
    say(byId("trouble"), "");
    link.cloneNode().click(); // a copy, which nobody listens to
  } catch (trouble) {
    say(byId("trouble"), trouble.message);
  }
}

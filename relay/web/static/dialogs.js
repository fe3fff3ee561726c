// Sharing a call by a link, and deleting it: each asks in a dialog first.

import { ask, pathOf, send } from "./api.js";
import { byId, say } from "./element.js";

/** @param {string} sid */
export function makeDialogs(sid) {
  makeDialog("share");
  makeDialog("delete");
  byId("share-form")?.addEventListener("submit", (event) => {
    event.preventDefault();
    share(sid);
  });
  byId("delete-it")?.addEventListener("click", () => remove(sid));
}

/** @param {string} name */
function makeDialog(name) {
  const [button, dialog] = [byId(name), byId(`${name}-dialog`)];
  button?.addEventListener("click", () => dialog.showModal());
  dialog?.querySelector("[data-closes]").addEventListener("click", () => dialog.close());
}

/** @param {string} sid */
async function share(sid) {
  try {
    const { url, expires_at: until } = await send(`${pathOf(sid)}/share`, { hours: Number(byId("hours").value) });
    byId("link").value = url;
    byId("until").textContent = `It ends on ${new Date(until).toLocaleString([], { dateStyle: "long", timeStyle: "short" })}.`;
    byId("shared").hidden = false;
    byId("link").select();
    say(byId("share-trouble"), "");
  } catch (trouble) {
    say(byId("share-trouble"), trouble.message);
  }
}

/** @param {string} sid */
async function remove(sid) {
  try {
    await ask(pathOf(sid), { method: "DELETE" });
    location.href = "/";
  } catch (trouble) {
    say(byId("delete-trouble"), trouble.message);
  }
}

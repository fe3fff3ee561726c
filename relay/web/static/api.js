// The API, asked as this visitor.

import { setClock } from "./times.js";

/** What the server, or the lack of one, had against it; `message` is a sentence to show. */
export class Refused extends Error {
  /** @param {number} status 0: no answer came @param {string} sentence */
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [how]
 * @returns {Promise<any>} the JSON that was answered; null if there is none
 */
export async function ask(path, how = {}) {
  const answer = await reached(path, how);
  if (!answer.ok) throw await refusal(answer);
  return answer.status === 204 ? null : answer.json();
}

/** @param {string} path @param {object} body @returns {Promise<any>} */
export function send(path, body = {}) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** @param {string} path @param {RequestInit} [how] */
export async function reached(path, how = {}) {
  try {
    const answer = await fetch(path, { ...how, credentials: "same-origin", redirect: "error" });
    setClock(answer.headers.get("Date"));
    return answer;
  } catch (trouble) {
    if (how.signal?.aborted) throw trouble;
    throw new Refused(0, "The server cannot be reached.");
  }
}

/** @param {Response} answer */
export async function refusal(answer) {
  if (answer.status === 401) return new Refused(401, "You are logged out.");
  const said = await answer.json().catch(() => ({}));
  return new Refused(answer.status, said.detail || `The server answered ${answer.status}.`);
}

/** @param {string} sid */
export function pathOf(sid) {
  return `/api/calls/${encodeURIComponent(sid)}`;
}

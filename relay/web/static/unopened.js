// The last stream that Twilio could not open, and what to do about it: shown until a later call begins.

import { announce } from "./announcer.js";
import { byId, say } from "./element.js";
import { moment } from "./times.js";

/** @typedef {{call_sid: string, failed_at: string, error: string, advice: string}} Failure */

export class Unopened {
  constructor() {
    /** @type {Failure|null} */
    this.failure = null;
  }

  /** @param {Failure} failure */
  tell(failure) {
    if (failure.failed_at !== this.failure?.failed_at) announce(`A call did not come through. ${failure.advice}`);
    this.failure = failure;
  }

  /** Forgets it if this call has come through since then, or after all. @param {import("./call_facts.js").Call} call */
  look(call) {
    if (!this.failure) return;
    const failedAt = Date.parse(this.failure.failed_at);
    const isLater = call.streams.some((stream) => Date.parse(stream.started_at) >= failedAt);
    if (isLater || call.call_sid === this.failure.call_sid) this.failure = null;
  }

  /** @param {boolean} isWanted */
  show(isWanted) {
    byId("nobody-yet").hidden = this.failure !== null;
    byId("unopened").hidden = !this.failure || !isWanted;
    if (!this.failure) return;
    byId("unopened-at").textContent = moment(this.failure.failed_at);
    say(byId("unopened-error"), this.failure.error);
    say(byId("unopened-advice"), this.failure.advice);
  }
}

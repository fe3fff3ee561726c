// What is known of a call beside its words, as it is shown.

import { serverNow } from "./times.js";

/** @typedef {{stream_sid: string, started_at: string, ended_at: string|null, offset_ms: number, services: string[]}} Stream */
/** @typedef {{call_sid: string, state: string, caller: string, called: string, started_at: string, ended_at: string|null,
 *             duration_ms: number, recorded: boolean, services: string[], streams: Stream[]}} Call */

const UNKNOWN = "Unknown number";

/** @param {{caller: string, called: string}} call */
export function partiesOf(call) {
  return [call.caller || UNKNOWN, call.called || UNKNOWN];
}

/** Whether it is known who called, or who was called. @param {{caller: string, called: string}} call */
export function isNumbered(call) {
  return Boolean(call.caller || call.called);
}

/** "+15550100 to +15550199", or "Call CA…123456". @param {Call} call */
export function titleOf(call) {
  if (!isNumbered(call)) return `Call ${call.call_sid.slice(0, 2)}…${call.call_sid.slice(-6)}`;
  return partiesOf(call).join(" to ");
}

/** How far a call has come: a live one by the clock, since it is told of now and again only. @param {Call} call */
export function durationOf(call) {
  const live = call.streams.findLast((stream) => stream.ended_at === null);
  if (call.state !== "live" || !live) return call.duration_ms;
  return Math.max(call.duration_ms, live.offset_ms + serverNow() - Date.parse(live.started_at));
}

/** A call as its beginning is told in the feed. @param {any} data @returns {Call} */
export function callFrom(data) {
  return {
    call_sid: data.call_sid,
    state: "live",
    caller: data.caller ?? "",
    called: data.called ?? "",
    started_at: data.started_at ?? data.created_at,
    ended_at: null,
    duration_ms: 0,
    recorded: false,
    services: data.services ?? [],
    streams: [streamFrom(data)],
  };
}

/** @param {any} data of call.started or call.resumed @returns {Stream} */
export function streamFrom(data) {
  return {
    stream_sid: data.stream_sid,
    started_at: data.started_at ?? data.created_at,
    ended_at: null,
    offset_ms: data.offset_ms ?? 0,
    services: data.services ?? [],
  };
}

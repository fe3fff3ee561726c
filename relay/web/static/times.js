// Times as people read them. What ends in Ms is milliseconds.

const HOUR = 3600;
const MATTERS_MS = 5000; // a clock that is wrong by less is left alone: the server's comes in whole seconds

let aheadMs = 0; // by how much the server's clock is ahead of ours

/** The server's time now, in milliseconds since 1970. */
export function serverNow() {
  return Date.now() + aheadMs;
}

/** @param {string|null} date the header of an answer that has just come */
export function setClock(date) {
  const ahead = Date.parse(date ?? "") - Date.now();
  aheadMs = Math.abs(ahead) > MATTERS_MS ? ahead : 0;
}

/** "1:23", or "1:02:03" from an hour on. @param {number} ms */
export function clock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [hours, minutes, rest] = [Math.floor(seconds / HOUR), Math.floor((seconds % HOUR) / 60), seconds % 60];
  const two = (/** @type {number} */ count) => String(count).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** "1 minute 23 seconds", for those who hear the page. @param {number} ms */
export function spoken(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const counts = [[Math.floor(seconds / HOUR), "hour"], [Math.floor((seconds % HOUR) / 60), "minute"], [seconds % 60, "second"]];
  const said = counts.filter(([count]) => count).map(([count, unit]) => `${count} ${unit}${count === 1 ? "" : "s"}`);
  return said.join(" ") || "0 seconds";
}

/** "0.3 s", "12 s". @param {number} ms */
export function length(ms) {
  const seconds = ms / 1000;
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

/** The fragment that leads to a second of a call: "#t=83.4". @param {number} ms */
export function fragment(ms) {
  return `#t=${Math.round(ms / 100) / 10}`;
}

/** The second that a fragment leads to; null if it leads to none. @param {string} hash */
export function secondOf(hash) {
  const found = /^#t=(\d{1,6}(?:\.\d{1,3})?)$/.exec(hash);
  return found && Number(found[1]) * 1000;
}

/** "Today, 14:03", "Yesterday, 14:03", "19 November, 14:03". @param {string} at ISO 8601 */
export function moment(at) {
  const then = new Date(at);
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return `${day(then)}, ${time}`;
}

/** @param {Date} then */
function day(then) {
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  if (then >= today) return "Today";
  const yesterday = new Date(today);
  yesterday.setDate(today.getDate() - 1); // a day may have 23 hours, or 25
  if (then >= yesterday) return "Yesterday";
  const year = then.getFullYear() === today.getFullYear() ? undefined : "numeric";
  return then.toLocaleDateString([], { day: "numeric", month: "long", year });
}

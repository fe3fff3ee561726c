// Plays a call's recording, with the words marked as they are said.

import { announce } from "./announcer.js";
import { ask, pathOf } from "./api.js";
import { byId, isInView, isShown } from "./element.js";
import { clock, spoken } from "./times.js";
import { Waveform } from "./waveform.js";

const STEP_MS = 5000;
const PAGE_MS = 30_000;
const POINTS = 1200;
const UNPLAYABLE = "The recording cannot be played.";

export class Player {
  /** @param {string} sid @param {import("./conversation.js").Conversation} conversation */
  constructor(sid, conversation) {
    this.sid = sid;
    this.conversation = conversation;
    this.audio = byId("audio");
    this.waves = byId("waves");
    this.waveform = new Waveform(this.waves);
    this.durationMs = 0;
    this.atMs = 0;
    this.marked = [];
    this.listen();
  }

  /**
   * Shows the waves; without them there is nothing to play. Again, when the call went on and ended anew.
   * @returns {Promise<boolean>} whether there is something to play
   */
  async open() {
    try {
      const { duration_ms: durationMs, ...peaks } = await ask(`${pathOf(this.sid)}/waveform.json?points=${POINTS}`);
      this.durationMs = durationMs;
      byId("player").hidden = false;
      this.waveform.show(peaks);
    } catch {
      return false;
    }
    this.audio.src = `${pathOf(this.sid)}/recording.wav`;
    this.waves.setAttribute("aria-valuemax", String(Math.round(this.durationMs / 1000)));
    this.conversation.place.dataset.plays = "";
    this.show();
    return true;
  }

  listen() {
    const { audio, waves } = this;
    byId("play").addEventListener("click", () => this.toggle());
    byId("speed").addEventListener("change", (event) => this.hasten(Number(event.target.value)));
    byId("player").addEventListener("keydown", (event) => this.key(event));
    for (const kind of ["pointerdown", "pointermove"]) waves.addEventListener(kind, (event) => this.drag(event));
    for (const kind of ["play", "pause", "ended"]) audio.addEventListener(kind, () => this.showPlaying());
    audio.addEventListener("loadedmetadata", () => this.seek(this.atMs)); // what was sought before, Safari has forgotten
    audio.addEventListener("timeupdate", () => this.come());
    audio.addEventListener("error", () => this.fail());
    this.conversation.place.addEventListener("pointerover", (event) => this.spell(event.target));
    this.conversation.place.addEventListener("click", (event) => this.clicked(event));
  }

  toggle() {
    if (this.audio.paused) this.play();
    else this.audio.pause();
  }

  play() {
    if (this.audio.error) this.load();
    this.audio.play().catch(() => this.showPlaying());
  }

  /** @param {number} rate also of what is loaded later: a browser begins that at the default */
  hasten(rate) {
    this.audio.defaultPlaybackRate = this.audio.playbackRate = rate;
  }

  /** Has what failed anew: a browser does that only when told to. */
  load() {
    this.audio.load();
    this.seek(this.atMs);
  }

  /** The sound cannot be had, which by the standard pauses nothing (https://html.spec.whatwg.org/multipage/media.html). */
  fail() {
    this.audio.pause();
    this.show();
    announce(UNPLAYABLE);
  }

  /** @param {number} ms */
  seek(ms) {
    this.atMs = Math.min(Math.max(0, ms), this.durationMs);
    this.audio.currentTime = this.atMs / 1000;
    this.unmark(); // what was said where we come from was not said just before
    this.show();
  }

  /** The sound has come further. */
  come() {
    if (this.audio.seeking) return;
    this.atMs = Math.round(this.audio.currentTime * 1000); // it may be a hair less than what was sought
    this.show();
  }

  // --- What is asked for ----------------------------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  key(event) {
    const isOnSlider = event.target === this.waves;
    if (event.key === " " && isOnSlider) this.toggle();
    else if (isOnSlider && event.key in this.moves) this.moves[event.key](event.shiftKey);
    else return;
    event.preventDefault();
  }

  moves = {
    ArrowRight: (byWord) => (byWord ? this.step(1) : this.seek(this.atMs + STEP_MS)),
    ArrowLeft: (byWord) => (byWord ? this.step(-1) : this.seek(this.atMs - STEP_MS)),
    ArrowUp: () => this.seek(this.atMs + STEP_MS),
    ArrowDown: () => this.seek(this.atMs - STEP_MS),
    PageUp: () => this.seek(this.atMs + PAGE_MS),
    PageDown: () => this.seek(this.atMs - PAGE_MS),
    Home: () => this.seek(0),
    End: () => this.seek(this.durationMs),
  };

  /** To the next word, or the one before. @param {1|-1} way */
  step(way) {
    const begins = this.conversation.order.flatMap(({ segment }) => segment.words.map((word) => word.start_ms)).sort((one, other) => one - other);
    const next = way > 0 ? begins.find((ms) => ms > this.atMs + 1) : begins.findLast((ms) => ms < this.atMs - 1);
    if (next !== undefined) this.seek(next);
  }

  /** @param {PointerEvent} event */
  drag(event) {
    if (event.buttons !== 1) return;
    const canvas = this.waves.querySelector("canvas").getBoundingClientRect();
    this.seek(((event.clientX - canvas.left) / canvas.width) * this.durationMs);
  }

  /** @param {Element} target */
  spell(target) {
    const article = target.closest(".segment");
    if (article && this.durationMs) this.conversation.views.get(article)?.spell();
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    if (!event.target.closest(".text") || !getSelection().isCollapsed) return;
    this.spell(event.target);
    const word = document.elementFromPoint(event.clientX, event.clientY)?.closest(".word");
    if (!word) return;
    this.seek(Number(word.dataset.startMs));
    this.play();
  }

  // --- What is shown --------------------------------------------------------------------------------------------------

  show() {
    byId("position").textContent = this.audio.error ? UNPLAYABLE : `${clock(this.atMs)} of ${clock(this.durationMs)}`;
    this.waves.setAttribute("aria-valuenow", String(Math.round(this.atMs / 1000)));
    this.waves.setAttribute("aria-valuetext", `${spoken(this.atMs)} of ${spoken(this.durationMs)}`);
    this.waves.style.setProperty("--at", String(this.durationMs ? this.atMs / this.durationMs : 0));
    this.mark();
  }

  showPlaying() {
    byId("play").textContent = this.audio.paused ? "Play" : "Pause";
    cancelAnimationFrame(this.frame);
    if (!this.audio.paused) this.frame = requestAnimationFrame(() => this.run());
  }

  run() {
    this.come();
    this.frame = requestAnimationFrame(() => this.run());
  }

  /** Marks the words that are said now; in a pause, those before it stay marked. */
  mark() {
    const words = this.conversation.around(this.atMs).map((view) => wordAt(view, this.atMs)).filter(Boolean);
    if (!words.length || words.every((word) => word.hasAttribute("aria-current")) && words.length === this.marked.length) return;
    const before = this.marked.filter(isShown);
    const isFollowed = !before.length || before.some(isInView);
    this.unmark();
    for (const word of words) word.setAttribute("aria-current", "true");
    this.marked = words;
    const [newest] = words.filter(isShown).sort((one, other) => other.dataset.startMs - one.dataset.startMs);
    if (isFollowed && !this.audio.paused && newest && !isInView(newest)) newest.scrollIntoView({ block: "center" });
  }

  unmark() {
    for (const word of this.marked) word.removeAttribute("aria-current");
    this.marked = [];
  }
}

/** @param {import("./segment.js").SegmentView} view @param {number} ms @returns {Element|undefined} */
function wordAt(view, ms) {
  view.spell();
  return [...view.text.querySelectorAll(".word")].findLast((word) => Number(word.dataset.startMs) <= ms);
}

// Keeps the newest words in view, unless the reader has gone back to earlier ones.

import { isInView } from "./element.js";

const HELD_MS = 2000; // until what is around the place that was gone to has its real height
const NEAR = 120; // pixels from the end that still count as the end

export class Follow {
  /** @param {HTMLElement} growing @param {HTMLButtonElement} button "Jump to now" */
  constructor(growing, button) {
    this.button = button;
    this.isOn = false;
    this.isLive = false;
    this.held = null;
    this.lastY = scrollY;
    new ResizeObserver(() => this.keepUp()).observe(growing);
    addEventListener("scroll", () => this.scrolled(), { passive: true });
    for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"]) addEventListener(kind, () => this.release(), { passive: true });
    button.addEventListener("click", () => this.jump());
  }

  /** @param {boolean} isLive whether there is a now to follow */
  set(isLive) {
    this.isLive = isLive;
    this.show();
  }

  /** Goes to the end and stays there. */
  jump() {
    this.isOn = true;
    this.keepUp();
    this.show();
  }

  /** Goes to an element and leaves the reader there. @param {Element} element */
  goTo(element) {
    this.isOn = false;
    this.held = element;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.release(), HELD_MS);
    element.scrollIntoView({ block: "center", behavior: "instant" });
    this.show();
  }

  keepUp() {
    if (this.isOn && this.isLive) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
    this.keepHeld();
    this.show();
  }

  /** What comes into view gets its real height only then, which may move all that follows. */
  keepHeld() {
    if (this.held && !isInView(this.held)) requestAnimationFrame(() => this.held?.scrollIntoView({ block: "center", behavior: "instant" }));
  }

  release() {
    this.held = null;
  }

  get isAtEnd() {
    return document.documentElement.scrollHeight - innerHeight - scrollY < NEAR;
  }

  /** Growing content never moves the view up: only a reader does. */
  scrolled() {
    if (this.isAtEnd) this.isOn = true;
    else if (scrollY < this.lastY - 1) this.isOn = false;
    this.lastY = scrollY;
    this.keepHeld();
    this.show();
  }

  show() {
    this.button.hidden = !this.isLive || this.isOn || this.isAtEnd;
  }
}

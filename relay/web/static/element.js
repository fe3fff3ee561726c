// Elements, made from names and texts: what came from outside only ever becomes a text node.

/**
 * @param {string} name
 * @param {Record<string, unknown>} [attributes] "class", "data-...", "aria-..."; null and false are left out
 * @param {...(Node|string)} children
 * @returns {HTMLElement}
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** @param {string} id @returns {any} the element of this id, which the template has */
export function byId(id) {
  return document.getElementById(id);
}

/** Shows a sentence, or takes it away. @param {HTMLElement} where @param {string} sentence */
export function say(where, sentence) {
  if (where.textContent !== sentence) where.textContent = sentence;
  where.hidden = !sentence;
}

/** Whether its middle can be seen: what sticks to the window's edges covers what is beneath. @param {Element} one */
export function isInView(one) {
  const { top, bottom } = one.getBoundingClientRect();
  const middle = (top + bottom) / 2;
  return isShown(one) && ceiling() < middle && middle < floor();
}

/** Whether it is shown anywhere on the page. @param {HTMLElement} one */
export function isShown(one) {
  return one.offsetParent !== null;
}

/** Where what scrolls comes out from under the header and the names of the columns. */
export function ceiling() {
  return Math.max(0, ...[...document.querySelectorAll(".top, .sides")].map((one) => one.getBoundingClientRect().bottom));
}

/** Where what scrolls goes under the player. */
function floor() {
  const player = byId("player");
  return player && !player.hidden ? player.getBoundingClientRect().top : innerHeight;
}

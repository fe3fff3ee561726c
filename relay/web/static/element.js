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

/** @param {Element} one */
export function isInView(one) {
  const { top, bottom } = one.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

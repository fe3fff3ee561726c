// Buttons that copy: `data-copies` is the id of what they copy.

import { byId } from "./element.js";

const SAID_FOR_MS = 4000;

export function makeCopying() {
  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.addEventListener("click", () => copy(button));
  }
}

/** @param {HTMLElement} button */
async function copy(button) {
  const source = byId(button.dataset.copies);
  const told = button.nextElementSibling;
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent.trim());
    told.textContent = "Copied";
  } catch {
    select(source);
    told.textContent = "Selected; press Ctrl+C or Command+C";
  }
  setTimeout(() => (told.textContent = ""), SAID_FOR_MS);
}

/** A browser lets pages copy over https only, and on this machine. @param {any} source */
function select(source) {
  if (source.select) return source.select();
  getSelection()?.selectAllChildren(source);
}

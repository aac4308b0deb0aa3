// Elements: found by id, made from text. Text never becomes markup.

export const $ = (id) => document.getElementById(id);

/** Make an element: make("p", {class: "facts"}, "text", otherElement). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function list(element, texts) {
  element.replaceChildren(...texts.map((text) => make("li", {}, text)));
}

/** A colour or length of the style sheet, as it is now: light and dark differ. */
export const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Call a function whenever the browser changes between light and dark. */
export function onScheme(call) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", call);
}

// Errors of the service, shown as they are: every violation, with its place and remedy.

import { Problem } from "./client.js";
import { make } from "./dom.js";

/** Show an error in an element; null clears it. */
export function show(element, error) {
  element.replaceChildren();
  if (error === null) return;
  if (error.name === "AbortError") return;
  const content = error instanceof Problem ? error.content : { title: "This page failed", detail: String(error), errors: [] };
  if (!(error instanceof Problem)) console.error(error);
  const box = make("div", { class: "problem" }, make("p", {}, make("strong", {}, content.title), `: ${content.detail}`));
  const items = (content.errors ?? []).map((item) =>
    make("li", {}, make("span", { class: "where" }, item.pointer), ` ${item.detail} ${item.remedy}`));
  if (items.length) box.append(make("ul", {}, ...items));
  element.append(box);
}

/** Mark the fields of a form that violations point at. */
export function mark(form, error) {
  for (const field of form.elements) field.removeAttribute("aria-invalid");
  if (!(error instanceof Problem)) return;
  let first = null;
  for (const item of error.content.errors ?? []) {
    const name = item.pointer.split("/").findLast((part) => form.elements.namedItem(part));
    const field = name && form.elements.namedItem(name);
    if (!field) continue;
    field.setAttribute("aria-invalid", "true");
    first ??= field;
  }
  first?.focus();
}

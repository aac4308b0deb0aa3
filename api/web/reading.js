// How a file is to be read: what it does not say itself, as the service takes it.

import { $ } from "./dom.js";

/** Return what the fields say, and nothing else. */
export function readingOf() {
  const reading = {};
  for (const name of ["num_experts", "top_k"]) {
    if ($(name).validity.badInput) reading[name] = "no number"; // the service says what is wrong
    else if ($(name).value !== "") reading[name] = $(name).valueAsNumber;
  }
  for (const name of ["ids_beyond_experts", "phase"]) if ($(name).value) reading[name] = $(name).value;
  if ($("drop_dummy_rows").value) reading.drop_dummy_rows = true;
  if ($("layer_base").value) reading.layer_base = Number($("layer_base").value);
  if ($("layers").value.trim()) reading.layers = layersOf($("layers").value);
  return reading;
}

/** Return the layers of `3,5-9`; what is no number is left for the service to refuse. */
function layersOf(text) {
  return text.split(",").flatMap((part) => {
    const [first, last] = part.split("-").map((number) => (/^\s*\d{1,6}\s*$/.test(number) ? Number(number) : number));
    if (last === undefined) return [first];
    if (typeof first === "string" || typeof last === "string" || last < first) return [part];
    return Array.from({ length: Math.min(last - first + 1, 100_000) }, (_, step) => first + step);
  });
}

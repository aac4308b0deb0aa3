// Whether the plan is worth it: the verdict, the parts of a step, and the time of each layer, before and after.

import { $, list, make } from "./dom.js";
import { lineChart } from "./linechart.js";
import { percent, short } from "./numbers.js";

/** Show the advice of a summary; nothing where time was not asked for. */
export function verdict(advice) {
  $("verdict").hidden = !advice;
  if (!advice) return;
  $("verdict-sentence").textContent = advice.sentence;
  $("verdict-sentence").dataset.verdict = advice.verdict;
  $("verdict-what").textContent = `A ${advice.phase} pass of ${advice.model} on ${advice.machine}, on tokens that the search has not seen.`;
  const column = (text) => make("th", { scope: "col" }, text);
  const rows = advice.parts.map(({ name, before, after }) => make("tr", {},
    make("th", { scope: "row" }, name.startsWith("messages") ? `${name}, per token and layer` : `${name}, ms`),
    make("td", {}, short(before)), make("td", { class: "after" }, short(after)),
    make("td", { class: "change" }, before ? `${after < before ? "−" : "+"}${percent(Math.abs(after / before - 1))}` : "–")));
  $("verdict-parts").replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, column("of a step"), ...["before", "after", "change"].map(column))), make("tbody", {}, ...rows)));
  lineChart($("layer-chart"), {
    title: "Time of each layer", note: "milliseconds of dispatch, experts, combine and the rest",
    x: { label: "layer", values: advice.layers.map((layer) => layer.layer_id), whole: true },
    series: [
      { label: "before", values: advice.layers.map((layer) => layer.before_ms), colour: "--before", dash: [6, 4] },
      { label: "after", values: advice.layers.map((layer) => layer.after_ms), colour: "--after" },
    ],
  });
  list($("verdict-reasons"), advice.reasons);
}

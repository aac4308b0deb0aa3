// A series: drift of each window against sampling noise, and the imbalance that a plan has in each.

import { all, get } from "./client.js";
import { $, make } from "./dom.js";
import { lineChart } from "./linechart.js";
import { short } from "./numbers.js";
import { show } from "./problems.js";

let plan = null;
let turn = 0;

export function setUp() {
  $("series").addEventListener("change", () => draw().catch((error) => show($("series-problem"), error)));
  refresh().catch((error) => show($("series-problem"), error));
}

/** Name the plan whose imbalance is shown; null for none. */
export function showPlan(id) {
  plan = id;
  if ($("series").value) draw().catch((error) => show($("series-problem"), error));
}

async function refresh() {
  const known = (await all("v1/series")).filter((item) => item.num_windows);
  $("series-section").hidden = !known.length;
  $("series").replaceChildren(make("option", { value: "" }, "choose"),
    ...known.map((item) => make("option", { value: item.id }, `${item.name ?? item.id.slice(0, 15)} (${item.num_windows} windows)`)));
}

async function draw() {
  const mine = (turn += 1), id = $("series").value;
  show($("series-problem"), null);
  $("series-view").hidden = !id;
  if (!id) return;
  const found = await get(`v1/series/${id}`);
  const loads = await loadsOf(id);
  if (mine !== turn) return;
  const windows = found.windows.slice(-loads.length);
  const drifts = windows.map((window) => window.drift);
  lineChart($("drift-chart"), {
    title: "Drift of each window", note: "share of assignments that went to other experts, and what it is by sampling alone",
    x: { label: "window", values: windows.map((window) => window.number), whole: true },
    series: [
      { label: "drift", values: drifts.map((drift) => drift?.size ?? null), colour: "--after" },
      { label: "sampling noise", values: drifts.map((drift) => drift?.noise ?? null), colour: "--before", dash: [6, 4] },
    ], include: [0],
  });
  lineChart($("series-chart"), {
    title: plan ? "Imbalance under the plan" : "Hottest expert",
    note: plan ? "busiest GPU over the mean in each window, mean over layers" : "its share of its layer's tokens, mean over layers",
    x: { label: "window", values: windows.map((window) => window.number), whole: true },
    series: [{ label: plan ? "busiest / mean" : "share", values: loads.map((load) => (plan ? load.imbalance : load.hottest_share)), colour: "--after" }],
    include: plan ? [1] : [0],
  });
  table(windows, found.alpha);
}

/** Loads with the plan's imbalance; without it where the plan is of another model. */
async function loadsOf(id) {
  if (plan) {
    try {
      return (await get(`v1/series/${id}/loads?plan=${plan}`)).windows;
    } catch (error) {
      plan = null;
    }
  }
  return (await get(`v1/series/${id}/loads`)).windows;
}

const said = (drift) => {
  if (!drift) return "–";
  if (drift.drifted === null) return "too little to tell";
  return drift.drifted ? `drifted, in ${drift.layers_drifted} layers` : "as before";
};

function table(windows, alpha) {
  const column = (text) => make("th", { scope: "col" }, text);
  const rows = windows.map((window) => make("tr", {},
    make("th", { scope: "row" }, `${window.number}: ${window.name ?? window.trace.slice(0, 19)}`),
    ...[short(window.drift?.size), short(window.drift?.noise), short(window.drift?.p_value)].map((text) => make("td", {}, text)),
    make("td", { class: window.drift?.drifted ? "after" : "change" }, said(window.drift))));
  $("windows").replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, ...["window", "drift", "noise", "p", ""].map(column))), make("tbody", {}, ...rows)));
  $("series-note").textContent = `Where nothing has changed, ${short(100 * alpha)} % of the windows are called drifted all the same.`;
}

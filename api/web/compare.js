// Before and after: the summary's figures, and the replay of every token through both plans.

import { get, post, send } from "./client.js";
import { $, make } from "./dom.js";
import { engineOf } from "./engine.js";
import { heatmap } from "./heatmap.js";
import { lineChart } from "./linechart.js";
import { count, fixed, percent, short } from "./numbers.js";
import { show } from "./problems.js";
import { verdict } from "./verdict.js";

const FIGURES = [
  ["Pairs that change GPU", (part) => part.context_coherent?.cross_gpu_fraction, percent],
  ["Pairs that change node", (part) => part.context_coherent?.cross_node_fraction, percent],
  ["Messages to other GPUs, per token and layer", (part) => part.dispatch?.remote_gpus, fixed],
  ["GPUs per token and layer", (part) => part.fanout_gpus, fixed],
  ["Busiest GPU / mean", (part) => part.imbalance_max_over_mean, fixed],
];
const passOf = (part, tokens) => part.per_pass?.find((item) => item.pass_tokens === tokens)?.imbalance_trtllm ?? undefined;
let turn = 0;

export function hide() {
  turn += 1;
  $("compare-section").hidden = true;
}

/** Compare a finished plan with the layout when nobody plans; resolves when all is drawn. */
export async function compare(plan) {
  const mine = (turn += 1);
  $("compare-section").hidden = false;
  $("replayed").hidden = true;
  show($("compare-problem"), null);
  const engine = engineOf(plan);
  const before = beforeOf(plan, engine);
  verdict(plan.summary?.advice);
  tell(plan, engine, before);
  table(plan.summary);
  if (plan.summary && plan.summary.tokens.fit === null) {
    $("replay-note").textContent = plan.summary.notes.join(" ");
    return;
  }
  $("replay-note").textContent = "Replaying every token through both plans…";
  try {
    const [base, after] = await replays(plan, before);
    if (mine !== turn) return;
    $("replay-note").textContent = `Below: all ${count(after.tokens)} tokens, replayed. ${after.notes.join(" ")}`;
    $("replayed").hidden = false;
    draw(base, after, plan.request.constraints.load_cap);
  } catch (error) {
    if (mine !== turn) return;
    $("replay-note").textContent = "";
    show($("compare-problem"), error);
  }
}

/** The solver of the plan to compare with, and what it is called. */
function beforeOf({ request, summary }, engine) {
  if (request.baseline !== null) return { name: request.baseline, solver: request.baseline, options: {} };
  const layout = summary?.baseline ?? engine?.default_layout ?? "contiguous";
  return { name: layout, solver: "contiguous", options: { layout } };
}

/** Say what the plan is compared with, and what was taken for granted where nobody named an engine. */
function tell({ request, plan }, engine, before) {
  const own = engine?.default_layout === before.name ? `, which ${engine.title} uses` : "";
  $("before-note").textContent = request.baseline === null ? `Before is the ${before.name} layout${own}${own ? "" : ", which engines use"} when nobody plans.`
    : `Before is the plan of ${before.name}.`;
  const straight = !engine && plan.provenance.objective?.execution === "context_coherent";
  $("travel-note").hidden = !straight;
  if (straight) {
    $("travel-note").textContent = "No engine was named: tokens were taken to go straight from layer to layer (ExFlow). "
      + "Most engines send them home after every layer: choose yours in step 2 and plan again.";
  }
}

/** Have the trace replayed: through the layout before (null where the constraints leave none), and the plan. */
async function replays(plan, { name, solver, options }) {
  const evaluate = (id) => post("v1/evaluations", { plan: id, trace: plan.trace });
  const after = await evaluate(plan.id);
  const objective = { ...plan.request.objective };
  if (plan.request.time?.machine && !plan.request.engine) objective.execution = "dispatch"; // as time takes it
  const body = { ...plan.request, time: {}, objective, solver, options, limits: {}, seeds: 1, start: null, hold_out: 0, hold_out_by: null, name: `${name}, to compare`, tags: [] };
  let base = await post("v1/plans", body, { headers: { Prefer: "wait=30" } });
  try {
    while (!base.finished_at) base = await get(`v1/plans/${base.id}`, { headers: { Prefer: "wait=30" } });
    return [base.plan ? await evaluate(base.id) : null, after];
  } finally {
    if (!base.finished_at) await send(`v1/plans/${base.id}/cancel`, { method: "POST" }).catch(() => {});
    send(`v1/plans/${base.id}`, { method: "DELETE" }).catch(() => {}); // made for this comparison only
  }
}

/** The figures of a plan on a part: of its tokens, or of the dumps of counts. */
const of = (plan, part) => plan?.[part] ?? plan?.counts?.[part];

function table(summary) {
  if (!summary) {
    $("figures").replaceChildren(make("p", { class: "facts" }, "A search that was stopped has no summary; the replay below has its figures."));
    return;
  }
  const { [summary.baseline]: base, plan } = summary.plans;
  const parts = [["fit", "fitted"], ["held_out", "held out"]].filter(([name]) => of(plan, name));
  if (!parts.length) parts.push(["expected_load", "expected"]);
  const tokensOf = (name) => (summary.tokens[name] ? `, ${count(summary.tokens[name])} tokens` : "");
  const column = (text) => make("th", { scope: "col" }, text);
  const over = parts.map(([name, text]) => make("th", { scope: "colgroup", colspan: "3" }, `${text}${tokensOf(name)}`));
  const head = parts.flatMap(() => ["before", "after", "change"].map(column));
  const figures = summary.objective.execution === "dispatch" ? [...FIGURES.slice(2), ...FIGURES.slice(0, 2)] : FIGURES; // what counts first
  const sizes = of(plan, parts[0][0]).per_pass ?? []; // as engines log it: mean over forward passes
  const passes = sizes.map(({ pass_tokens: tokens }) => [`… in passes of ${count(tokens)} tokens`, (part) => {
    const over = passOf(part, tokens);
    return over === undefined ? undefined : 1 + over;
  }, fixed]);
  const load = figures.findIndex(([name]) => name.startsWith("Busiest")) + 1;
  const rows = [...figures.slice(0, load), ...passes, ...figures.slice(load)].filter(([, pick]) => parts.some(([part]) => pick(of(plan, part)) || pick(of(base, part) ?? {})))
    .map(([name, pick, format]) => make("tr", {}, make("th", { scope: "row" }, name), ...parts.flatMap(([part]) => {
      const [before, after] = [of(base, part) ? pick(of(base, part)) : null, pick(of(plan, part))];
      const change = before && after !== undefined ? `${after < before ? "−" : "+"}${percent(Math.abs(after / before - 1))}` : "–";
      return [make("td", {}, format(before)), make("td", { class: "after" }, format(after)), make("td", { class: "change" }, change)];
    })));
  $("figures").replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, make("td"), ...over), make("tr", {}, column("figure"), ...head)), make("tbody", {}, ...rows)));
}

function draw(before, after, cap) {
  const both = [["before", before], ["after", after]].filter(([, found]) => found);
  const busiest = (found) => found.gpu_load.map((row) => Math.max(...row) / (row.reduce((sum, value) => sum + value, 0) / row.length));
  const layers = after.per_layer.layer_id;
  const lines = both.map(([name, found]) => ({ label: name, values: busiest(found), colour: `--${name}`, dash: name === "before" ? [6, 4] : undefined }));
  if (cap) lines.push({ label: "load cap", values: layers.map(() => cap), colour: "--bound", dash: [2, 4] });
  lineChart($("busiest-chart"), {
    title: "Busiest GPU of each layer", note: "its load, relative to the layer's mean; 1 is perfect balance",
    x: { label: "layer", values: layers, whole: true }, series: lines, include: [1],
  });
  const traffic = both.map(([, found]) => found.traffic_matrix.map((row, from) => row.map((value, to) => (from === to ? NaN : value))));
  const most = Math.max(1, ...traffic.flat(2).filter(Number.isFinite));
  const load = both.map(([, found]) => found.gpu_load.map((row) => {
    const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
    return row.map((value) => value / mean);
  }));
  const range = [Math.min(...load.flat(2)), Math.max(...load.flat(2))];
  $("traffic-before").hidden = $("load-before").hidden = before === null;
  both.forEach(([name, found], at) => {
    const away = traffic[at].flat().reduce((sum, value) => sum + (value || 0), 0);
    heatmap($(`traffic-${name}`), {
      values: traffic[at], low: 0, high: most, square: true,
      title: `Traffic between GPUs, ${name}`, note: `${count(away)} ${found.execution === "dispatch" ? "messages" : "pairs"} leave their GPU; from down, to across`,
      rowLabel: "From GPU", columnLabel: "to GPU", rowName: String, columnName: String,
      label: (from, to) => (from === to ? "stay" : count(found.traffic_matrix[from][to])),
      cellText: (from, to) => (from === to ? `${count(found.traffic_matrix[from][to])} stay` : count(found.traffic_matrix[from][to])),
    });
    heatmap($(`load-${name}`), {
      values: load[at], low: range[0], high: range[1],
      title: `Load per GPU, ${name}`, note: "relative to the layer's mean; layers down, GPUs across",
      rowLabel: "Layer", columnLabel: "GPU", rowName: (row) => String(layers[row]), columnName: String,
      label: (row, column) => fixed(load[at][row][column], 2),
      cellText: (row, column) => `${short(load[at][row][column])} × mean, ${count(found.gpu_load[row][column])} assignments`,
    });
  });
}

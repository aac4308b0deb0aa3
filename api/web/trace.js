// The trace that was chosen: what is known of it, its loads, and the affinity of two layers.

import { get } from "./client.js";
import { $, list, make } from "./dom.js";
import { heatmap } from "./heatmap.js";
import { count, percent, quantile, short } from "./numbers.js";
import { show } from "./problems.js";

let trace = null;
let shown = null; // the answer that is drawn
let plan = null; // orders the experts

/** Show a trace; resolves when its maps are drawn. */
export async function showTrace(chosen) {
  trace = chosen;
  plan = null;
  shown = null;
  $("trace-facts").textContent = factsOf(trace);
  list($("trace-notes"), trace.notes);
  $("order").value = "id";
  $("order").options[1].disabled = true;
  const layers = trace.layer_ids;
  $("pair").replaceChildren(...layers.slice(0, -1).map((layer, at) =>
    make("option", { value: String(layer) }, `${layer} and ${layers[at + 1]}`)));
  $("load-map").replaceChildren();
  $("affinity-map").replaceChildren();
  $("trace-view").hidden = false;
  await look();
}

/** Let the maps be ordered by the GPUs of a plan. */
export function showPlan(found) {
  plan = found;
  const possible = plan !== null && shown?.affinity && shown.experts_per_cell === 1;
  $("order").options[1].disabled = !possible;
  if (!possible) $("order").value = "id";
  if (shown?.affinity) drawAffinity();
}

export function setUp() {
  $("pair").addEventListener("change", look);
  $("order").addEventListener("change", drawAffinity);
}

async function look() {
  const asked = trace;
  const layer = $("pair").value;
  const paired = trace.kind !== "counts" && layer !== "";
  try {
    const answer = await get(`v1/traces/${trace.id}/affinity${paired && shown ? `?layer=${layer}` : ""}`);
    if (asked !== trace || (shown && layer !== $("pair").value)) return;
    const first = shown === null;
    shown = answer;
    show($("trace-problem"), null);
    if (first) {
      list($("trace-notes"), [...trace.notes, ...answer.notes]);
      drawLoad();
    }
    $("pair-controls").hidden = answer.affinity === null;
    if (answer.affinity) drawAffinity();
    else $("affinity-map").replaceChildren(make("p", { class: "facts" }, "No affinity: the trace has counts per expert only, or one layer."));
  } catch (error) {
    if (asked === trace) show($("trace-problem"), error);
  }
}

function factsOf({ name, id, kind, num_tokens: tokens, layer_ids: layers, num_experts: experts, top_k: topK }) {
  const parts = [`${layers.length} layers of ${count(experts)} experts`];
  if (topK !== null) parts.push(`top-${topK}`);
  if (tokens) parts.push(`${count(tokens)} tokens`);
  return `${name ?? id}: ${parts.join(", ")} (${kind}).`;
}

const cellName = (cell) => String(cell * shown.experts_per_cell);

function drawLoad() {
  const { load, layer_ids: layers, experts_per_cell: width } = shown;
  const relative = load.map((row) => {
    const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
    return row.map((value) => value / mean);
  });
  heatmap($("load-map"), {
    values: relative,
    low: 0,
    high: Math.max(...relative.map((row) => Math.max(...row))),
    title: "Load of the experts",
    note: `relative to the layer's mean; layers down, ${width > 1 ? `${width} experts per cell` : "experts"} across`,
    rowLabel: "Layer", columnLabel: "expert",
    rowName: (row) => String(layers[row]), columnName: cellName,
    cellText: (row, column) => `${short(relative[row][column])} × mean, ${count(load[row][column])} assignments`,
  });
}

function drawAffinity() {
  const { affinity, layer_ids: layers, layer_id: layer, next_layer_id: next } = shown;
  const byGpu = $("order").value === "gpu";
  const all = affinity.map((_, index) => index);
  const [down, across] = byGpu ? [orderOf(layer), orderOf(next)] : [{ order: all, breaks: [] }, { order: all, breaks: [] }];
  const rowSums = affinity.map((row) => row.reduce((sum, value) => sum + value, 0));
  const columnSums = affinity[0].map((_, column) => affinity.reduce((sum, row) => sum + row[column], 0));
  const total = rowSums.reduce((sum, value) => sum + value, 0);
  const lift = affinity.map((row, i) => row.map((pairs, j) => (pairs * total) / (rowSums[i] * columnSums[j])));
  heatmap($("affinity-map"), {
    values: down.order.map((i) => across.order.map((j) => lift[i][j])),
    low: 0,
    high: Math.max(1, quantile(lift.flat(), .995)),
    open: true,
    square: true,
    title: `Affinity of layers ${layer} and ${next}`,
    note: byGpu ? "experts in order of the plan's GPUs: pairs inside the squares stay on a GPU"
      : `pairs, relative to independent layers; experts of layer ${layer} down, of layer ${next} across`,
    rowLabel: `Layer ${layer} expert`, columnLabel: `layer ${next} expert`,
    rowName: (row) => cellName(down.order[row]), columnName: (column) => cellName(across.order[column]),
    rowBreaks: down.breaks, columnBreaks: across.breaks,
    cellText: (row, column) => {
      const [i, j] = [down.order[row], across.order[column]];
      return `${short(lift[i][j])} × expected, ${count(affinity[i][j])} pairs (${percent(affinity[i][j] / total, 2)})`;
    },
  });
}

/** Experts of a layer by the first GPU that has them, and where a GPU begins. */
function orderOf(layer) {
  const map = plan.physical_to_logical_map[plan.layer_ids.indexOf(layer)];
  const order = [], breaks = [], seen = new Set();
  map.forEach((expert, slot) => {
    if (slot && slot % plan.slots_per_gpu === 0) breaks.push(order.length);
    if (expert >= 0 && !seen.has(expert)) {
      seen.add(expert);
      order.push(expert);
    }
  });
  return { order, breaks };
}

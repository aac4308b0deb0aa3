// The trace that was chosen: what is known of it, its loads, and the affinity of two layers.

import { get } from "./client.js";
import { $, list, make } from "./dom.js";
import { clearMap, heatmap } from "./heatmap.js";
import { count, percent, quantile, short } from "./numbers.js";
import { show } from "./problems.js";

const SIZE = 512; // experts of the models that there are
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
  clearMap($("load-map"));
  clearMap($("affinity-map"));
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
    const answer = await get(`v1/traces/${trace.id}/affinity?size=${SIZE}${paired && shown ? `&layer=${layer}` : ""}`);
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
    else $("affinity-map").append(make("p", { class: "facts" }, "No affinity: the trace has counts per expert only, or one layer."));
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

const namer = (width) => (cell) => String(cell * width);

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
    rowName: (row) => String(layers[row]), columnName: namer(width),
    cellText: (row, column) => `${short(relative[row][column])} × mean, ${count(load[row][column])} assignments`,
  });
}

function drawAffinity() {
  const { affinity, layer_id: layer, next_layer_id: next } = shown;
  const cellName = namer(shown.experts_per_cell);
  const byGpu = $("order").value === "gpu";
  const all = affinity.map((_, index) => index);
  const [down, across] = byGpu ? [orderOf(layer), orderOf(next)] : [{ order: all, gpus: [] }, { order: all, gpus: [] }];
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
    note: byGpu ? "experts in order of the plan's GPUs: what lies in the squares stays on a GPU"
      : `pairs, relative to independent layers; experts of layer ${layer} down, of layer ${next} across`,
    rowLabel: `Layer ${layer} expert`, columnLabel: `layer ${next} expert`,
    rowName: (row) => cellName(down.order[row]), columnName: (column) => cellName(across.order[column]),
    blocks: down.gpus.map((rows, gpu) => ({
      row: rows.begin, rows: rows.experts, column: across.gpus[gpu].begin, columns: across.gpus[gpu].experts,
    })),
    cellText: (row, column) => {
      const [i, j] = [down.order[row], across.order[column]];
      return `${short(lift[i][j])} × expected, ${count(affinity[i][j])} pairs (${percent(affinity[i][j] / total, 2)})`;
    },
  });
}

/** Experts of a layer by the first GPU that has them, and which part of them is on each GPU. */
function orderOf(layer) {
  const map = plan.physical_to_logical_map[plan.layer_ids.indexOf(layer)];
  const order = [], gpus = [], seen = new Set();
  for (let gpu = 0; gpu < plan.num_gpus; gpu += 1) {
    const begin = order.length;
    for (const expert of map.slice(gpu * plan.slots_per_gpu, (gpu + 1) * plan.slots_per_gpu)) {
      if (expert < 0 || seen.has(expert)) continue;
      seen.add(expert);
      order.push(expert);
    }
    gpus.push({ begin, experts: order.length - begin });
  }
  return { order, gpus };
}

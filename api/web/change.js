// A re-plan: whether to change the plan, and the moves that it takes, as a table and drawn from GPU to GPU.

import { Problem, all, get, post } from "./client.js";
import { $, list, make } from "./dom.js";
import { heatmap } from "./heatmap.js";
import { bytes, count, percent, short } from "./numbers.js";
import { mark, show } from "./problems.js";

const MOST = 200; // moves that are listed
const VERDICTS = { leave_it: "Leave the plan that runs", replan: "Change the plan that runs", not_enough_data: "Too little was recorded to tell" };
let plan = null;
let turn = 0;

export function hide() {
  turn += 1;
  plan = null;
  $("change-section").hidden = true;
}

/** Offer to re-plan from a plan that was found. */
export async function offer(found) {
  plan = found;
  $("change-section").hidden = false;
  $("change-found").hidden = true;
  show($("change-problem"), null);
  const traces = await all("v1/traces");
  $("recorded").replaceChildren(...traces.map((item) => make("option", { value: item.id }, item.name ?? item.id.slice(0, 19))));
  $("recorded").value = found.trace;
}

/** `changed(replan)` is called with a re-plan that has ended. */
export function setUp(changed) {
  $("change-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const mine = (turn += 1);
    show($("change-problem"), null);
    mark($("change-form"), null);
    $("change").disabled = true;
    $("change-status").textContent = "Weighing moves…";
    try {
      let found = await post("v1/replans", bodyOf(), { headers: { Prefer: "wait=30" } });
      while (!found.finished_at) found = await get(`v1/replans/${found.id}`, { headers: { Prefer: "wait=30" } });
      if (mine !== turn) return;
      if (found.error) throw new Problem(found.error);
      if (found.replan) draw(found);
      changed(found);
    } catch (error) {
      if (mine !== turn) return;
      show($("change-problem"), error);
      mark($("change-form"), error);
    } finally {
      $("change").disabled = false;
      $("change-status").textContent = "";
    }
  });
}

function bodyOf() {
  const body = { running: plan.id, trace: $("recorded").value, limits: { time_s: plan.request.limits.time_s }, objective: plan.request.objective };
  if (plan.request.engine) body.engine = plan.request.engine;
  const { machine, model } = plan.request.time ?? {};
  if (machine) Object.assign(body, { machine, model });
  else body.topology = plan.request.topology;
  const budget = $("step_experts");
  if (budget.validity.badInput) body.step_experts = "no number"; // the service says what is wrong
  else if (budget.value !== "") body.step_experts = budget.valueAsNumber;
  return body;
}

function draw({ id, replaces, plan: target, replan: found }) {
  $("change-found").hidden = false;
  $("change-verdict").textContent = `${VERDICTS[found.verdict]}.`;
  $("change-verdict").dataset.verdict = found.verdict;
  const gain = found.gain_fraction === null ? "" : `, ${percent(found.gain_fraction)} gained on what is held out`;
  $("change-facts").textContent = `${count(found.moved_experts)} experts move${found.moved_bytes === null ? "" : ` (${bytes(found.moved_bytes)})`} in ${found.steps.length === 1 ? "one step" : `${count(found.steps.length)} steps`}${gain}.`;
  $("change-ids").textContent = `Re-plan ${id}, which replaces ${replaces}.`;
  list($("change-reasons"), found.reasons);
  const moves = found.steps.flatMap((step) => step.arrivals.map((arrival) => [step.step, ...arrival]));
  table(moves);
  sent(moves, target.num_gpus);
}

function table(moves) {
  const column = (text) => make("th", { scope: "col" }, text);
  const rows = moves.slice(0, MOST).map(([step, layer, expert, gpu, from]) => make("tr", {},
    make("th", { scope: "row" }, `step ${step}`),
    ...[layer, expert, from === null ? "checkpoint" : from, gpu].map((text) => make("td", {}, String(text)))));
  $("moves").replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, ...["move", "layer", "expert", "from GPU", "to GPU"].map(column))), make("tbody", {}, ...rows)));
  $("moves-note").textContent = moves.length > MOST ? `The first ${MOST} of ${count(moves.length)} moves; the REST interface has all.` : "";
}

function sent(moves, gpus) {
  $("moves-map").hidden = !moves.length;
  if (!moves.length) return;
  const loaded = moves.some(([, , , , from]) => from === null);
  const values = Array.from({ length: gpus + (loaded ? 1 : 0) }, () => Array(gpus).fill(0));
  for (const [, , , gpu, from] of moves) values[from ?? gpus][gpu] += 1;
  heatmap($("moves-map"), {
    values, low: 0, high: Math.max(...values.flat()), square: true,
    title: "Experts sent", note: "from GPU down, to GPU across; all layers and steps",
    rowLabel: "From GPU", columnLabel: "to GPU", rowName: (row) => (row < gpus ? String(row) : "disk"), columnName: String,
    cellText: (row, column) => `${short(values[row][column])} experts`,
    label: (row, column) => (values[row][column] ? String(values[row][column]) : ""),
  });
}

// The search: what is asked for, and how it goes.

import { Problem, get, post, send } from "./client.js";
import { $, list, make } from "./dom.js";
import * as engine from "./engine.js";
import { watch } from "./events.js";
import { lineChart } from "./linechart.js";
import { fixed, percent, short } from "./numbers.js";
import { mark, show } from "./problems.js";

const USELESS_GAP = .9; // a bound of a tenth of the score says that the search could not bound it, not that the plan is bad
let trace = null;
let running = null; // AbortController of the search that is watched
let current = null; // id of its plan

export function setTrace(chosen) {
  trace = chosen;
  running?.abort();
  engine.setTrace(trace);
  $("plan-section").hidden = false;
  $("search-section").hidden = true;
  show($("plan-problem"), null);
}

/** `begun()` is called when a search begins, `ended(plan)` when it has ended and there is a plan. */
export function setUp(begun, ended) {
  $("plan-form").addEventListener("submit", (event) => {
    event.preventDefault();
    solve(begun, ended);
  });
  for (const [name, other] of [["slots_per_gpu", "redundant_experts"], ["redundant_experts", "slots_per_gpu"]]) {
    $(name).addEventListener("input", () => { // one follows from the other
      $(other).disabled = said($(name));
      if ($(other).disabled) $(other).value = "";
    });
  }
  $("machine").addEventListener("input", () => { // time needs the rest, and says the topology
    const timed = $("machine").value.trim() !== "";
    document.querySelectorAll(".timed").forEach((part) => { part.hidden = !timed; });
    $("topology").disabled = timed;
  });
  $("stop").addEventListener("click", async () => {
    $("stop").disabled = true;
    try {
      await send(`v1/plans/${current}/cancel`, { method: "POST" });
    } catch (error) {
      show($("plan-problem"), error);
      $("stop").disabled = false;
    }
  });
  engine.setUp().catch((error) => show($("plan-problem"), error));
  offerTopologies().catch(() => {}); // suggestions only
}

const said = (field) => field.value !== "" || field.validity.badInput;

async function solve(begun, ended) {
  const control = new AbortController();
  running = control;
  show($("plan-problem"), null);
  mark($("plan-form"), null);
  $("solve").disabled = true;
  let plan = null;
  try {
    const asked = await post("v1/plans", bodyOf(), { signal: control.signal });
    current = asked.id;
    begun();
    $("stop").hidden = false;
    $("stop").disabled = false;
    await follow(asked, control.signal);
    plan = await get(`v1/plans/${asked.id}`, { signal: control.signal });
    state(plan);
    list($("plan-warnings"), plan.warnings);
    if (plan.error) show($("plan-problem"), new Problem(plan.error));
  } catch (error) {
    show($("plan-problem"), error);
    mark($("plan-form"), error);
  } finally {
    $("solve").disabled = false;
    $("stop").hidden = true;
    running = null;
  }
  if (plan?.plan && plan.trace === trace.id) ended(plan);
}

function bodyOf() {
  const body = { trace: trace.id, constraints: {}, limits: {} };
  if ($("machine").value.trim()) body.time = { machine: $("machine").value.trim(), model: $("model").value.trim() || null, timed_phase: $("timed_phase").value };
  else body.topology = $("topology").value.trim();
  if ($("hold_out_by").value) body.hold_out_by = $("hold_out_by").value;
  engine.fill(body);
  // Only what goes home has the time of a dispatch; who chose otherwise is told.
  if (body.time && body.objective?.execution === "context_coherent" && !$("execution").value) body.objective.execution = "dispatch";
  const numbers = [["load_cap", body.constraints], ["slots_per_gpu", body], ["redundant_experts", body], ["hold_out", body], ["time_s", body.limits]];
  if (body.time) numbers.push(["tokens_per_gpu", body.time]);
  for (const [name, part] of numbers) {
    const field = $(name);
    if (field.validity.badInput) part[name] = "no number"; // the service says what is wrong
    else if (field.value !== "") part[name] = field.valueAsNumber;
  }
  return body;
}

async function follow(asked, signal) {
  const data = [[], [], []];
  let attempt = asked.attempt;
  $("search-section").hidden = false;
  $("plan-warnings").replaceChildren();
  state(asked);
  const draw = lineChart($("search-chart"), {
    title: "Incumbent and bound",
    note: `${asked.request.time?.machine ? "milliseconds of a forward pass with" : "the score of"} the best plan so far, and a value that no plan can beat; lower is better`,
    x: { label: "seconds of search", values: data[0] },
    series: [
      { label: "best plan", values: data[1], colour: "--after", stepped: true },
      { label: "bound", values: data[2], colour: "--bound", dash: [6, 4], stepped: true },
    ],
  });
  await watch(asked.id, (kind, news) => {
    state(news);
    if (news.elapsed_s === null || (news.score === null && news.bound === null)) return;
    if (news.attempt !== attempt) data.forEach((values) => values.splice(0)); // begun again after a crash
    attempt = news.attempt;
    data[0].push(Math.max(news.elapsed_s, data[0].at(-1) ?? 0));
    data[1].push(news.score);
    data[2].push(news.bound);
    draw(data);
    $("search-chart").dataset.points = String(data[0].length);
  }, signal);
}

function state({ status, cancel_requested: stopping, score, bound, gap, elapsed_s: elapsed }) {
  $("status").textContent = status === "running" && stopping ? "stopping" : status;
  $("score").textContent = short(score);
  $("bound").textContent = short(bound);
  $("gap").textContent = percent(gap > USELESS_GAP ? null : gap);
  $("elapsed").textContent = fixed(elapsed, 1);
}

async function offerTopologies() {
  const { items, presets, shorthands } = await get("v1/topologies");
  const option = (value, text) => make("option", { value, label: text });
  $("topologies").replaceChildren(
    ...items.map((item) => option(item.id, `${item.name ?? item.id}: ${item.num_nodes} nodes, ${item.num_gpus} GPUs`)),
    option("1x4", "1 node of 4 GPUs"), option("1x8", "1 node of 8 GPUs"), option("2x8", "2 nodes of 8 GPUs"),
    ...Object.entries(shorthands).map(([value, text]) => option(value, text)),
    ...presets.map((preset) => option(`${preset.name}:1`, preset.text)),
  );
}

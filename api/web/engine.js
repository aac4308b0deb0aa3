// The engine that is planned for: what it says of how tokens travel, and what the request says instead.

import { get } from "./client.js";
import { $, make } from "./dom.js";

const WAYS = { context_coherent: "straight from layer to layer", dispatch: "home after every layer" };
const ONCE = { gpu: "GPU", node: "node", none: "expert" };
let engines = [];
let trace = null;

/** Load the engines, and show what the one that is chosen does. */
export async function setUp() {
  $("engine").addEventListener("change", () => chosen());
  $("execution").addEventListener("change", dedup);
  engines = (await get("v1/engines")).items;
  $("engine").append(...engines.map((engine) => make("option", { value: engine.name }, engine.title)));
  if (trace) setTrace(trace);
}

/** Choose the engine that a trace brings along. */
export function setTrace(given) {
  trace = given;
  $("none-named").textContent = `none named: ${WAYS[unnamed()]}${counts() ? "" : " (ExFlow)"}`;
  $("engine").value = engines.some((engine) => engine.name === trace.engine) ? trace.engine : "";
  chosen();
}

/** Put the engine, and what the request says of how tokens travel, into a body. */
export function fill(body) {
  const engine = named($("engine").value);
  const objective = {};
  if (engine) body.engine = $("algorithm-part").hidden ? engine.name : `${engine.name}:${$("algorithm").value}`;
  // A trace of an engine is planned for that engine unless the request says otherwise; one of counts can't be chained.
  else if (trace.engine !== null || counts()) objective.execution = unnamed();
  if (!engine && counts()) objective.dedup = "none";
  if ($("execution").value) objective.execution = $("execution").value;
  if ($("dedup").value && travels() === "dispatch") objective.dedup = $("dedup").value;
  if (Object.keys(objective).length) body.objective = objective;
}

/** The engine that a plan was made for, as the service lists it; undefined if nobody's. */
export function engineOf({ summary, request }) {
  const own = request.objective.execution === null ? trace?.engine : null;
  return named((summary ? summary.engine : request.engine ?? own)?.split(":")[0]);
}

const named = (name) => engines.find((engine) => engine.name === name);
const counts = () => trace?.kind === "counts"; // nothing but loads can be planned for without tokens
const unnamed = () => (counts() ? "dispatch" : "context_coherent");
const travels = () => $("execution").value || (named($("engine").value)?.execution ?? unnamed());

function chosen() {
  const engine = named($("engine").value);
  const algorithms = engine?.algorithms ?? [];
  $("engine-hint").textContent = engine ? `${engine.version}${trace?.engine === engine.name ? "; it recorded this trace" : ""}`
    : "says how tokens travel";
  $("algorithm").replaceChildren(...algorithms.map(({ name }, at) => make("option", { value: name }, at ? name : `${name} (default)`)));
  $("algorithm-part").hidden = algorithms.length < 2;
  $("execution").value = $("dedup").value = "";
  $("execution").options[0].textContent = engine ? `the engine's: ${WAYS[engine.execution]}` : `usual: ${WAYS[unnamed()]}`;
  $("dedup").options[0].textContent = engine?.dedup ? `the engine's: ${ONCE[counts() ? "none" : engine.dedup]}`
    : `usual: ${counts() ? ONCE.none : ONCE.gpu}`;
  $("advanced").open = engine === undefined;
  dedup();
}

function dedup() {
  $("dedup-part").hidden = travels() !== "dispatch";
}

// The plan as a file: the project's own, or one that an engine loads.

import { get, send } from "./client.js";
import { $, make } from "./dom.js";
import { show } from "./problems.js";

const EXPORTS = "/v1/plans/{plan_id}/exports/{format}";
let planId = null;

export function hide() {
  $("take-section").hidden = true;
}

export function offer(plan) {
  planId = plan.id;
  $("plan-id").textContent = plan.id;
  $("take-section").hidden = false;
  show($("take-problem"), null);
}

export function setUp() {
  $("download").addEventListener("click", () => save(`v1/plans/${planId}/plan`, `${planId}.json`));
  $("export").addEventListener("click", () => {
    const format = encodeURIComponent($("engine").value.trim());
    save(`v1/plans/${planId}/exports/${format}`, `${planId}-${format}`);
  });
  offerEngines().catch(() => {}); // a service without exports
}

async function save(path, name) {
  show($("take-problem"), null);
  try {
    const response = await send(path);
    const [, given] = /filename="([^"/\\]+)"/.exec(response.headers.get("Content-Disposition") ?? "") ?? [];
    const link = make("a", { href: URL.createObjectURL(await response.blob()), download: given ?? name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    show($("take-problem"), error);
  }
}

async function offerEngines() {
  const operation = (await get("openapi.json")).paths[EXPORTS]?.get;
  if (!operation) return;
  const { schema } = operation.parameters.find((parameter) => parameter.name === "format");
  // Where the formats are not listed, the service names them when it does not know one.
  const shown = schema["x-enum-descriptions"] ?? schema.enum;
  const choice = schema.enum ? make("select", { id: "engine" }, ...schema.enum.map((name, n) => make("option", { value: name }, shown[n])))
    : make("input", { id: "engine", value: "vllm", spellcheck: "false", autocomplete: "off" });
  $("engine-choice").replaceChildren(choice);
  $("engine-part").hidden = false;
}

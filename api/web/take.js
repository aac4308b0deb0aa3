// The plan as a file: the project's own, or one that an engine loads.

import { get, send } from "./client.js";
import { $, make } from "./dom.js";
import { engineOf } from "./engine.js";
import { show } from "./problems.js";

const EXPORTS = "/v1/plans/{plan_id}/exports/{format}";
let planId = null;

export function hide() {
  $("take-section").hidden = true;
}

export function offer(plan) {
  planId = plan.id;
  $("plan-id").textContent = plan.id;
  $("plan-replaces").textContent = plan.replaces ? `; it is to replace ${plan.replaces}` : "";
  $("take-section").hidden = false;
  show($("take-problem"), null);
  $("force").hidden = true;
  const own = engineOf(plan)?.export;
  if (own) $("format").value = own;
}

export function setUp() {
  $("download").addEventListener("click", () => save(`v1/plans/${planId}/plan`, `${planId}.json`));
  $("export").addEventListener("click", () => saveExport(false));
  $("force").addEventListener("click", () => saveExport(true));
  $("format").addEventListener("change", () => {
    $("force").hidden = true;
    show($("take-problem"), null);
  });
  offerFormats().catch(() => {}); // a service without exports
}

function saveExport(force) {
  const asked = new URLSearchParams();
  for (const name of ["model_layers", "first_moe_layer", "moe_layers"]) if ($(name).value !== "") asked.set(name, $(name).value);
  if (force) asked.set("force", "true");
  const format = $("format").value;
  return save(`v1/plans/${planId}/exports/${format}?${asked}`, `${planId}-${format}`);
}

async function save(path, name) {
  $("force").hidden = true;
  show($("take-problem"), null);
  try {
    const response = await send(path);
    const [, given] = /filename="([^"/\\]+)"/.exec(response.headers.get("Content-Disposition") ?? "") ?? [];
    const link = make("a", { href: URL.createObjectURL(await response.blob()), download: given ?? name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    show($("take-problem"), error);
    $("force").hidden = !(error.content?.errors ?? []).some((item) => item.code === "engine_travels_otherwise");
  }
}

async function offerFormats() {
  const operation = (await get("openapi.json")).paths[EXPORTS]?.get;
  if (!operation) return;
  const { schema } = operation.parameters.find((parameter) => parameter.name === "format");
  const shown = schema["x-enum-descriptions"];
  $("format").replaceChildren(...schema.enum.map((name, at) => make("option", { value: name }, shown[at])));
  $("format-part").hidden = $("layers-hint").hidden = false;
}

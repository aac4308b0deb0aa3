// Ways to a trace: a file that is dropped or chosen, the sample, or one that the service has.

import { all, send } from "./client.js";
import { $, make } from "./dom.js";
import { bytes } from "./numbers.js";
import { mark, show } from "./problems.js";
import { readingOf } from "./reading.js";
import { upload } from "./upload.js";

const SAMPLE = new URL("sample/tiny_moe.npz", import.meta.url);
let known = [];

/** `chosen(trace)` is called with every trace that the user settles on. */
export function setUp(chosen) {
  const take = (file) => (file ? settle(() => uploaded(file, readingOf()), chosen) : null);
  $("file").addEventListener("change", () => take($("file").files[0]));
  $("sample").addEventListener("click", () => settle(async () => uploaded(await sample(), {}), chosen));
  $("stored").addEventListener("change", () => {
    const trace = known.find((item) => item.id === $("stored").value);
    if (trace) settle(async () => trace, chosen);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => { // a file that misses the target must not replace the page
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover" && $("drop").contains(event.target));
    });
  }
  $("drop").addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
  refresh().catch((error) => show($("trace-problem"), error));
}

async function settle(find, chosen) {
  show($("trace-problem"), null);
  mark($("reading-form"), null);
  busy(true);
  try {
    const trace = await find();
    busy(false);
    await refresh(trace);
    await chosen(trace);
  } catch (error) {
    show($("trace-problem"), error);
    mark($("reading-form"), error);
  } finally {
    busy(false);
    $("file").value = "";
  }
}

async function sample() {
  const response = await send(SAMPLE);
  return new File([await response.blob()], "tiny_moe.npz");
}

function uploaded(file, reading) {
  $("progress").hidden = false;
  return upload(file, reading, (share) => {
    $("progress-bar").value = share;
    if (share === 1) $("progress-bar").removeAttribute("value");
    $("progress-text").textContent = share < 1 ? `${file.name}: ${bytes(share * file.size)} of ${bytes(file.size)}`
      : `${file.name}: arrived; the service reads it from start to end`;
  });
}

function busy(yes) {
  for (const id of ["file", "sample"]) $(id).disabled = yes;
  if (!yes) $("progress").hidden = true;
}

async function refresh(trace = null) {
  known = await all("v1/traces");
  if (!known.length) return;
  $("stored").replaceChildren(make("option", { value: "" }, "choose"),
    ...known.map((item) => make("option", { value: item.id }, `${item.name ?? item.id.slice(0, 19)} (${bytes(item.bytes)})`)));
  $("stored").disabled = false;
  $("stored").value = trace?.id ?? "";
}

// Server-sent events over fetch: unlike EventSource, it can send a key.

import { Problem, send } from "./client.js";

const RETRY_MS = 1000;

/** Call `on(kind, data)` with every event of a plan, to the end; lost connections are taken up where they broke. */
export async function watch(planId, on, signal) {
  let last = "";
  for (;;) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const response = await send(`v1/plans/${planId}/events`, { headers, signal, patient: true });
      let ended = true;
      for await (const event of parse(response.body)) {
        if (event.id) last = event.id;
        if (event.kind === "reconnect") ended = false;
        else on(event.kind, event.data);
        if (event.kind === "done") return;
      }
      if (ended) return;
    } catch (error) {
      if (error instanceof Problem || error.name === "AbortError") throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

async function* parse(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = {};
      for (const line of block.split("\n")) {
        const [, name, text] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name) fields[name] = name === "data" && fields.data !== undefined ? `${fields.data}\n${text}` : text;
      }
      if (fields.data !== undefined) yield { kind: fields.event ?? "message", id: fields.id, data: JSON.parse(fields.data) };
    }
  }
}

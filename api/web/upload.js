// A file on its way to the service: in parts, so that progress shows and a lost connection costs one part.

import { Problem, get, post, send } from "./client.js";

const PART_BYTES = 8 << 20;
const ATTEMPTS = 4;

/** Upload a file, with how to read it; `progress(share)` is called on the way. Resolves to the trace. */
export async function upload(file, reading, progress) {
  const begun = await post("v1/uploads", { ...reading, name: file.name.slice(0, 200) || "trace", bytes: file.size });
  const place = `v1/uploads/${begun.id}`;
  try {
    for (let offset = 0; offset < file.size;) {
      progress(offset / file.size);
      offset = await sendPart(place, file, offset);
    }
    progress(1);
    return await (await send(`${place}/finish`, { method: "POST" })).json();
  } catch (error) {
    send(place, { method: "DELETE" }).catch(() => {});
    throw error;
  }
}

async function sendPart(place, file, offset) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const body = file.slice(offset, offset + PART_BYTES);
      const headers = { "Content-Type": "application/octet-stream", "Upload-Offset": String(offset) };
      await send(place, { method: "PATCH", body, headers, patient: true });
      return offset + body.size;
    } catch (error) {
      if (error instanceof Problem) throw error;
      if (attempt === ATTEMPTS) throw Problem.of("Upload lost", `The connection broke at byte ${offset}: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
      offset = (await get(place)).offset;
      if (offset === file.size) return offset;
    }
  }
}

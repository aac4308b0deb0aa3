// Requests to the service. What it refuses is thrown as a Problem.

import { ask, forget, key } from "./key.js";

/** A problem document (RFC 9457) of the service, as it came. */
export class Problem extends Error {
  constructor(content) {
    super(content.detail);
    this.content = content;
  }

  static of(title, detail) {
    return new Problem({ title, detail, errors: [] });
  }
}

/** Send a request; resolves to the response if its status is below 400. */
export async function send(path, { method = "GET", json, body, headers = {}, signal, patient = false } = {}) {
  for (;;) {
    const sent = key();
    const fields = { ...headers };
    if (sent !== null) fields.Authorization = `Bearer ${sent}`;
    if (json !== undefined) fields["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method, signal, headers: fields, body: json === undefined ? body : JSON.stringify(json),
      });
    } catch (error) {
      if (error.name === "AbortError" || patient) throw error;
      throw Problem.of("No answer", "The service can't be reached. Is it running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      if (key() === sent) {
        forget();
        if (!(await ask())) throw await problemOf(response);
      }
      continue;
    }
    throw await problemOf(response);
  }
}

export const get = async (path, options) => (await send(path, options)).json();
export const post = async (path, json, options) => (await send(path, { ...options, method: "POST", json })).json();

async function problemOf(response) {
  if ((response.headers.get("Content-Type") ?? "").includes("json")) return new Problem(await response.json());
  return Problem.of(`Status ${response.status}`, (await response.text()).slice(0, 500));
}

/** All items of a list that comes in pages, up to a number of pages. */
export async function all(path, pages = 5) {
  const items = [];
  let cursor = "";
  for (let page = 0; page < pages && cursor !== null; page += 1) {
    const answer = await get(`${path}?limit=200${cursor && `&cursor=${cursor}`}`);
    items.push(...answer.items);
    cursor = answer.next_cursor;
  }
  return items;
}

// Requests to the API, by its public routes. Addresses are relative, so that the page may be served below a path.
import * as token from "./token.js";

/** @typedef {{ field: string, message: string }} FieldError */

/** What the API answered instead. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message @param {FieldError[]} fields */
  constructor(status, message, fields = []) {
    super(message);
    this.status = status;
    this.fields = fields;
  }
}

/**
 * @param {string} path
 * @param {Record<string, any>} [parameters] Arrays are repeated.
 * @param {AbortSignal} [signal]
 */
export async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const item of Array.isArray(value) ? value : [value]) query.append(name, String(item));
  }
  const text = query.toString();
  return (await request(text ? `${path}?${text}` : path, { signal })).json();
}

/** @param {string} path @param {any} [body] */
export const post = (path, body = undefined) => send("POST", path, body);

/** @param {string} path @param {any} body */
export const patch = (path, body) => send("PATCH", path, body);

/** @param {string} method @param {string} path @param {any} body */
async function send(method, path, body) {
  const content =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return (await request(path, { method, ...content })).json();
}

/** @param {string} path */
export async function remove(path) {
  await request(path, { method: "DELETE" });
}

/**
 * What an image or a video may have as its source: the address, or its content where the address alone would not do.
 * @param {string} path @param {AbortSignal} signal
 */
export async function source(path, signal) {
  if (!token.needed()) return path;
  const address = URL.createObjectURL(await (await request(path, { signal })).blob());
  signal.addEventListener("abort", () => URL.revokeObjectURL(address), { once: true });
  return address;
}

/** Fetches a file and hands it to the browser's downloads. @param {string} path @param {string} name */
export async function download(path, name) {
  const link = document.createElement("a");
  link.download = name;
  const kept = token.needed() ? URL.createObjectURL(await (await request(path)).blob()) : null;
  link.href = kept ?? path;
  link.click();
  if (kept) setTimeout(() => URL.revokeObjectURL(kept), 60_000);
}

/**
 * Follows server-sent events until the stream ends or the signal says so; begins again where it was when the
 * connection is lost. A tab that nobody sees lets go: browsers allow few connections to a host, over all tabs.
 * @param {string} path
 * @param {(event: string, data: any) => void} tell
 * @param {AbortSignal} signal
 * @param {() => void} again Called when it has begun again.
 */
export async function follow(path, tell, signal, again) {
  let last = "";
  for (let first = true; !signal.aborted; first = false) {
    await seen(signal);
    const hidden = new AbortController();
    const hide = () => document.hidden && hidden.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      /** @type {Record<string, string>} */
      const headers = last ? { "Last-Event-ID": last } : {};
      const reply = await request(path, { signal: AbortSignal.any([signal, hidden.signal]), headers });
      if (!first) again();
      for await (const message of messages(reply)) {
        last = message.id || last;
        tell(message.event, JSON.parse(message.data));
      }
      return;
    } catch (error) {
      if (signal.aborted || (error instanceof ApiError && error.status < 500 && error.status !== 429)) return;
      if (!hidden.signal.aborted) await new Promise((resolve) => setTimeout(resolve, 2000));
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
  }
}

/** When the tab is seen, or the signal has ended. @param {AbortSignal} signal @returns {Promise<void>} */
function seen(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
    look();
  });
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
async function request(path, options = {}) {
  const sent = token.authorization();
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { ...options.headers, ...sent } });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(503, "The learner does not answer.");
  }
  if (reply.ok) return reply;
  const body = await reply.json().catch(() => ({}));
  if (reply.status === 401) {
    // Unless it was entered meanwhile, for another request.
    if (sent.Authorization === token.authorization().Authorization) await token.ask(body.message ?? "");
    return request(path, options);
  }
  throw new ApiError(reply.status, body.message ?? `The learner answered ${reply.status}.`, body.fields ?? []);
}

/** @param {Response} reply @returns {AsyncGenerator<{ id: string, event: string, data: string }>} */
async function* messages(reply) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (reply.body).getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const parts = text.split("\n\n");
      text = parts.pop() ?? "";
      for (const part of parts) {
        const fields = Object.fromEntries(part.split("\n").map((line) => pair(line)));
        if (fields.data !== undefined) yield { id: fields.id ?? "", event: fields.event ?? "message", data: fields.data };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {string} line @returns {[string, string]} */
function pair(line) {
  const at = line.indexOf(":");
  return [line.slice(0, at), line.slice(at + 1).trimStart()];
}

// How curves are looked at: x axis, smoothing, log axis. The address keeps it.
import { AXES } from "./curves.js";
import { h, redraw } from "./dom.js";

/** @typedef {{ axis: import("./curves.js").Axis, smooth: number, log: boolean }} Controls */

/** Changes the query of the address, without a new view. @param {Record<string, string | null>} values */
export function keep(values) {
  const [place, text] = location.hash.split("?");
  const query = new URLSearchParams(text ?? "");
  for (const [name, value] of Object.entries(values)) {
    if (value === null) query.delete(name);
    else query.set(name, value);
  }
  const rest = query.toString();
  history.replaceState(null, "", rest ? `${place}?${rest}` : place);
}

/** A part of the x axis. @typedef {[number, number] | null} Zoom */

/** The zoom that the address has. @param {URLSearchParams} query @param {string} [name] Of the chart's. @returns {Zoom} */
export function zoomOf(query, name = "zoom") {
  const ends = (query.get(name) ?? "").split(",").map(Number);
  return ends.length === 2 && ends.every(Number.isFinite) && ends[0] < ends[1] ? [ends[0], ends[1]] : null;
}

/** @param {Zoom} zoom @param {string} [name] */
export const keepZoom = (zoom, name = "zoom") => keep({ [name]: zoom ? zoom.map((value) => Math.round(value)).join() : null });

/**
 * The state that the address has, and its elements.
 * @param {URLSearchParams} query @param {() => void} changed @param {import("./curves.js").Axis} [fallback]
 * @returns {{ state: Controls, element: HTMLElement }}
 */
export function chartControls(query, changed, fallback = "env_steps") {
  const given = query.get("x") ?? "";
  /** @type {Controls} */
  const state = {
    axis: Object.hasOwn(AXES, given) ? /** @type {import("./curves.js").Axis} */ (given) : fallback,
    smooth: Math.min(0.99, Math.max(0, Number(query.get("smooth") ?? 0.6) || 0)),
    log: query.get("log") === "1",
  };
  const axes = h("div", { class: "segments", role: "group", "aria-label": "X axis" });
  const draw = () =>
    redraw(
      axes,
      ...Object.entries(AXES).map(([name, title]) =>
        h("button", { type: "button", id: `axis-${name}`, "aria-pressed": String(state.axis === name), on: { click: () => pick(name) } }, title),
      ),
    );
  const pick = (/** @type {any} */ name) => {
    state.axis = name;
    keep({ x: name });
    draw();
    changed();
  };
  draw();
  const shown = h("output", {}, state.smooth.toFixed(2));
  const smooth = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: state.smooth });
  smooth.addEventListener("input", () => {
    state.smooth = Number(smooth.value);
    shown.textContent = state.smooth.toFixed(2);
    keep({ smooth: String(state.smooth) });
    changed();
  });
  const log = h("input", { type: "checkbox" });
  log.checked = state.log;
  log.addEventListener("change", () => {
    state.log = log.checked;
    keep({ log: log.checked ? "1" : null });
    changed();
  });
  const element = h("div", { class: "toolbar" }, axes, h("label", {}, "Smoothing", smooth, shown), h("label", {}, log, "Log y axis"));
  return { state, element };
}

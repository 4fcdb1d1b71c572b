// Small curves without axes.
import { svg } from "./dom.js";

/**
 * @param {number[]} values
 * @param {{ width?: number, height?: number, low?: number, high?: number, label: string }} options Range: of the
 *   values, if none is given.
 */
export function sparkline(values, { width = 120, height = 30, low, high, label }) {
  const least = low ?? Math.min(...values);
  const most = high ?? Math.max(...values);
  const spread = most - least || 1;
  const x = (/** @type {number} */ place) => 2 + (place * (width - 4)) / Math.max(1, values.length - 1);
  const y = (/** @type {number} */ value) => height - 2 - ((value - least) * (height - 4)) / spread;
  const points = values.map((value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`);
  const last = values.length - 1;
  return svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
    svg("polygon", { class: "area", points: `${x(0)},${height} ${points.join(" ")} ${x(last)},${height}` }),
    svg("polyline", { class: "line", points: points.join(" ") }),
    svg("circle", { class: "end", cx: x(last), cy: y(values[last]), r: 2 }),
  );
}

// A chart of curves, drawn by uPlot when it is seen; zoom stays while points arrive.
import { AXES } from "./curves.js";
import { h, replace, say } from "./dom.js";
import { duration, precise, short } from "./format.js";
import { whenVisible } from "./visible.js";

/**
 * A line: its points go to the right. Bands are drawn between `low` and `high`; `faint` is the opacity of what is not
 * told of.
 * @typedef {{ label: string, colour: number, x: number[], y: (number | null)[], low?: (number | null)[],
 *   high?: (number | null)[], faint?: number, dots?: boolean, dash?: boolean }} Line
 * @typedef {{ axis: string, log: boolean, range?: [number, number] | null }} Look
 */

const KEYS = "+ - ArrowLeft ArrowRight 0";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** A card with a title, the newest values and a plot. */
export class Chart {
  /**
   * @param {{ title: string, unit?: string, big?: boolean, fixed?: [number, number], group?: string,
   *   zoomed?: (range: [number, number] | null) => void, below?: HTMLElement, drawn?: (plot: any) => void }} options
   *   `fixed`: range of the y axis. `group`: charts whose cursors move together. `below`: what stands under the plot,
   *   and is told of each drawing.
   * @param {AbortSignal} signal
   */
  constructor(options, signal) {
    this.options = options;
    /** @type {Line[]} */
    this.lines = [];
    /** @type {Look} */
    this.look = { axis: "env_steps", log: false };
    this.plot = null;
    this.shape = "";
    this.visible = false;
    this.stale = false; // until there is something to show
    this.zoomed = false;
    this.value = h("span", { class: "value" });
    this.legend = h("div", { class: "legend" });
    this.note = h("footer");
    this.place = h("div", { class: "plot", role: "group", tabindex: "0", "aria-label": options.title, "aria-keyshortcuts": KEYS });
    this.place.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.press(event));
    this.heading = h("h2", { style: { display: "inline" } }, options.title);
    this.unit = h("span", { class: "muted small" }, options.unit ?? "");
    this.element = h(
      "section",
      { class: options.big ? "card chart big" : "card chart", "aria-label": options.title },
      h("header", {}, h("span", {}, this.heading, " ", this.unit), this.value),
      this.legend,
      this.place,
      options.below,
      this.note,
    );
    whenVisible(this.element, (seen) => ((this.visible = seen), this.draw()), signal);
    const resized = new ResizeObserver(() => this.plot?.setSize(this.size()));
    resized.observe(this.place);
    const recolour = () => ((this.shape = ""), (this.stale = true), this.draw());
    dark.addEventListener("change", recolour, { signal });
    signal.addEventListener("abort", () => (resized.disconnect(), this.plot?.destroy()), { once: true });
  }

  /** Says what is shown from now on. @param {string} title @param {string} unit */
  rename(title, unit) {
    Object.assign(this.options, { title, unit });
    say(this.heading, title);
    say(this.unit, unit);
    this.element.setAttribute("aria-label", title);
  }

  /** @param {Line[]} lines @param {Look} look @param {string} note */
  show(lines, look, note) {
    this.lines = lines;
    if (look.axis !== this.look.axis) this.zoomed = false;
    this.look = look;
    say(this.note, note);
    const named = lines.filter((line) => line.label && !line.faint);
    const last = named.length === 1 ? named[0].y.findLast((value) => value !== null) : undefined;
    say(this.value, last === undefined ? "" : precise(last));
    this.stale = true;
    this.draw();
  }

  draw() {
    if (!this.visible || !this.stale) return;
    this.stale = false;
    const lines = this.lines.filter((line) => line.x.length);
    const described = lines.filter((line) => line.label && !line.faint).map((line) => `${line.label}: ${precise(line.y.at(-1))}`);
    this.place.setAttribute("aria-label", `${this.options.title}. ${described.join("; ") || "No points yet."}`);
    if (!lines.length) {
      this.plot?.destroy();
      this.plot = null;
      this.shape = "";
      replace(this.place, h("p", { class: "empty small" }, "No points yet"));
      return;
    }
    const columns = joined(lines, this.look.log);
    const shape = JSON.stringify([this.look.axis, this.look.log, lines.map((line) => [line.label, line.colour, line.faint, line.dots, line.dash, Boolean(line.low)])]);
    if (shape !== this.shape || !this.plot) this.build(lines, columns, shape);
    else {
      const { min, max } = this.plot.scales.x;
      this.plot.setData(columns, !this.zoomed);
      if (this.zoomed) this.plot.setScale("x", { min, max });
    }
  }

  /** @param {Line[]} lines @param {any[]} columns @param {string} shape */
  build(lines, columns, shape) {
    const style = getComputedStyle(document.documentElement);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const stroke = (/** @type {Line} */ line) => colour(`--c${line.colour % 8}`);
    const size = 0.8 * parseFloat(style.fontSize); // 12 px; large screens have larger letters
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: `${size}px ${style.fontFamily}` };
    const xText = this.look.axis === "time" ? duration : short;
    const series = lines.flatMap((line) => {
      const main = { label: line.label, stroke: stroke(line), width: line.faint ? 1 : 1.8, alpha: line.faint ?? 1, dash: line.dash ? [5, 4] : undefined, points: { show: Boolean(line.dots) && line.x.length < 80, size: 6 }, spanGaps: false };
      const edge = { label: "", stroke: "transparent", width: 0, points: { show: false } };
      return line.low ? [main, edge, edge] : [main];
    });
    const bands = [];
    let place = 1;
    for (const line of lines) {
      if (line.low) bands.push({ series: [place + 2, place + 1], fill: `${stroke(line)}2e` });
      place += line.low ? 3 : 1;
    }
    const { fixed, group } = this.options;
    this.plot?.destroy();
    replace(this.place);
    const range = this.look.range;
    const UPlot = /** @type {any} */ (globalThis).uPlot;
    this.zoomed = false;
    this.shape = shape;
    this.plot = new UPlot(
      {
        ...this.size(),
        legend: { show: false },
        cursor: { sync: group ? { key: group, setSeries: false } : undefined, drag: { x: true, y: false }, points: { size: 7 } },
        scales: {
          x: { time: false, range: range ? undefined : (/** @type {any} */ _, /** @type {number} */ low, /** @type {number} */ high) => [low, high > low ? high : low + 1] },
          y: this.look.log ? { distr: 3 } : fixed ? { range: fixed } : {},
        },
        axes: [
          { ...axis, values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map(xText), size: 2.5 * size, space: 6 * size },
          { ...axis, values: (/** @type {any} */ _, /** @type {(number | null)[]} */ ticks) => ticks.map((tick) => (tick === null ? "" : precise(tick))), size: 4.4 * size },
        ],
        series: [{ label: AXES[/** @type {import("./curves.js").Axis} */ (this.look.axis)] ?? this.look.axis }, ...series],
        bands,
        hooks: {
          draw: [(/** @type {any} */ plot) => this.options.drawn?.(plot)],
          setCursor: [(/** @type {any} */ plot) => this.tell(plot, lines, xText)],
          setSelect: [(/** @type {any} */ plot) => plot.select.width > 4 && this.zoom(selected(plot))],
        },
      },
      columns,
      this.place,
    );
    if (range) {
      this.plot.setScale("x", { min: range[0], max: range[1] });
      this.zoomed = true;
    }
    this.plot.over.addEventListener("dblclick", () => this.zoom(null));
    this.tell(this.plot, lines, xText);
  }

  /** Notes a zoom. @param {[number, number] | null} range */
  zoom(range) {
    this.zoomed = range !== null;
    if (this.element.matches(":hover")) this.options.zoomed?.(range); // else another of the group was dragged, and tells
  }

  /** Zooms by a key: `KEYS`. @param {KeyboardEvent} event */
  press(event) {
    if (!this.plot || event.ctrlKey || event.metaKey || event.altKey) return;
    const { min, max } = this.plot.scales.x;
    const columns = this.plot.data[0];
    const range = keyed(event.key, [min, max], [columns[0], columns.at(-1)]);
    if (range === undefined) return;
    event.preventDefault();
    this.zoomTo(range);
    this.options.zoomed?.(range);
  }

  /** Shows a part of the x axis, or all of it: what another chart of the group was told. @param {[number, number] | null} range */
  zoomTo(range) {
    this.look = { ...this.look, range };
    this.zoomed = range !== null;
    if (range) this.plot?.setScale("x", { min: range[0], max: range[1] });
    else this.plot?.setData(this.plot.data);
  }

  /** Writes the legend, with the values under the cursor. @param {any} plot @param {Line[]} lines @param {(value: number) => string} xText */
  tell(plot, lines, xText) {
    const at = plot.cursor.idx;
    const x = at === null || at === undefined ? null : plot.data[0][at];
    let place = 1;
    const shown = [];
    for (const line of lines) {
      const value = x === null ? undefined : nearest(plot.data[place], at);
      place += line.low ? 3 : 1;
      if (!line.label || (line.faint && line.label === "")) continue;
      const swatch = h("span", { class: "swatch", style: { background: `var(--c${line.colour % 8})` } });
      shown.push(h("span", {}, swatch, line.label, value === undefined || value === null ? "" : ` ${precise(value)}`));
    }
    if (x !== null) shown.push(h("span", {}, `at ${xText(x)}`));
    if (shown.length < 2 && x === null && lines.filter((line) => line.label).length < 2) replace(this.legend, " ");
    else replace(this.legend, ...shown);
  }

  /** The chart as an element for a file, seen or not. @returns {Promise<HTMLElement | null>} */
  async picture() {
    const seen = this.visible;
    this.visible = true;
    this.draw();
    this.visible = seen;
    await new Promise(requestAnimationFrame); // uPlot draws a little later
    if (!this.plot) return null;
    const { canvas } = this.plot.ctx;
    const image = h("img", { src: canvas.toDataURL(), width: Math.round(canvas.width / devicePixelRatio), alt: this.place.getAttribute("aria-label") });
    return h("figure", {}, h("h2", {}, this.options.title), this.legend.cloneNode(true), image, h("figcaption", { class: "small" }, [this.options.unit, this.note.textContent].filter(Boolean).join(". ")));
  }

  size() {
    return { width: Math.max(120, this.place.clientWidth), height: Math.max(80, this.place.clientHeight) };
  }
}

/**
 * What a key makes of the part of the x axis that is shown; null is all of it, undefined that the key is not ours.
 * @param {string} key @param {[number, number]} shown @param {[number, number]} all @returns {[number, number] | null | undefined}
 */
export function keyed(key, [low, high], [first, last]) {
  const [width, most] = [high - low, last - first];
  if (!(most > 0)) return undefined;
  const within = (/** @type {number} */ from, /** @type {number} */ wide) => {
    const start = Math.min(Math.max(from, first), last - wide);
    return /** @type {[number, number]} */ ([start, start + wide]);
  };
  if (key === "0") return null;
  if (key === "+" || key === "=") return width > most / 1000 ? within(low + width / 4, width / 2) : within(low, width);
  if (key === "-" || key === "_") return 2 * width < most ? within(low - width / 2, 2 * width) : null;
  if (width >= most) return undefined; // there is nowhere to go, and the page may scroll
  if (key === "ArrowLeft") return within(low - width / 4, width);
  if (key === "ArrowRight") return within(low + width / 4, width);
  return undefined;
}

/** The part of the x axis that was dragged over; uPlot's scale is there a little later. @param {any} plot @returns {[number, number]} */
function selected(plot) {
  const { left, width } = plot.select;
  return [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
}

/** Lines over one x axis, as uPlot takes them. @param {Line[]} lines @param {boolean} log */
function joined(lines, log) {
  const clean = (/** @type {(number | null)[]} */ values) => (log ? values.map((value) => (value !== null && value > 0 ? value : null)) : values);
  const tables = lines.map((line) => [line.x, ...[line.y, ...(line.low ? [line.low, line.high ?? []] : [])].map(clean)]);
  return /** @type {any} */ (globalThis).uPlot.join(tables);
}

/** The value at a place, or the last before it. @param {(number | null | undefined)[]} values @param {number} at */
function nearest(values, at) {
  for (let place = at; place >= 0; place -= 1) if (values[place] !== undefined && values[place] !== null) return values[place];
  return undefined;
}

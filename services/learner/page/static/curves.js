// Points of a metric, as the API gives them and as a chart draws them.

/**
 * A metric as GET /runs/{id}/series has it.
 * @typedef {{ name: string, source: string, total: number, env_steps: number[], updates: number[],
 *   episodes: (number | null)[], time: number[], values: number[], superseded: boolean[] }} Series
 * @typedef {"env_steps" | "updates" | "episodes" | "time"} Axis
 * @typedef {{ x: number[], y: (number | null)[] }} Piece
 */

/** What may be on the x axis. @type {Record<Axis, string>} */
export const AXES = { env_steps: "Env steps", updates: "Updates", episodes: "Episodes", time: "Wall time" };

/** Appends a point that has just been told of. @param {Series} series @param {{ env_steps: number, updates: number, episodes: number, time: number }} at @param {number} value */
export function append(series, at, value) {
  series.env_steps.push(at.env_steps);
  series.updates.push(at.updates);
  series.episodes.push(at.episodes);
  series.time.push(at.time);
  series.values.push(value);
  series.superseded.push(false);
  series.total += 1;
}

/** A series without points. @param {string} name @param {string} source @returns {Series} */
export const none = (name, source) => ({ name, source, total: 0, env_steps: [], updates: [], episodes: [], time: [], values: [], superseded: [] });

/**
 * The curve that counts, and pieces that the run went back behind: each goes to the right only. Points without a place
 * on the axis are left out.
 * @param {Series} series @param {Axis} axis @param {number} start Of the wall time, in seconds since 1970.
 * @returns {{ live: Piece, old: Piece[] }}
 */
export function pieces(series, axis, start) {
  const there = series[axis].flatMap((value, place) => (value === null ? [] : [place]));
  const x = there.map((place) => /** @type {number} */ (series[axis][place]) - (axis === "time" ? start : 0));
  /** @type {Piece} */
  const live = { x: [], y: [] };
  /** @type {Piece[]} */
  const old = [];
  const later = new Array(x.length).fill(false);
  for (let place = x.length - 1, least = Infinity; place >= 0; place -= 1) {
    later[place] = x[place] > least;
    least = Math.min(least, x[place]);
  }
  let open = false;
  for (let place = 0; place < x.length; place += 1) {
    const gone = series.superseded[there[place]] || later[place];
    if (gone && (!open || x[place] < /** @type {number} */ (old.at(-1)?.x.at(-1)))) old.push({ x: [], y: [] });
    put(gone ? /** @type {Piece} */ (old.at(-1)) : live, x[place], series.values[there[place]]);
    open = gone;
  }
  return { live, old };
}

/** The exponential mean of a curve, without the pull of its start. @param {Piece} piece @param {number} weight In [0, 1). @returns {Piece} */
export function smoothed({ x, y }, weight) {
  let mean = 0;
  let sum = 0;
  const means = y.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    sum = weight * sum + (1 - weight);
    return mean / sum;
  });
  return { x, y: means };
}

/** @param {Piece} piece @param {number} x @param {number} y */
function put(piece, x, y) {
  if (piece.x.at(-1) === x) piece.y[piece.y.length - 1] = y;
  else {
    piece.x.push(x);
    piece.y.push(y);
  }
}

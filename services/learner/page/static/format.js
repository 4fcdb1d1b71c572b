// Numbers and times as people read them.

/** 1,234,567 @param {number} value */
export const count = (value) => Math.round(value).toLocaleString("en-US");

/** 950, 12.3k, 4M @param {number | null | undefined} value */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  for (const [unit, size] of /** @type {[string, number][]} */ ([["G", 1e9], ["M", 1e6], ["k", 1e3]])) {
    if (Math.abs(value) >= size) return `${trimmed((value / size).toPrecision(3))}${unit}`;
  }
  return trimmed(Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));
}

/** Three significant digits, exponents for what is tiny. @param {number | null | undefined} value */
export function precise(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1);
  return short(value);
}

/** @param {number | null | undefined} value */
export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

/** @param {number} share */
export const percent = (share) => `${Math.floor(100 * share)}%`;

/** 42 s, 3 min, 2 h 05 min, 3 d 4 h @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** 3 min ago @param {string | null | undefined} iso */
export function ago(iso) {
  if (!iso) return "–";
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

/** Local date and time. @param {string} iso */
export const moment = (iso) => new Date(iso).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });

/** @param {number} bytes */
export const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** @param {string} text */
const trimmed = (text) => (text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text);

// @ts-check
/** Numbers, times and names in words. Pure. */

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/**
 * A number as JSON carries it (non-finite as a string, missing as null) back as a number.
 * @param {unknown} value @returns {number | null}
 */
export function parseNumber(value) {
  if (typeof value === "number") return value;
  if (value === "NaN") return NaN;
  if (value === "Infinity") return Infinity;
  if (value === "-Infinity") return -Infinity;
  return null;
}

/** A measured value in about `digits` digits. @param {number | null | undefined} value @param {number} [digits] */
export function formatValue(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "−Inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-3 ? exponential(value, digits) : value.toPrecision(digits);
  const plain = text.includes("e+") ? whole.format(Number(text)) : text;
  return plain.replace("-", "−");
}

/** @param {number} value @param {number} digits */
function exponential(value, digits) {
  return value.toExponential(Math.max(0, digits - 2)).replace("e+", "e");
}

/** @param {number | null | undefined} value */
export const formatCount = (value) => (value === null || value === undefined ? "–" : whole.format(value));

/** @param {number | null | undefined} share 0..1 */
export function formatShare(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return "–";
  const percent = share * 100;
  if (percent > 0 && percent < 0.1) return "<0.1 %";
  return `${percent >= 99.95 || percent === 0 ? percent.toFixed(0) : percent.toFixed(1)} %`;
}

/** A duration, coarse: "8 s", "3 min 20 s", "2 h 5 min", "4 d". @param {number | null | undefined} seconds */
export function formatDuration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const total = Math.max(0, seconds);
  if (total < 10) return `${total.toFixed(total < 1 ? 1 : 0)} s`;
  if (total < 60) return `${Math.round(total)} s`;
  const minutes = Math.floor(total / 60);
  if (minutes < 10) return `${minutes} min ${Math.floor(total % 60)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago, in one unit. @param {number | null | undefined} seconds */
export function formatAge(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1.5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86_400)} d ago`;
}

/** @param {number | null | undefined} seconds per step */
export function formatRate(seconds) {
  if (!seconds || !Number.isFinite(seconds) || seconds <= 0) return "–";
  const rate = 1 / seconds;
  return rate >= 0.1 ? `${rate >= 100 ? rate.toFixed(0) : rate.toPrecision(3)} it/s` : `${formatDuration(seconds)}/it`;
}

/** A range of steps. @param {number} first @param {number} last */
export const formatSteps = (first, last) =>
  first === last ? `step ${formatCount(first)}` : `steps ${formatCount(first)} – ${formatCount(last)}`;

/**
 * A dotted layer name cut to `length` characters; its end, which tells siblings apart, stays whole.
 * @param {string} name @param {number} length
 */
export function shortenName(name, length) {
  if (name.length <= length) return name;
  const end = name.slice(name.length - length + 1);
  const dot = end.indexOf(".");
  // A cut between two parts of the name reads better than one inside a part, where that costs little.
  return `…${dot >= 0 && dot < end.length / 3 ? end.slice(dot + 1) : end}`;
}

/** Date and time of a unix time, in the reader's zone. @param {number | null | undefined} seconds */
export const formatTime = (seconds) =>
  seconds === null || seconds === undefined
    ? "–"
    : new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

// @ts-check
/**
 * The numbers of a view: columns of steps, each reduced to min, max, mean, last, count and non-finite count per series,
 * and per layer where asked. Pure: every function returns new values and leaves its arguments alone.
 */

import { columnsFromJson, numbers, split } from "./frames.js";

/**
 * @typedef {object} Stats one series, one entry per column
 * @property {Float64Array} min @property {Float64Array} max @property {Float64Array} mean @property {Float64Array} last
 * @property {Uint32Array} count @property {Uint32Array} nonfinite
 */
/**
 * @typedef {object} Cells one column of the heatmap, one entry per layer: views into the received frame
 * @property {Float32Array} min @property {Float32Array} max @property {Float32Array} mean
 * @property {Uint32Array} count @property {Uint32Array} nonfinite
 */
/**
 * @typedef {object} Table
 * @property {number} width steps per column, a power of two
 * @property {Float64Array} first @property {Float64Array} last first and last step of each column, ascending
 * @property {Map<string, Stats>} series
 * @property {number} layers @property {Cells[]} cells
 */

const FLOATS = /** @type {const} */ (["min", "max", "mean", "last"]);
const COUNTS = /** @type {const} */ (["count", "nonfinite"]);
const CELL_FIELDS = /** @type {const} */ (["min", "max", "mean", "count", "nonfinite"]);

/** @returns {Table} */
export const emptyTable = () => ({
  width: 1,
  first: new Float64Array(),
  last: new Float64Array(),
  series: new Map(),
  layers: 0,
  cells: [],
});

/**
 * The table a SNAPSHOT or DELTA frame carries.
 * @param {import("./frames.js").Frame} frame @returns {Table}
 */
export function tableFromFrame({ header, body }) {
  const parts = split(body, columnsFromJson(header.columns), header.rows);
  const series = new Map();
  for (const name of header.series) {
    series.set(name, Object.fromEntries([...FLOATS, ...COUNTS].map((field) => [field, parts.get(`${name}.${field}`)])));
  }
  const layers = header.layers ?? 0;
  return {
    width: header.width,
    first: numbers(/** @type {any} */ (parts.get("first"))),
    last: numbers(/** @type {any} */ (parts.get("last"))),
    series,
    layers,
    cells: layers ? cellsOf(parts, header.metric ?? "grad_norm", header.rows, layers) : [],
  };
}

/**
 * @param {Map<string, any>} parts @param {string} metric @param {number} rows @param {number} layers
 * @returns {Cells[]}
 */
function cellsOf(parts, metric, rows, layers) {
  return Array.from(
    { length: rows },
    (_, row) =>
      /** @type {any} */ (
        Object.fromEntries(
          CELL_FIELDS.map((field) => [
            field,
            parts.get(`${metric}.${field}`).subarray(row * layers, (row + 1) * layers),
          ]),
        )
      ),
  );
}

/**
 * Both tables as one, in step order; a column of `newer` takes the place of one with the same first step.
 * @param {Table} older @param {Table} newer @returns {Table}
 */
export function merge(older, newer) {
  if (!newer.first.length) return older;
  if (!older.first.length) return newer;
  const order = mergeOrder(older.first, newer.first);
  /** @template T @param {ArrayLike<T>} a @param {ArrayLike<T>} b @param {any} into */
  const gather = (a, b, into) => {
    for (let at = 0; at < order.length; at++) into[at] = order[at] < 0 ? b[~order[at]] : a[order[at]];
    return into;
  };
  const layers = Math.max(older.layers, newer.layers);
  const series = new Map();
  for (const name of new Set([...older.series.keys(), ...newer.series.keys()])) {
    const a = older.series.get(name) ?? missing(older.first.length);
    const b = newer.series.get(name) ?? missing(newer.first.length);
    const stats = /** @type {any} */ ({});
    for (const field of FLOATS) stats[field] = gather(a[field], b[field], new Float64Array(order.length));
    for (const field of COUNTS) stats[field] = gather(a[field], b[field], new Uint32Array(order.length));
    series.set(name, stats);
  }
  return {
    width: newer.width,
    first: gather(older.first, newer.first, new Float64Array(order.length)),
    last: gather(older.last, newer.last, new Float64Array(order.length)),
    series,
    layers,
    cells: layers ? gather(older.cells, newer.cells, new Array(order.length)) : [],
  };
}

/**
 * Where each merged column comes from: i for the older's, ~i for the newer's.
 * @param {Float64Array} a @param {Float64Array} b
 */
function mergeOrder(a, b) {
  const order = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (j >= b.length || a[i] < b[j]) order.push(i++);
    else {
      if (a[i] === b[j]) i++;
      order.push(~j++);
    }
  }
  return order;
}

/** @param {number} length @returns {Stats} */
function missing(length) {
  const nan = new Float64Array(length).fill(NaN);
  return {
    min: nan,
    max: nan,
    mean: nan,
    last: nan,
    count: new Uint32Array(length),
    nonfinite: new Uint32Array(length),
  };
}

/** The table without the columns that end before `step`. @param {Table} table @param {number} step @returns {Table} */
export function trim(table, step) {
  const from = table.last.findIndex((last) => last >= step);
  if (from === 0 || !table.first.length) return table;
  const start = from < 0 ? table.first.length : from;
  const series = new Map();
  for (const [name, stats] of table.series) {
    series.set(name, Object.fromEntries(Object.entries(stats).map(([field, array]) => [field, array.subarray(start)])));
  }
  return {
    ...table,
    series,
    first: table.first.subarray(start),
    last: table.last.subarray(start),
    cells: table.cells.slice(start),
  };
}

/**
 * The indices [from, to) of the columns that touch the steps first..last.
 * @param {Table} table @param {[number, number]} range
 */
export function within(table, [first, last]) {
  let from = 0;
  let to = table.first.length;
  while (from < to && table.last[from] < first) from++;
  while (to > from && table.first[to - 1] > last) to--;
  return { from, to };
}

/** The column nearest to `step`, or -1 in an empty table. @param {Table} table @param {number} step */
export function columnAt(table, step) {
  let low = 0;
  let high = table.first.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (table.first[middle] <= step) low = middle;
    else high = middle - 1;
  }
  const gap = step - table.last[low];
  return low + 1 < table.first.length && gap > 0 && table.first[low + 1] - step < gap ? low + 1 : low;
}

/** The step at which a column is drawn. @param {Table} table @param {number} at */
export const centre = (table, at) => (table.first[at] + Math.max(table.first[at], table.last[at])) / 2;

/** @typedef {{from: number, to: number}} Span indices [from, to) */

/**
 * The share (0..1) of the last `window` steps for which `name` (0 or 1 per step) was 1, at the end of each column.
 * @param {Table} table @param {string} name @param {number} [window]
 */
export function rollingShare(table, name, window = 200) {
  const stats = table.series.get(name);
  const share = new Float64Array(table.first.length).fill(NaN);
  if (!stats) return share;
  const ones = (/** @type {number} */ at) => (stats.count[at] ? stats.mean[at] * stats.count[at] : 0);
  let sum = 0;
  let count = 0;
  for (let at = 0, start = 0; at < share.length; at++) {
    sum += ones(at);
    count += stats.count[at];
    for (; start < at && table.first[start] <= table.last[at] - window; start++) {
      sum -= ones(start);
      count -= stats.count[start];
    }
    if (count) share[at] = Math.min(1, Math.max(0, sum / count));
  }
  return share;
}

/**
 * How many steps of a column were left out: by the hook, and by a GradScaler whose loss scale was too large.
 * @param {Table} table @param {number} at
 */
export function skipsAt(table, at) {
  const sum = (/** @type {string} */ name) => {
    const stats = table.series.get(name);
    return stats?.count[at] ? Math.round(stats.mean[at] * stats.count[at]) : 0;
  };
  const scaler = sum("overflowed");
  return { hook: Math.max(0, sum("skipped") - 2 * scaler), scaler }; // of `skipped`, the GradScaler's steps are 2
}

/**
 * Values of a series that were not finite, but for norms that overflowed only with the loss scale.
 * @param {Table} table @param {string} name @param {number} at
 */
export function nonfiniteCount(table, name, at) {
  const count = table.series.get(name)?.nonfinite[at] ?? 0;
  return name === "total_norm" ? Math.max(0, count - skipsAt(table, at).scaler) : count;
}

/**
 * Whether the column holds anything non-finite: in loss, in norm or in a gradient. The ordinary overflow of a
 * GradScaler is not meant.
 * @param {Table} table @param {number} at
 */
export function nonfiniteAt(table, at) {
  const seen = table.series.get("nonfinite");
  return Boolean(
    nonfiniteCount(table, "loss", at) ||
    nonfiniteCount(table, "total_norm", at) ||
    (seen?.count[at] && seen.max[at] > 0 && !skipsAt(table, at).scaler),
  );
}

/**
 * The last value present in a series, which may be NaN; undefined when there is none.
 * @param {Table} table @param {string} name
 */
export function newest(table, name) {
  const stats = table.series.get(name);
  for (let at = table.first.length - 1; stats && at >= 0; at--) {
    if (stats.count[at] || stats.nonfinite[at]) return stats.last[at];
  }
  return undefined;
}

/** The mean of a series over the table, or undefined. @param {Table} table @param {string} name */
export function meanOf(table, name) {
  const stats = table.series.get(name);
  let sum = 0;
  let count = 0;
  for (let at = 0; stats && at < table.first.length; at++) {
    if (stats.count[at]) ((sum += stats.mean[at] * stats.count[at]), (count += stats.count[at]));
  }
  return count ? sum / count : undefined;
}

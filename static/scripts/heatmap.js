// @ts-check
/**
 * Layers x steps as an image: one pixel per column and row, coloured on a log scale by the column's maximum, so that a
 * spike of one step shows at every zoom. Pure arrays; parts/heatmap.js puts them on a canvas.
 */

/** @typedef {import("./series.js").Table} Table */
/** @typedef {[number, number]} Scale lowest and highest colour, in log10 */

/** viridis in ten stops: even in lightness, told apart with every kind of colour vision */
const STOPS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const MAX_COLUMNS = 8_192;
const SAMPLES = 20_000;

/** 256 colours as the four bytes of a canvas pixel (little-endian: 0xAABBGGRR). */
export const LUT = Uint32Array.from({ length: 256 }, (_, at) => {
  const place = (at / 255) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(place));
  const [a, b] = [STOPS[low], STOPS[low + 1]].map((hex) => Number.parseInt(hex, 16));
  const mix = (/** @type {number} */ shift) =>
    Math.round(((a >> shift) & 255) * (1 - place + low) + ((b >> shift) & 255) * (place - low));
  return ((255 << 24) | (mix(0) << 16) | (mix(8) << 8) | mix(16)) >>> 0;
});

/** The scale in a few steps, for drawings that mix between them. */
export const STOP_COLOURS = STOPS.map((hex) => `#${hex}`);

/** A colour of the scale for style sheets. @param {number} at 0..255 */
export const lutColour = (at) => `rgb(${LUT[at] & 255}, ${(LUT[at] >> 8) & 255}, ${(LUT[at] >> 16) & 255})`;

/**
 * The colour scale of a table: quantiles, so that one explosion does not swallow the rest, on quarter decades, so that
 * the colours hold still while data stream in.
 * @param {Table} table @param {import("./series.js").Span} span @returns {Scale}
 */
export function scaleOf(table, { from, to }) {
  const stride = Math.max(1, Math.floor(((to - from) * table.layers) / SAMPLES));
  /** @type {number[]} */ const values = [];
  for (let at = 0; at < (to - from) * table.layers; at += stride) {
    const cells = table.cells[from + Math.floor(at / table.layers)];
    const value = cells?.max[at % table.layers];
    if (value > 0 && Number.isFinite(value)) values.push(value);
  }
  if (!values.length) return [-3, 0];
  values.sort((a, b) => a - b);
  const quantile = (/** @type {number} */ share) =>
    Math.log10(values[Math.min(values.length - 1, Math.floor(share * values.length))]);
  const low = Math.floor(quantile(0.01) * 4) / 4;
  return [low, Math.max(low + 0.5, Math.ceil(quantile(0.995) * 4) / 4)];
}

/** @typedef {{row: number, from: number, to: number}} Stretch image columns from..to (inclusive) of one row */
/**
 * @typedef {object} Raster
 * @property {Uint32Array} pixels @property {number} columns @property {number} rows
 * @property {number} first step at the left edge of the image @property {number} width steps per image column
 * @property {Stretch[]} nonfinite stretches that hold something non-finite
 */

/**
 * Paints the table. Where there are fewer rows than layers, or `fold` columns to one, a pixel shows the highest of what
 * it stands for: scaling an image down would lose the one column with the spike.
 * @param {Table} table @param {number[]} order layer indices from top to bottom @param {number} maxRows
 * @param {Scale} scale
 * @param {number} [fold] @returns {Raster}
 */
export function raster(table, order, maxRows, scale, fold = 1) {
  const count = table.first.length;
  const first = count ? table.first[0] : 0;
  const width = table.width * fold;
  const columns = count ? Math.min(MAX_COLUMNS, Math.floor((table.first[count - 1] - first) / width) + 1) : 0;
  const rows = Math.max(1, Math.min(order.length, Math.floor(maxRows)));
  const pixels = new Uint32Array(columns * rows);
  const bad = new Uint8Array(columns * rows);
  const rowOf = order.map((_, place) => Math.floor((place * rows) / order.length));
  const peak = new Float64Array(rows).fill(-1);
  for (let at = 0, shown = 0; at < count; at++) {
    const x = Math.floor((table.first[at] - first) / width);
    if (x >= columns || !table.cells[at]) continue;
    if (x !== shown) peak.fill(-1);
    shown = x;
    columnPeaks(table.cells[at], order, rowOf, peak, bad, x, columns);
    for (let row = 0; row < rows; row++) if (peak[row] >= 0) pixels[row * columns + x] = LUT[shade(peak[row], scale)];
  }
  return { pixels, columns, rows, first, width, nonfinite: stretches(bad, columns, rows) };
}

/**
 * @param {import("./series.js").Cells} cells @param {number[]} order @param {number[]} rowOf @param {Float64Array} peak
 * @param {Uint8Array} bad @param {number} x @param {number} columns
 */
function columnPeaks(cells, order, rowOf, peak, bad, x, columns) {
  for (let place = 0; place < order.length; place++) {
    const layer = order[place];
    const row = rowOf[place];
    if (cells.count[layer] && cells.max[layer] > peak[row]) peak[row] = cells.max[layer];
    if (cells.nonfinite[layer]) bad[row * columns + x] = 1;
  }
}

/** The place 0..255 of a value on the scale. @param {number} value @param {Scale} scale */
export function shade(value, [low, high]) {
  if (!(value > 0)) return 0;
  return Math.max(0, Math.min(255, Math.round(((Math.log10(value) - low) / (high - low)) * 255)));
}

/** @param {Uint8Array} bad @param {number} columns @param {number} rows @returns {Stretch[]} */
function stretches(bad, columns, rows) {
  const found = [];
  for (let row = 0; row < rows; row++) {
    for (let x = 0; x < columns; x++) {
      if (!bad[row * columns + x]) continue;
      const from = x;
      while (x + 1 < columns && bad[row * columns + x + 1]) x++;
      found.push({ row, from, to: x });
    }
  }
  return found;
}

/** Layer indices in execution order, the input's side first. @param {{index: number, order: number}[]} layers */
export const executionOrder = (layers) =>
  [...layers].sort((a, b) => a.order - b.order || a.index - b.index).map(({ index }) => index);

/**
 * Which rows get a name: every nth, so that names keep `space` pixels each.
 * @param {number} rows @param {number} height @param {number} [space]
 */
export function namedRows(rows, height, space = 12) {
  const every = Math.max(1, Math.ceil((rows * space) / Math.max(1, height)));
  return Array.from({ length: Math.ceil(rows / every) }, (_, at) => at * every);
}

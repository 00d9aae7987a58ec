// @ts-check
/** Where axes begin and end, and what stands beside them. Pure. */

/**
 * Labels of a log axis: every nth decade where the range is wide, steps between where it is narrow.
 * @param {[number, number]} range in log10 @returns {{values?: number[], labels?: string[]}}
 */
export function logTicks([low, high]) {
  const decades = high - low;
  const every = Math.max(1, Math.ceil(decades / 5));
  const digits = decades > 2.5 ? [1] : decades > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 4, 5, 7];
  const values = [];
  for (let power = Math.floor(low); power <= high; power++) {
    if (power % every === 0) values.push(...digits.map((digit) => digit * 10 ** power));
  }
  const shown = values.filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
  const label = (/** @type {number} */ value) =>
    value >= 1e6 || value < 1e-3 ? value.toExponential().replace("e+", "e") : String(Number(value.toPrecision(2)));
  return shown.length > 1 ? { values: shown, labels: shown.map(label) } : {};
}

/**
 * The range of a y axis around [low, high] with a little air; log ranges in log10.
 * @param {[number, number] | null} extent @param {boolean} log @returns {[number, number]}
 */
export function airy(extent, log) {
  if (!extent) return log ? [-3, 1] : [0, 1];
  const [low, high] = log ? extent.map(Math.log10) : extent;
  const air = (high - low) * 0.07 || (log ? 0.3 : Math.abs(high) * 0.1 || 0.5);
  return [low - air, high + air];
}

/**
 * Ranges around two extents with the same scale on both axes, for a plot of so many pixels: distances stay distances.
 * @param {[number, number]} across @param {[number, number]} up @param {number} width @param {number} height
 * @returns {{x: [number, number], y: [number, number]}}
 */
export function equalRanges(across, up, width, height) {
  const scale =
    1.12 * Math.max((across[1] - across[0]) / width, (up[1] - up[0]) / height) || 1 / Math.min(width, height);
  const around = (/** @type {[number, number]} */ [low, high], /** @type {number} */ pixels) => {
    const [middle, half] = [(low + high) / 2, (scale * pixels) / 2];
    return /** @type {[number, number]} */ ([middle - half, middle + half]);
  };
  return { x: around(across, width), y: around(up, height) };
}

/**
 * The lowest and highest finite value, or null.
 * @param {Iterable<number | null>} values @returns {[number, number] | null}
 */
export function finiteExtent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

// @ts-check
/**
 * A signed scale that is logarithmic on both sides of zero, and its colours: what falls and what rises by a thousandth
 * shows beside what explodes. Pure.
 */

const DECADES = 3; // from the top down to where the scale turns linear

/**
 * The end of a scale for values: their size that only few exceed, rounded up to 1, 2 or 5, so that colours hold still
 * while data stream in.
 * @param {(number | null)[]} values @param {number} [share] of the values within the scale
 */
export function topOf(values, share = 0.97) {
  const sizes = [];
  for (const value of values) if (value !== null && Number.isFinite(value) && value !== 0) sizes.push(Math.abs(value));
  if (!sizes.length) return 1;
  sizes.sort((a, b) => a - b);
  const size = sizes[Math.min(sizes.length - 1, Math.floor(share * sizes.length))];
  const power = 10 ** Math.floor(Math.log10(size));
  return ([1, 2, 5].find((digit) => digit * power >= size * (1 - 1e-12)) ?? 10) * power;
}

/**
 * The place -1..1 of a value on a scale from -top to top; what lies beyond stands at its end.
 * @param {number} value @param {number} top
 */
export function placeOf(value, top) {
  const linear = top / 10 ** DECADES;
  const place = Math.log1p(Math.abs(value) / linear) / Math.log1p(top / linear);
  return Math.sign(value) * Math.min(1, place);
}

/** The value at a place: the inverse of `placeOf`. @param {number} place -1..1 @param {number} top */
export function valueAt(place, top) {
  const linear = top / 10 ** DECADES;
  return Math.sign(place) * linear * Math.expm1(Math.abs(place) * Math.log1p(top / linear));
}

/**
 * Colours evenly between stops.
 * @param {string[]} stops #rrggbb @param {number} count
 */
export function ramp(stops, count) {
  return Array.from({ length: count }, (_, at) => {
    const place = (at / (count - 1)) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(place));
    const [a, b] = [stops[low], stops[low + 1]].map((hex) => Number.parseInt(hex.slice(1), 16));
    const mix = (/** @type {number} */ shift) =>
      Math.round(((a >> shift) & 255) * (1 - place + low) + ((b >> shift) & 255) * (place - low));
    return `rgb(${mix(16)}, ${mix(8)}, ${mix(0)})`;
  });
}

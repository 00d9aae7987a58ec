// @ts-check
/**
 * Cells that are no colour of a scale: what is not finite is dark and crossed out, what was not computed is left open.
 */

import { colours } from "../theme.js";

/** @typedef {CanvasRenderingContext2D} Pen */

/** @type {Map<string, CanvasPattern | null>} */
const patterns = new Map();

/** Diagonals on nothing. @param {Pen} pen @param {string} colour */
export function hatching(pen, colour) {
  const known = patterns.get(colour);
  if (known !== undefined) return known;
  const tile = document.createElement("canvas");
  Object.assign(tile, { width: 6, height: 6 });
  const brush = tile.getContext("2d");
  if (!brush) return null;
  brush.strokeStyle = colour;
  brush.lineWidth = 1;
  brush.beginPath();
  for (const [x, y, toX, toY] of [
    [-1, 7, 7, -1],
    [-1, 1, 1, -1],
    [5, 7, 7, 5],
  ]) {
    brush.moveTo(x, y);
    brush.lineTo(toX, toY);
  }
  brush.stroke();
  const pattern = pen.createPattern(tile, "repeat");
  patterns.set(colour, pattern);
  return pattern;
}

/**
 * Not finite.
 * @param {Pen} pen @param {number} left @param {number} top @param {number} width @param {number} height
 */
export function drawHatch(pen, left, top, width, height) {
  pen.fillStyle = "#0b0b0f";
  pen.fillRect(left, top, width, height);
  pen.fillStyle = hatching(pen, "rgba(255, 255, 255, 0.55)") ?? pen.fillStyle;
  pen.fillRect(left, top, width, height);
}

/**
 * Not computed.
 * @param {Pen} pen @param {number} left @param {number} top @param {number} width @param {number} height
 */
export function drawVoid(pen, left, top, width, height) {
  pen.fillStyle = colours().surface;
  pen.fillRect(left, top, width, height);
  pen.fillStyle = hatching(pen, colours().grid) ?? pen.fillStyle;
  pen.fillRect(left, top, width, height);
}

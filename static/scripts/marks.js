// @ts-check
/** Marks that are told apart by their shape. */

/**
 * A cross at the top edge of a chart: something non-finite, which no axis can show.
 * @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {string} colour
 * @param {number} [size]
 */
export function drawCross(pen, x, y, colour, size = 4) {
  pen.strokeStyle = colour;
  pen.lineWidth = 1.75;
  pen.beginPath();
  pen.moveTo(x - size, y - size);
  pen.lineTo(x + size, y + size);
  pen.moveTo(x + size, y - size);
  pen.lineTo(x - size, y + size);
  pen.stroke();
}

/**
 * A ring: a step that a GradScaler leaves out, to lower its loss scale.
 * @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {string} colour
 */
export function drawRing(pen, x, y, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 1.75;
  pen.beginPath();
  pen.arc(x, y, 3.5, 0, 2 * Math.PI);
  pen.stroke();
}

// Surfaces: which grid is drawn, its scale and cap, what is missing, and the in-plane gradient.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  cappedIn,
  cellAt,
  countsOf,
  emptyCells,
  finerPoints,
  gradientGrid,
  latticeOf,
  onScale,
  scaleOf,
  scaleTicks,
  stridesOf,
} from "../../static/scripts/surface.js";

const SIZE = 33;
const axis = (low, high, size = SIZE) =>
  Array.from({ length: size }, (_, at) => low + ((high - low) * at) / (size - 1));

/** A surface of `loss(u, v)` where `has(i, j)`. */
function surface(loss, has = () => true, { levels = 17, unit_u = 1, unit_v = 1, size = SIZE } = {}) {
  const [u, v] = [axis(-1, 3, size), axis(-2, 2, size)];
  const grid = v.map((y, j) => u.map((x, i) => (has(i, j) ? loss(x, y) : null)));
  const computed = grid.flat().filter((value) => value !== null).length;
  return { u, v, loss: grid, about: { levels, size }, unit_u, unit_v, computed };
}
const on = (stride) => (i, j) => i % stride === 0 && j % stride === 0;

test("the finest grid that is whole is drawn, and finer points beside it", () => {
  assert.deepEqual(stridesOf(33), [8, 4, 2, 1]);
  assert.deepEqual(stridesOf(17), [4, 2, 1]);
  const made = surface(
    (x, y) => 10 + x + y,
    (i, j) => on(4)(i, j) || (on(2)(i, j) && i < 9),
  );
  const lattice = latticeOf(made);
  assert.equal(lattice.stride, 4);
  assert.deepEqual([lattice.u.length, lattice.v.length, lattice.z.length, lattice.z[0].length], [9, 9, 9, 9]);
  assert.equal(lattice.z[2][1], 10 + made.u[4] + made.v[8], "rows go along v, columns along u");
  const finer = finerPoints(made, 4, made.loss);
  assert.equal(finer.length, 5 * 17 - 3 * 9);
  for (const { x, y, value } of finer) assert.equal(value, 10 + x + y);
});

test("a grid with few holes is drawn with its holes, never with anything in them", () => {
  const made = surface(
    (x, y) => (x === 1 && y === 0 ? NaN : x === -1 && y === -2 ? Infinity : 1 + x * x),
    (i, j) => on(2)(i, j) && !(i === 4 && j === 6),
  );
  const { stride, z } = latticeOf(made);
  assert.equal(stride, 2);
  assert.equal(z[3][2], null);
  const { nonfinite, missing } = emptyCells(made, stride);
  assert.deepEqual(nonfinite, [
    { i: 0, j: 0 },
    { i: 16, j: 16 },
  ]);
  assert.deepEqual(missing, [{ i: 4, j: 6 }]);
  const scale = scaleOf(made.loss);
  assert.deepEqual(
    z
      .flat()
      .map((value) => onScale(value, scale))
      .filter((value) => value === null).length,
    3,
  );
  assert.deepEqual(countsOf(made), { wanted: 289, missing: 1, finer: 0 });
  assert.deepEqual(
    countsOf(
      surface(
        () => 1,
        () => true,
      ),
    ),
    { wanted: 289, missing: 0, finer: 1089 - 289 },
  );
});

test("before the first grid is whole, the coarsest is drawn with what it has", () => {
  const made = surface(
    () => 1,
    (i, j) => i === 16 && j === 16,
  );
  assert.equal(latticeOf(made).stride, 8);
  assert.deepEqual(
    latticeOf(made)
      .z.flat()
      .filter((value) => value !== null),
    [1],
  );
});

test("the scale is logarithmic, and a few that tower over the rest are capped and counted", () => {
  const plain = scaleOf([[1, 10, null, NaN, 100]]);
  assert.deepEqual(plain, { shift: 0, low: 0, high: 2, cap: null });
  assert.equal(onScale(10, plain), 1);
  assert.deepEqual(
    [NaN, Infinity, null].map((value) => onScale(value, plain)),
    [null, null, null],
  );
  assert.deepEqual(scaleTicks(plain, 3), { values: [0, 1, 2], labels: ["1.00", "10.0", "100"] });
  const values = [[...Array.from({ length: 99 }, (_, at) => 1 + at / 100), 1e6]];
  const capped = scaleOf(values);
  assert.equal(capped.cap, 1.96);
  assert.equal(cappedIn(values, capped), 3, "1.97, 1.98 and the tower");
  assert.equal(onScale(1e6, capped), Math.log10(1.96));
  assert.equal(scaleTicks(capped, 2).labels[1], "≥ 1.96");
  assert.equal(cappedIn(values, plain), 0);
});

test("losses at zero and below are lifted; none at all have no scale", () => {
  const scale = scaleOf([[-1, 0, 999]]);
  assert.ok(Math.abs(scale.shift - 2) < 1e-12);
  assert.ok(onScale(-1, scale) < onScale(0, scale) && onScale(0, scale) < onScale(999, scale));
  assert.deepEqual(scaleTicks(scale, 2).labels, ["−1.00", "999"]);
  assert.equal(onScale(-5, scale), null);
  assert.equal(scaleOf([[null, NaN, Infinity]]), null);
  const flat = scaleOf([[0, 0]]);
  assert.ok(Number.isFinite(onScale(0, flat)) && flat.high > flat.low);
});

test("the in-plane gradient agrees with the formula, in units of weight space", () => {
  const [unit_u, unit_v] = [0.5, 4];
  const made = surface((x, y) => 1 + 3 * x * x - 2 * x * y + y * y, on(2), { unit_u, unit_v });
  const grid = gradientGrid(made, 2);
  for (let j = 2; j < SIZE - 2; j += 2) {
    for (let i = 2; i < SIZE - 2; i += 2) {
      const [x, y] = [made.u[i], made.v[j]];
      // central differences are exact for a quadratic
      const exact = Math.hypot((6 * x - 2 * y) / unit_u, (2 * y - 2 * x) / unit_v);
      assert.ok(Math.abs(grid[j][i] - exact) < 1e-9, `${i}, ${j}`);
    }
  }
  assert.equal(grid[3][3], null, "not on the grid");
});

test("the gradient takes one side where the other is missing, and is a gap where both are", () => {
  const linear = surface(
    (x, y) => (x > 2.9 ? NaN : 5 + 2 * x + 7 * y),
    (i, j) => !(i === 11 && j === 10) && !(j === 20 && (i === 4 || i === 6)),
  );
  const grid = gradientGrid(linear, 1);
  const slope = Math.hypot(2, 7);
  for (const [i, j] of [
    [0, 0], // a corner
    [10, 10], // beside a hole
    [31, 5], // beside what is not finite
    [8, 8],
  ])
    assert.ok(Math.abs(grid[j][i] - slope) < 1e-9, `${i}, ${j}`);
  assert.equal(grid[20][5], null, "nothing on either side along u");
  assert.equal(grid[10][11], null);
  assert.equal(grid[5][32], null);
});

test("the nearest cell of the drawn grid", () => {
  const lattice = latticeOf(surface(() => 1, on(8), { levels: 5 }));
  assert.deepEqual(cellAt(lattice, -1, 2), { i: 0, j: 32 });
  assert.deepEqual(cellAt(lattice, 0.2, -0.4), { i: 8, j: 16 });
  assert.deepEqual(cellAt(lattice, 99, 99), { i: 32, j: 32 });
});

// The tape's cells and lines, its signed scale, and what axes make of extents.
import assert from "node:assert/strict";
import { test } from "node:test";
import { equalRanges, finiteExtent } from "../../static/scripts/axes.js";
import { placeOf, ramp, topOf, valueAt } from "../../static/scripts/diverging.js";
import {
  changes,
  columnNear,
  columnsOf,
  criticalLine,
  criticalOf,
  edgesOf,
  sharpnessLines,
} from "../../static/scripts/tape.js";

const probe = (step, more = {}) => ({
  probe: step,
  step,
  base: 1,
  loss: [],
  critical_low: NaN,
  critical_high: NaN,
  ...more,
});

test("a column reaches half way to its neighbours, but not over a pause", () => {
  const columns = columnsOf([10, 20, 30, 40, 100, 110].reverse().map((step) => probe(step)));
  assert.deepEqual(
    columns.map(({ probe: { step }, from, to }) => [step, from, to]),
    [
      [10, 5, 15],
      [20, 15, 25],
      [30, 25, 35],
      [40, 35, 45],
      [100, 95, 105],
      [110, 105, 115],
    ],
  );
  assert.deepEqual(columnsOf([probe(7)]), [{ probe: probe(7), from: 6.5, to: 7.5 }]);
  assert.deepEqual(columnsOf([]), []);
  const at = (step) => columnNear(columns, step)?.probe.step ?? null;
  assert.deepEqual([-40, 0, 14, 16, 47, 70, 88, 300].map(at), [null, 10, 10, 20, 40, null, 100, null]);
});

test("cells stand at their true alphas", () => {
  assert.deepEqual(edgesOf([-0.5, 0, 1, 2, 4]), [-0.75, -0.25, 0.5, 1.5, 3, 5]);
  assert.deepEqual(edgesOf([1]), [0.5, 1.5]);
  assert.deepEqual(edgesOf([]), []);
});

test("changes keep what is missing apart from what is not finite", () => {
  assert.deepEqual(changes(probe(0, { base: 2, loss: [1, null, 5, Infinity, NaN] })), [-1, null, 3, Infinity, NaN]);
  assert.deepEqual(changes(probe(0, { base: null, loss: [1] })), [null]);
});

test("the critical step: found, beyond what was tried, at once, or not measured", () => {
  const cases = [
    [1.9, 2.1, { alpha: 2, bracket: "at" }],
    [64, Infinity, { alpha: 64, bracket: "beyond" }],
    [0, 0.01, { alpha: 0.01, bracket: "at once" }],
    [NaN, NaN, { alpha: NaN, bracket: "unknown" }],
    [null, null, { alpha: NaN, bracket: "unknown" }],
  ];
  for (const [critical_low, critical_high, told] of cases)
    assert.deepEqual(criticalOf({ critical_low, critical_high }), told);
  const columns = columnsOf(
    cases.map(([critical_low, critical_high], at) => probe(at, { critical_low, critical_high })),
  );
  columns.push({ probe: probe(5, { critical_low: 7, critical_high: 7.2 }), from: 4.5, to: 5.5 });
  const { line, beyond, atOnce } = criticalLine(columns, 4);
  assert.deepEqual(line, { x: [0, 1, 2, 3, 4, 5], y: [2, null, 0.01, null, null, null] });
  assert.deepEqual(beyond, [1, 5]);
  assert.deepEqual(atOnce, { x: [2], y: [0.01] });
});

test("sharpness lines leave gaps where a log axis has no place", () => {
  const probes = [
    probe(3, { sharpness: 4, stability_threshold: NaN }),
    probe(1, { sharpness: 100, stability_threshold: 20 }),
    probe(2, { sharpness: 0, stability_threshold: 20 }),
    probe(4, { sharpness: null, stability_threshold: Infinity }),
  ];
  assert.deepEqual(sharpnessLines(probes), {
    x: [1, 2, 3, 4],
    sharpness: [100, null, 4, null],
    threshold: [20, 20, null, null],
    extent: [4, 100],
  });
  assert.equal(sharpnessLines([]).extent, null);
});

test("the signed scale is symmetric, keeps order and comes back", () => {
  const top = 0.5;
  const values = [-9, -0.5, -0.01, -1e-5, 0, 1e-5, 0.01, 0.5, 9];
  const places = values.map((value) => placeOf(value, top));
  assert.deepEqual(
    places.toReversed().map((place) => -place || 0),
    places.map((place) => place || 0),
  );
  assert.deepEqual(
    places,
    [...places].sort((a, b) => a - b),
  );
  assert.deepEqual([places[0], places[1], places[4], places[7]], [-1, -1, 0, 1]);
  for (const value of values.slice(1, -1))
    assert.ok(Math.abs(valueAt(placeOf(value, top), top) - value) <= 1e-12 * Math.max(1, Math.abs(value)));
  assert.ok(placeOf(0.01, top) > 0.3, "a fiftieth of the top is seen");
});

test("the scale's end is round and few exceed it", () => {
  assert.equal(topOf([0.012, -0.034, 0.04]), 0.05);
  assert.equal(topOf([0.2, -0.2]), 0.2);
  assert.equal(topOf([0.6, 0.9]), 1);
  assert.equal(topOf([0, null, NaN, Infinity]), 1);
  assert.equal(topOf([...Array(99).fill(0.001), 1e9]), 0.001);
  assert.equal(topOf([0.001, 1e9], 1), 1e9);
});

test("ramps begin and end at their stops", () => {
  assert.deepEqual(ramp(["#000000", "#0a141e", "#ffffff"], 5), [
    "rgb(0, 0, 0)",
    "rgb(5, 10, 15)",
    "rgb(10, 20, 30)",
    "rgb(133, 138, 143)",
    "rgb(255, 255, 255)",
  ]);
});

test("equal axes keep one scale and hold everything", () => {
  for (const [across, up, width, height] of [
    [[0, 10], [0, 1], 400, 300],
    [[-3, -2], [5, 50], 300, 400],
    [[1, 1], [2, 2], 300, 200],
  ]) {
    const { x, y } = equalRanges(across, up, width, height);
    assert.ok(Math.abs((x[1] - x[0]) / width - (y[1] - y[0]) / height) < 1e-12);
    assert.ok(x[0] <= across[0] && x[1] >= across[1] && y[0] <= up[0] && y[1] >= up[1]);
    assert.ok(x[1] > x[0]);
  }
  assert.deepEqual(finiteExtent([null, 3, NaN, -1, Infinity]), [-1, 3]);
  assert.equal(finiteExtent([null, NaN]), null);
});

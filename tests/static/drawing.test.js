// The heatmap's image and the pacer, both without a page.
import assert from "node:assert/strict";
import { test } from "node:test";
import { executionOrder, LUT, namedRows, raster, scaleOf, shade } from "../../static/scripts/heatmap.js";
import { Pacer } from "../../static/scripts/pacer.js";
import { tableFromFrame } from "../../static/scripts/series.js";
import { frame } from "./tables.js";

const range = (count) => Array.from({ length: count }, (_, at) => at);
const table = (columns, layers, cell, width = 1) =>
  tableFromFrame(
    frame(
      range(columns).map((at) => at * width),
      {},
      { width, layers, cell },
    ),
  );

test("the brightest pixel is the spike, also where rows and columns are folded", () => {
  const cell = (first, layer) => [first === 300 && layer === 37 ? 1e3 : 1];
  const made = table(512, 64, cell);
  for (const [rows, fold] of [
    [64, 1],
    [16, 1],
    [64, 4],
    [5, 7],
  ]) {
    const image = raster(made, range(64), rows, [0, 3], fold);
    const bright = [...image.pixels].flatMap((pixel, at) => (pixel === LUT[255] ? [at] : []));
    assert.deepEqual(bright, [Math.floor((37 * image.rows) / 64) * image.columns + Math.floor(300 / fold)]);
  }
});

test("non-finite cells are found at every fold; absent ones stay transparent", () => {
  const made = table(8, 4, (first, layer) => (layer === 1 ? [] : layer === 2 && first >= 3 && first < 6 ? [NaN] : [1]));
  const image = raster(made, range(4), 4, [0, 1]);
  assert.deepEqual(image.nonfinite, [{ row: 2, from: 3, to: 5 }]);
  assert.deepEqual([...image.pixels.subarray(8, 16)], Array(8).fill(0));
  assert.deepEqual(raster(made, range(4), 1, [0, 1], 8).nonfinite, [{ row: 0, from: 0, to: 0 }]);
});

test("columns with a gap between them stay apart", () => {
  const made = tableFromFrame(frame([0, 8], {}, { width: 2, layers: 1, cell: () => [1] }));
  assert.deepEqual([...raster(made, [0], 1, [0, 1]).pixels].map(Boolean), [true, false, false, false, true]);
});

test("the scale holds the bulk, on quarter decades; one explosion does not swallow it", () => {
  const made = table(400, 10, (first, layer) => [first === 5 && layer === 5 ? 1e20 : 0.1 + layer / 10]);
  const scale = scaleOf(made, { from: 0, to: 400 });
  assert.deepEqual(scale, [-1, 0]);
  assert.deepEqual(
    [0.01, 0.1, 1, 1e20, 0].map((value) => shade(value, scale)),
    [0, 0, 255, 255, 0],
  );
  assert.deepEqual(scaleOf(made, { from: 0, to: 0 }), [-3, 0]);
});

test("layers stand in execution order and names keep their distance", () => {
  assert.deepEqual(
    executionOrder([
      { index: 0, order: 2 },
      { index: 1, order: 0 },
      { index: 2, order: 2 },
    ]),
    [1, 0, 2],
  );
  assert.deepEqual(namedRows(10, 60), [0, 2, 4, 6, 8]);
  assert.deepEqual(namedRows(3, 600), [0, 1, 2]);
});

/** A pacer with a clock of its own; frames run when told. */
function paced() {
  const clock = { time: 0, hiding: false, frames: [], later: [] };
  const pacer = new Pacer({
    frame: (callback) => clock.frames.push(callback),
    now: () => clock.time,
    hidden: () => clock.hiding,
    delay: (callback, ms) => clock.later.push([clock.time + ms, callback]),
  });
  const drawn = [];
  for (const name of ["a", "b", "c"]) pacer.add(name, () => drawn.push(`${name}@${clock.time}`));
  const run = (until, step = 16) => {
    for (; clock.time < until; clock.time += step) {
      for (const entry of clock.later.filter(([due]) => due <= clock.time))
        (clock.later.splice(clock.later.indexOf(entry), 1), entry[1]());
      clock.frames.splice(0).forEach((callback) => callback());
    }
  };
  return { pacer, clock, drawn, run };
}

test("one drawing per frame, each at most four times a second", () => {
  const { pacer, drawn, run, clock } = paced();
  for (let at = 0; at < 100; at++) {
    for (const name of ["a", "b", "c"]) pacer.mark(name);
    run(clock.time + 10, 10);
  }
  const times = drawn.map((entry) => entry.split("@")[1]);
  assert.equal(new Set(times).size, times.length, "never two in one frame");
  for (const name of ["a", "b", "c"]) {
    const count = drawn.filter((entry) => entry.startsWith(name)).length;
    assert.ok(count >= 3 && count <= 5, `${name}: ${count}`);
  }
});

test("an urgent task does not starve the others, and a paused one waits", () => {
  const { pacer, drawn, run, clock } = paced();
  pacer.pause("c", true);
  for (let at = 0; at < 60; at++) {
    pacer.mark("a", true);
    pacer.mark("b");
    pacer.mark("c");
    run(clock.time + 16);
  }
  assert.ok(drawn.filter((entry) => entry.startsWith("b")).length >= 3);
  assert.ok(drawn.filter((entry) => entry.startsWith("a")).length > 40);
  assert.ok(!drawn.some((entry) => entry.startsWith("c")));
  pacer.pause("c", false);
  run(clock.time + 64);
  assert.ok(drawn.some((entry) => entry.startsWith("c")));
});

test("a hidden tab draws nothing until it is shown again", () => {
  const { pacer, drawn, run, clock } = paced();
  clock.hiding = true;
  pacer.mark("a", true);
  run(500);
  assert.deepEqual(drawn, []);
  clock.hiding = false;
  pacer.wake();
  run(600);
  assert.equal(drawn.length, 1);
});

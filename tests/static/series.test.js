import assert from "node:assert/strict";
import { test } from "node:test";
import { band, extent, line } from "../../static/scripts/lines.js";
import {
  centre,
  columnAt,
  emptyTable,
  meanOf,
  merge,
  newest,
  nonfiniteAt,
  nonfiniteCount,
  rollingShare,
  skipsAt,
  tableFromFrame,
  trim,
  within,
} from "../../static/scripts/series.js";
import { frame } from "./tables.js";

const range = (count, from = 0) => Array.from({ length: count }, (_, at) => from + at);
const table = (firsts, series, options) => tableFromFrame(frame(firsts, series, options));
const all = (of) => ({ from: 0, to: of.first.length });

test("a frame becomes a table; cells are views, not copies", () => {
  const read = frame(
    [0, 4],
    {
      loss: [
        [1, 2, 3, 6],
        [5, NaN],
      ],
    },
    { width: 4, layers: 2, cell: (first, layer) => [first + layer] },
  );
  const made = tableFromFrame(read);
  assert.deepEqual([...made.first], [0, 4]);
  assert.deepEqual([...made.last], [3, 7]);
  assert.deepEqual([...made.series.get("loss").mean], [3, 5]);
  assert.deepEqual([...made.series.get("loss").nonfinite], [0, 1]);
  assert.deepEqual([...made.cells[1].max], [4, 5]);
  assert.equal(made.cells[1].max.buffer, read.body.buffer);
});

test("a delta replaces columns with the same first step, fills holes and appends; the older table stays", () => {
  const older = table([0, 4, 12], { loss: [[1], [2], [3]] }, { width: 4, layers: 1 });
  const newer = table(
    [8, 12, 16],
    { loss: [[7], [8], [9]], extra: [[1], [1], [1]] },
    { width: 4, layers: 1, cell: () => [5] },
  );
  const both = merge(older, newer);
  assert.deepEqual([...both.first], [0, 4, 8, 12, 16]);
  assert.deepEqual([...both.series.get("loss").mean], [1, 2, 7, 8, 9]);
  assert.deepEqual([...both.series.get("extra").count], [0, 0, 1, 1, 1]);
  assert.deepEqual(
    both.cells.map(({ max }) => max[0]),
    [1, 1, 5, 5, 5],
  );
  assert.deepEqual([...older.series.get("loss").mean], [1, 2, 3]);
});

test("merging with nothing changes nothing", () => {
  const one = table([0], { loss: [[1]] });
  assert.equal(merge(emptyTable(), one), one);
  assert.equal(merge(one, emptyTable()), one);
});

test("trim drops columns that end before a step", () => {
  const made = table([0, 4, 8], { loss: [[1], [2], [3]] }, { width: 4 });
  assert.deepEqual([...trim(made, 5).first], [4, 8]);
  assert.equal(trim(made, 0), made);
  assert.equal(trim(made, 99).first.length, 0);
});

test("the column at a step is the nearest, also across a gap", () => {
  const made = table([0, 4, 100], { loss: [[1], [2], [3]] }, { width: 4 });
  assert.deepEqual(
    [-5, 3, 5, 40, 60, 500].map((step) => columnAt(made, step)),
    [0, 0, 1, 1, 2, 2],
  );
  assert.equal(columnAt(emptyTable(), 3), -1);
  assert.deepEqual(within(made, [5, 50]), { from: 1, to: 2 });
  assert.equal(centre(made, 1), 5.5);
});

test("a line breaks where there is no finite value; the band closes each unbroken stretch", () => {
  const made = table([0, 1, 2, 3], { loss: [[1, 3], [2, 4], [NaN], [5, 6]] });
  assert.deepEqual(line(made, made.series.get("loss").mean, all(made)).y, [2, 3, null, 5.5]);
  const outline = band(made, made.series.get("loss"), all(made));
  assert.deepEqual(outline.y, [3, 4, 2, 1, null, 6, 6, 5, 5]);
  assert.deepEqual(outline.x.slice(5), [2.5, 3.5, 3.5, 2.5]);
});

test("a spike of one step is the top of the extent, whatever the width", () => {
  for (const width of [1, 4, 64, 256]) {
    const values = range(256 / width).map((column) =>
      range(width, column * width).map((step) => (step === 77 ? 1e6 : 1)),
    );
    const made = table(
      range(256 / width).map((at) => at * width),
      { norm: values },
      { width },
    );
    assert.deepEqual(extent(made.series.get("norm"), all(made)), [1, 1e6]);
  }
});

test("the extent over a floor leaves out what a log axis cannot show", () => {
  const made = table([0, 1], { norm: [[0], [2, 8]] });
  assert.deepEqual(extent(made.series.get("norm"), all(made), 0), [2, 8]);
  assert.equal(extent(undefined, all(made)), null);
  assert.equal(extent(made.series.get("norm"), { from: 0, to: 0 }), null);
});

test("the rolling clip ratio over 200 steps is exact for single steps and near it for wider columns", () => {
  const clipped = range(1000).map((step) => (step % 7 === 0 || (step > 400 && step < 500) ? 1 : 0));
  const share = (step) => {
    const seen = clipped.slice(Math.max(0, step - 199), step + 1);
    return seen.reduce((sum, one) => sum + one, 0) / seen.length;
  };
  const single = rollingShare(table(range(1000), { clipped: clipped.map((one) => [one]) }), "clipped");
  for (const step of [0, 50, 199, 200, 450, 999])
    assert.ok(Math.abs(single[step] - share(step)) < 1e-12, `step ${step}`);
  const wide = rollingShare(
    table(
      range(125).map((at) => at * 8),
      { clipped: range(125).map((at) => clipped.slice(at * 8, at * 8 + 8)) },
      { width: 8 },
    ),
    "clipped",
  );
  for (const at of [40, 60, 124]) assert.ok(Math.abs(wide[at] - share(at * 8 + 7)) < 0.04, `column ${at}`);
  assert.ok(Number.isNaN(rollingShare(table([0], { loss: [[1]] }), "clipped")[0]));
});

test("a NaN is seen in loss, norm or gradients, and is the newest value when it is the last", () => {
  const made = table([0, 1, 2, 3], {
    loss: [[1], [NaN], [1], []],
    total_norm: [[1], [1], [1], [1]],
    nonfinite: [[0], [0], [3], [0]],
  });
  assert.deepEqual(
    range(4).map((at) => nonfiniteAt(made, at)),
    [false, true, true, false],
  );
  assert.equal(newest(made, "loss"), 1);
  assert.ok(Number.isNaN(newest(table([0, 1], { loss: [[1], [NaN]] }), "loss")));
  assert.equal(newest(made, "nowhere"), undefined);
  assert.equal(meanOf(table([0, 1], { s: [[1, 2], [6]] }), "s"), 3);
});

test("steps left out are counted by who left them out, in columns of any width", () => {
  const skipped = range(512).map((step) => (step % 50 === 3 ? 2 : step % 33 === 5 ? 1 : 0));
  for (const width of [1, 4, 64, 512]) {
    const firsts = range(512 / width).map((at) => at * width);
    const cut = (values) => firsts.map((first) => values.slice(first, first + width));
    const overflowed = skipped.map((who) => Number(who === 2));
    const made = table(firsts, { skipped: cut(skipped), overflowed: cut(overflowed) }, { width });
    firsts.forEach((first, at) => {
      const mine = skipped.slice(first, first + width);
      const count = (who) => mine.filter((one) => one === who).length;
      assert.deepEqual(skipsAt(made, at), { hook: count(1), scaler: count(2) });
    });
  }
  assert.deepEqual(skipsAt(table([0], { loss: [[1]] }), 0), { hook: 0, scaler: 0 });
});

test("the overflow of a loss scale is nothing non-finite; a NaN beside it, or left out by the hook, is", () => {
  const made = table(
    [0, 2, 4, 6],
    {
      loss: [
        [1, 1],
        [1, NaN],
        [1, 1],
        [1, 1],
      ],
      total_norm: [
        [Infinity, 1],
        [NaN, NaN],
        [Infinity, NaN],
        [NaN, 1],
      ],
      nonfinite: [
        [3, 0],
        [3, 3],
        [3, 3],
        [2, 0],
      ],
      skipped: [
        [2, 0],
        [2, 2],
        [2, 0],
        [1, 0],
      ],
      overflowed: [
        [1, 0],
        [1, 1],
        [1, 0],
        [0, 0],
      ],
    },
    { width: 2 },
  );
  assert.deepEqual(
    range(4).map((at) => nonfiniteAt(made, at)),
    [false, true, true, true],
  );
  assert.deepEqual(
    range(4).map((at) => nonfiniteCount(made, "total_norm", at)),
    [0, 0, 1, 1],
  );
  assert.equal(nonfiniteCount(made, "loss", 1), 1);
  assert.equal(nonfiniteCount(made, "nowhere", 1), 0);
});

test("cells are read under the name of the frame's metric", () => {
  const read = frame([0], {}, { layers: 2, cell: (_, layer) => [layer + 5] });
  const renamed = (name) => name.replace("grad_norm", "weight_norm");
  read.header.columns = read.header.columns.map(([name, ...rest]) => [renamed(name), ...rest]);
  assert.throws(() => tableFromFrame(read));
  read.header.metric = "weight_norm";
  assert.deepEqual([...tableFromFrame(read).cells[0].max], [5, 6]);
});

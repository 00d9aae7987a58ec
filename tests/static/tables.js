// Tables and frames for the tests, built as the server's SNAPSHOT and DELTA frames are.
import { Kind } from "../../static/scripts/frames.js";

const SIZES = { i8: BigInt64Array, f8: Float64Array, f4: Float32Array, u4: Uint32Array };

/** A frame whose columns start at `firsts`; `series` gives each column's values: a list per column. */
export function frame(
  firsts,
  series,
  { kind = Kind.SNAPSHOT, width = 1, request = 1, run = "r", layers = 0, cell = () => [1], ...more } = {},
) {
  const columns = [];
  const add = (name, dtype, values, across = 1) => columns.push([name, dtype, across, SIZES[dtype].from(values)]);
  add("first", "i8", firsts.map(BigInt));
  add(
    "last",
    "i8",
    firsts.map((first) => BigInt(first + width - 1)),
  );
  for (const [name, lists] of Object.entries(series)) addStats(add, `${name}.`, lists, "f8");
  if (layers) {
    const cells = firsts.flatMap((first) => Array.from({ length: layers }, (_, layer) => cell(first, layer)));
    addStats(add, "grad_norm.", cells, "f4", layers);
  }
  const header = {
    request,
    run,
    width,
    rows: firsts.length,
    series: Object.keys(series),
    layers,
    columns: columns.map(([name, dtype, across]) => [name, dtype, across]),
    ...more,
  };
  return { kind, header, body: body(columns.map(([, , , array]) => array)), checksum: 0, size: 0, version: 1 };
}

function addStats(add, prefix, lists, dtype, across = 1) {
  const finite = lists.map((values) => values.filter(Number.isFinite));
  const of = (reduce) => finite.map((values) => (values.length ? reduce(values) : NaN));
  add(
    `${prefix}min`,
    dtype,
    of((values) => Math.min(...values)),
    across,
  );
  add(
    `${prefix}max`,
    dtype,
    of((values) => Math.max(...values)),
    across,
  );
  add(
    `${prefix}mean`,
    dtype,
    of((values) => values.reduce((sum, value) => sum + value, 0) / values.length),
    across,
  );
  if (dtype === "f8")
    add(
      `${prefix}last`,
      dtype,
      lists.map((values) => values.at(-1) ?? NaN),
    );
  add(
    `${prefix}count`,
    "u4",
    finite.map((values) => values.length),
    across,
  );
  add(
    `${prefix}nonfinite`,
    "u4",
    lists.map((values, at) => values.length - finite[at].length),
    across,
  );
}

function body(arrays) {
  const padded = (size) => Math.ceil(size / 8) * 8;
  const bytes = new Uint8Array(arrays.reduce((sum, { byteLength }) => sum + padded(byteLength), 0));
  let at = 0;
  for (const array of arrays) {
    bytes.set(new Uint8Array(array.buffer), at);
    at += padded(array.byteLength);
  }
  return bytes;
}

export const notice = (header) => ({
  kind: Kind.NOTICE,
  header,
  body: new Uint8Array(),
  checksum: 0,
  size: 0,
  version: 1,
});

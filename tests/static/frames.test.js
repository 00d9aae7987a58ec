// Frames written by frames.py (here: frames.json; for every version: tests/golden) read by frames.js: the same values,
// the same refusals.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { columnsFromJson, crc32, decode, decodeAll, FrameError, numbers, split } from "../../static/scripts/frames.js";

const golden = JSON.parse(readFileSync(new URL("frames.json", import.meta.url), "utf8"));
/** The bytes as a socket gives them: at the start of their own buffer. */
const bytes = (text) => new Uint8Array(new Uint8Array(Buffer.from(text, "base64")).buffer);
const hex = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("hex");
const code = (expected) => (error) => error instanceof FrameError && error.code === expected;

for (const { name, message, frames } of golden.good) {
  test(`reads: ${name}`, () => {
    const read = [...decodeAll(bytes(message))];
    assert.equal(read.length, frames.length);
    read.forEach(({ kind, header, body }, at) => {
      assert.equal(kind, frames[at].kind);
      assert.deepEqual(header, frames[at].header);
      const columns = split(body, columnsFromJson(header.columns ?? []), header.rows ?? 0);
      assert.deepEqual(
        Object.fromEntries([...columns].map(([column, array]) => [column, hex(array)])),
        frames[at].columns,
      );
    });
  });
}

const versions = new URL("../golden/", import.meta.url);
for (const file of readdirSync(versions).filter((name) => /^frames_v\d+\.json$/.test(name))) {
  for (const entry of JSON.parse(readFileSync(new URL(file, versions), "utf8"))) {
    test(`reads kind ${entry.kind} of ${file}`, () => {
      const { kind, header, body } = decode(new Uint8Array(new Uint8Array(Buffer.from(entry.frame, "hex")).buffer));
      assert.equal(kind, entry.kind);
      assert.deepEqual(header, entry.header);
      const columns = entry.columns.map(([name, dtype, width]) => ({ name, dtype, width }));
      const read = [...split(body, columns, header.rows ?? 0)].map(([name, array]) => [name, hex(array)]);
      assert.deepEqual(
        read,
        entry.columns.map(([name, , , data]) => [name, data]),
      );
    });
  }
}

for (const { name, message, code: expected } of golden.bad) {
  test(`refuses (${expected}): ${name}`, () => assert.throws(() => decode(bytes(message)), code(expected)));
}

for (const { schema, code: expected } of golden.schemas) {
  test(`refuses the schema ${JSON.stringify(schema).slice(0, 40)}`, () =>
    assert.throws(() => columnsFromJson(schema), code(expected)));
}

test("columns are views of the received bytes, and i8 becomes numbers", () => {
  const message = bytes(golden.good[0].message);
  const { header, body } = decode(message);
  const columns = split(body, columnsFromJson(header.columns), header.rows);
  for (const array of columns.values()) assert.equal(array.buffer, message.buffer);
  assert.deepEqual([...numbers(columns.get("first"))], [0, 4, Number.MAX_SAFE_INTEGER]);
});

test("columns from memory at an odd place are still right", () => {
  const message = bytes(golden.good[0].message);
  const moved = new Uint8Array(message.length + 3);
  moved.set(message, 3);
  const { header, body } = decode(moved.subarray(3));
  assert.deepEqual([...numbers(split(body, columnsFromJson(header.columns), 3).get("first"))].slice(0, 2), [0, 4]);
});

test("columns that do not fill the body are refused", () => {
  const { header, body } = decode(bytes(golden.good[0].message));
  assert.throws(() => split(body, columnsFromJson(header.columns), header.rows + 1), code("body"));
});

test("crc32 is zlib's", () => assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926));

// @ts-check
/**
 * The frame, decoded in the browser: the twin of client_hook/gradwatch/frames.py, with the same limits and error codes.
 *
 *   "GW" | version u8 | kind u8 | header length u32 | body length u64 | crc32 u32 | JSON header | pad | columns
 *
 * Everything is little-endian and 8-aligned, so columns become typed arrays over the received bytes without a copy
 * (every browser runs on little-endian machines).
 */

export const VERSION = 1;
export const SUBPROTOCOL = "gradwatch.v1";
export const MAX_FRAME = 1 << 20;
export const MAX_LAYERS = 16_384;
export const MAX_NAME = 1_024;
export const PREFIX_SIZE = 20;
const CHECKSUM_AT = 16;

export const Kind = Object.freeze({
  HELLO: 1,
  LAYERS: 2,
  STEPS: 3,
  SCALARS: 4,
  HISTOGRAM: 5,
  LANDSCAPE: 6,
  EVENT: 7,
  DROPPED: 8,
  FINISH: 9,
  HEARTBEAT: 10,
  SAMPLES: 11,
  ACK: 64,
  CONTROL: 65,
  REFUSE: 66,
  SNAPSHOT: 67,
  DELTA: 68,
  NOTICE: 69,
});
const KINDS = new Set(Object.values(Kind));

/** @typedef {Uint8Array | Uint32Array | BigInt64Array | Float32Array | Float64Array} ColumnArray */
/** @typedef {{name: string, dtype: string, width: number}} Column */
/**
 * @typedef {object} Frame
 * @property {number} kind
 * @property {Record<string, any>} header
 * @property {Uint8Array} body a view into the received bytes
 * @property {number} checksum
 * @property {number} size bytes of the whole frame
 * @property {number} version
 */

/** A frame that cannot be accepted; `code` is stable and the same as in frames.py. */
export class FrameError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "FrameError";
    this.code = code;
  }
}

/**
 * @typedef {new (buffer: ArrayBufferLike, at: number, length: number) => ColumnArray} View
 * @type {Record<string, {size: number, view: View}>}
 */
const DTYPES = Object.assign(Object.create(null), {
  u1: { size: 1, view: Uint8Array },
  u4: { size: 4, view: Uint32Array },
  i8: { size: 8, view: BigInt64Array },
  f4: { size: 4, view: Float32Array },
  f8: { size: 8, view: Float64Array },
});

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/**
 * The CRC-32 of zlib; pass an earlier result to go on from it.
 * @param {Uint8Array} bytes @param {number} [seed]
 */
export function crc32(bytes, seed = 0) {
  let value = ~seed;
  for (let at = 0; at < bytes.length; at++) value = (value >>> 8) ^ CRC_TABLE[(value ^ bytes[at]) & 255];
  return ~value >>> 0;
}

/** @param {number} size */
export const padded = (size) => Math.ceil(size / 8) * 8;

/** @param {Uint8Array} bytes */
function readPrefix(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    version: view.getUint8(2),
    kind: view.getUint8(3),
    headerSize: view.getUint32(4, true),
    bodySize: view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32,
    checksum: view.getUint32(CHECKSUM_AT, true),
  };
}

/**
 * The length of the frame that begins `bytes`, from its prefix alone. Throws FrameError `short`, `magic` or `size`.
 * @param {Uint8Array} bytes
 */
export function frameSize(bytes) {
  if (bytes.length < PREFIX_SIZE) {
    throw new FrameError(
      "short",
      `a frame of ${bytes.length} bytes is cut short: its prefix alone takes ${PREFIX_SIZE}`,
    );
  }
  if (bytes[0] !== 0x47 || bytes[1] !== 0x57) {
    throw new FrameError("magic", 'this is not a gradwatch frame: it does not begin with "GW"');
  }
  const { headerSize, bodySize } = readPrefix(bytes);
  const size = padded(PREFIX_SIZE + headerSize) + bodySize;
  if (size > MAX_FRAME || bodySize % 8) {
    throw new FrameError("size", `a frame of ${size} bytes is not a multiple of 8 up to ${MAX_FRAME}`);
  }
  return size;
}

/**
 * The frame that begins `bytes`; what follows it is left alone. The checksum is looked at first, so that a version or
 * kind is only believed when the bytes are whole.
 * @param {Uint8Array} bytes @returns {Frame}
 */
export function decode(bytes) {
  const size = frameSize(bytes);
  if (bytes.length < size) {
    throw new FrameError("short", `the frame says ${size} bytes and ${bytes.length} came: it was cut short`);
  }
  const { version, kind, headerSize, bodySize, checksum } = readPrefix(bytes);
  if (crc32(bytes.subarray(PREFIX_SIZE, size), crc32(bytes.subarray(0, CHECKSUM_AT))) !== checksum) {
    throw new FrameError("checksum", "the frame's bytes do not match its checksum: it was damaged on the way");
  }
  if (version < 1 || version > VERSION) {
    throw new FrameError(
      "version",
      `frame version ${version} is unknown here (this page reads 1 to ${VERSION}): reload it`,
    );
  }
  const header = parseHeader(bytes.subarray(PREFIX_SIZE, PREFIX_SIZE + headerSize));
  if (!KINDS.has(/** @type {any} */ (kind))) {
    throw new FrameError("kind", `frame kind ${kind} is unknown here: reload the page`);
  }
  return { kind, header, body: bytes.subarray(size - bodySize, size), checksum, size, version };
}

/**
 * Every frame of a message, which must hold whole frames one after the other.
 * @param {Uint8Array} bytes @returns {Generator<Frame>}
 */
export function* decodeAll(bytes) {
  for (let rest = bytes; rest.length;) {
    const frame = decode(rest);
    yield frame;
    rest = rest.subarray(frame.size);
  }
}

/**
 * The body cut into its columns: typed arrays over the same memory. Throws FrameError `body` unless they fill it
 * exactly.
 * @param {Uint8Array} body @param {Column[]} columns @param {number} rows @returns {Map<string, ColumnArray>}
 */
export function split(body, columns, rows) {
  // Memory that does not start on a multiple of 8 (never from a socket) has to be copied once.
  const aligned = body.byteOffset % 8 ? body.slice() : body;
  const parts = new Map();
  const total = columns.reduce((sum, { dtype, width }) => sum + padded(rows * width * DTYPES[dtype].size), 0);
  if (total !== body.length) {
    throw new FrameError("body", `the columns take ${total} bytes and the body has ${body.length}`);
  }
  let at = aligned.byteOffset;
  for (const { name, dtype, width } of columns) {
    const { size, view } = DTYPES[dtype];
    parts.set(name, new view(aligned.buffer, at, rows * width));
    at += padded(rows * width * size);
  }
  return parts;
}

/**
 * A column schema as it stands in a header, `[[name, dtype, width], ...]`. Throws FrameError `field`.
 * @param {unknown} items @returns {Column[]}
 */
export function columnsFromJson(items) {
  if (!Array.isArray(items) || items.length > MAX_LAYERS) {
    throw new FrameError("field", "'columns' must be a list of [name, dtype, width]");
  }
  return items.map((item) => {
    if (!Array.isArray(item) || item.length !== 3 || typeof item[0] !== "string" || !(item[1] in DTYPES)) {
      throw new FrameError("field", `${String(item).slice(0, 80)} is no column: write [name, dtype, width]`);
    }
    return {
      name: checkText("a column's name", item[0]),
      dtype: item[1],
      width: checkCount("a column's width", item[2]),
    };
  });
}

/** @param {string} what @param {unknown} value @returns {number} */
export function checkCount(what, value) {
  if (!Number.isSafeInteger(value) || /** @type {number} */ (value) < 0) {
    throw new FrameError(
      "field",
      `${what} must be a whole number from 0 to 2**53 - 1, not ${String(value).slice(0, 40)}`,
    );
  }
  return /** @type {number} */ (value);
}

/** @param {string} what @param {unknown} value @param {number} [limit] @returns {string} */
export function checkText(what, value, limit = MAX_NAME) {
  if (typeof value !== "string") throw new FrameError("field", `${what} must be a string, not ${typeof value}`);
  if (value.length > limit && [...value].length > limit) {
    throw new FrameError("field", `${what} has more than ${limit} characters`);
  }
  if (value.includes("\0") || /\p{Surrogate}/u.test(value)) {
    throw new FrameError("field", `${what} holds a character that cannot be stored (NUL or half a surrogate pair)`);
  }
  return value;
}

/**
 * Steps and counts as plain numbers: i8 columns come as BigInt64Array, which charts and arithmetic do not take.
 * @param {ColumnArray} array @returns {Float64Array}
 */
export function numbers(array) {
  return array instanceof BigInt64Array ? Float64Array.from(array, Number) : Float64Array.from(array);
}

/** @param {Uint8Array} bytes @returns {Record<string, any>} */
function parseHeader(bytes) {
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new FrameError("header", "the frame's header is not valid JSON");
  }
  if (header === null || typeof header !== "object" || Array.isArray(header)) {
    throw new FrameError("header", "the frame's header must be a JSON object");
  }
  return header;
}

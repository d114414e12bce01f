import assert from "node:assert/strict";
import { TurnedBlocks } from "../../lib/checkpoint/turned_blocks.ts";

/** Two blocks of 3 x 2 elements in rows of 3: block b has row c, element r at 100 b + 10 r + c. */
const BLOCK_ROWS = 3, COLS = 2, BLOCKS = 2;

function source(type: Uint16ArrayConstructor | Uint32ArrayConstructor) {
  const values = new type(BLOCKS * COLS * BLOCK_ROWS);
  for (let b = 0; b < BLOCKS; b++) {
    for (let c = 0; c < COLS; c++) {
      for (let r = 0; r < BLOCK_ROWS; r++) values[(b * COLS + c) * BLOCK_ROWS + r] = 100 * b + 10 * r + c;
    }
  }
  const rowBytes = BLOCK_ROWS * type.BYTES_PER_ELEMENT;
  return {
    files: [0],
    readRows: 1,
    read: (firstRow: number, rows: number, into: Uint8Array) => {
      into.set(new Uint8Array(values.buffer, firstRow * rowBytes, rows * rowBytes));
      return Promise.resolve();
    },
  };
}

for (const type of [Uint16Array, Uint32Array]) {
  Deno.test(`TurnedBlocks reads any range of rows, elements of ${type.BYTES_PER_ELEMENT} bytes`, async () => {
    const shape = { blockRows: BLOCK_ROWS, cols: COLS, elementBytes: type.BYTES_PER_ELEMENT };
    const blocks = new TurnedBlocks(source(type), shape);
    for (let first = 0; first < BLOCKS * BLOCK_ROWS; first++) {
      for (let rows = 1; first + rows <= BLOCKS * BLOCK_ROWS; rows++) {
        const into = new type(rows * COLS);
        await blocks.read(first, rows, new Uint8Array(into.buffer));
        const expected = Array.from({ length: rows * COLS }, (_, i) => {
          const row = first + Math.floor(i / COLS);
          return 100 * Math.floor(row / BLOCK_ROWS) + 10 * (row % BLOCK_ROWS) + i % COLS;
        });
        assert.deepEqual([...into], expected);
      }
    }
  });
}

/**
 * Pieces that stand for single bytes, `<0x00>` to `<0xFF>`, of which text without other pieces is made.
 * @module
 */
const utf8 = new TextEncoder();

/** Returns the tokens of a text's bytes in UTF-8, undefined where one of them has none. */
export function byteIds(text: string, idOf: (piece: string) => number | undefined): number[] | undefined {
  const ids: number[] = [];
  for (const byte of utf8.encode(text)) {
    const id = idOf(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    if (id === undefined) return undefined;
    ids.push(id);
  }
  return ids;
}

/** Random strings of all scripts, the same that scripts/model/make_tokenizer_parity_fixtures.py makes. */

const WORDS = [
  ...["the", " and", "'s", "'LL", "http://", "  ", "\n\n", "\r\n", " \t", "123", "4567", "()", "{\n", "</", "na\u00efve"],
  ...[" \u4f60\u597d", "\u{1f469}\u200d\u{1f4bb}", "\u2581", "<s>", "<|end|>", "[INST]", "e\u0301", "\u00a0", "...", "-->"],
  ...[" don't", "A", "\u0130", "\u1e9e", "\ufb03", "\u0000"],
];

const RANGES = [
  ...[[32, 126], [32, 126], [97, 122], [48, 57], [9, 13], [0xa0, 0x24f], [0x300, 0x36f], [0x370, 0x5ff], [0x600, 0x6ff]],
  ...[[0x900, 0x97f], [0xe00, 0xe7f], [0x2000, 0x206f], [0x2190, 0x2bff], [0x3040, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3]],
  ...[[0xf900, 0xfffd], [0x1f300, 0x1faff], [0, 0x10ffff]],
];

/** Returns the first `count` strings. */
export function randomStrings(count: number): string[] {
  let state = 2463534242;
  const below = (n: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state % n;
  };
  return Array.from({ length: count }, () => {
    let text = "";
    for (let parts = below(16); parts > 0; parts--) {
      if (below(3) === 0) {
        text += WORDS[below(WORDS.length)];
        continue;
      }
      const [low, high] = RANGES[below(RANGES.length)];
      const code = low + below(high - low + 1);
      // Surrogates are no characters; the others became characters after the Unicode tables of the Rust library were made.
      const none = (code >= 0xd800 && code <= 0xdfff) || (code >= 0x1cc00 && code <= 0x1cebf) || code === 0x61d;
      text += String.fromCodePoint(none ? 0x20 + code % 64 : code);
    }
    return text;
  });
}

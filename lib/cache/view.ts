/**
 * What a token sees of its sequence where it does not see all that came before.
 * @module
 */

/** The latest tokens, or those of the same chunk, which are counted from the start. */
export interface View {
  kind: "window" | "chunk";
  /** Tokens, the one that sees included. */
  tokens: number;
}

/** Returns the first position that the token of a position sees. */
export function firstVisible(view: View | undefined, position: number): number {
  if (!view) return 0;
  return view.kind === "window" ? Math.max(0, position - view.tokens + 1) : position - position % view.tokens;
}

/** Returns the first position whose token sees nothing before `first`, a position that is greater than 0. */
export function firstWithin({ kind, tokens }: View, first: number): number {
  return kind === "window" ? first + tokens - 1 : Math.ceil(first / tokens) * tokens;
}

/** Names a view, so that equal ones are known as such. */
export function viewKey({ kind, tokens }: View): string {
  return `${kind} of ${tokens}`;
}

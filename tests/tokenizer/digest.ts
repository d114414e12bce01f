/** The hash that the scripts of fixtures keep of long results. */
import { createHash } from "node:crypto";

/** Returns the hash of a value: of its JSON in ASCII. */
export function digest(value: unknown): string {
  const json = JSON.stringify(value).replace(
    /[\x7f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return createHash("sha256").update(json).digest("hex").slice(0, 12);
}

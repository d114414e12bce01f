/**
 * Checks that the package can be published to JSR and stays below its limit of 20 MB: `deno run -A scripts/check/published_size.ts`.
 */
import { fileURLToPath } from "node:url";
import { checkPublishedBytes, publishedFiles } from "../release/published_files.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
try {
  checkPublishedBytes(root, publishedFiles(root));
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}

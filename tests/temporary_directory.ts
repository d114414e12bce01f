import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Runs a test with an empty directory, which is removed afterwards. */
export async function withTemporaryDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = fs.mkdtempSync(join(tmpdir(), "airkern-test-"));
  try {
    await body(directory);
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

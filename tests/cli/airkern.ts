/** Runs the command line as a user types it, in a process of its own. */
import { ROOT } from "../shipped_model.ts";

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: Record<string, string>;
  /** Called once, when the first text has come out on stdout. */
  onOutput?: (child: Deno.ChildProcess) => void;
}

/** Commands that compute on a device. */
const COMPUTING = ["run", "plan", "perplexity", "bench"];

/**
 * Runs `deno run -A mod.ts ...` and returns what it printed. On the CPU unless the arguments name a device: whether the CUDA library happens to be built
 * shall change no test.
 */
export async function airkern(args: string[], { env, onOutput }: RunOptions = {}): Promise<Outcome> {
  const device = COMPUTING.includes(args[0]) && !args.includes("--device") && !args.includes("--help") ? ["--device", "cpu"] : [];
  return await run(["mod.ts", ...args, ...device], { env, onOutput });
}

/** Runs a script of the repository. */
export async function run(args: string[], { env, onOutput }: RunOptions = {}): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "-A", "--frozen", ...args],
    cwd: ROOT,
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const stdout = (async () => {
    let text = "";
    for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (text === "") onOutput?.(child);
      text += piece;
    }
    return text;
  })();
  const stderr = new Response(child.stderr).text();
  const { code } = await child.status;
  return { code, stdout: await stdout, stderr: await stderr };
}

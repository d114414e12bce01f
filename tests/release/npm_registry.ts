/** A registry on this machine that serves packages from folders, for tests of what is fetched from one. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ROOT } from "../shipped_model.ts";

/** Serves every package folder below `npm` to programs that run in a folder of the test. */
export class NpmRegistry implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #npm: string;
  /** Names of the packages that were asked for. */
  readonly requested: string[] = [];

  constructor(npm: string) {
    this.#npm = npm;
    this.#server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => this.#answer(request));
  }

  #answer(request: Request): Response {
    const { pathname, origin } = new URL(request.url);
    const [, scope, folder] = decodeURIComponent(pathname).split("/");
    if (scope === "tarballs") return new Response(this.#tarball(folder) as Uint8Array<ArrayBuffer>);
    this.requested.push(`${scope}/${folder}`);
    if (!readdirSync(this.#npm).includes(folder)) return new Response("not found", { status: 404 });
    const manifest = JSON.parse(readFileSync(join(this.#npm, folder, "package.json"), "utf8"));
    const integrity = `sha512-${createHash("sha512").update(this.#tarball(folder)).digest("base64")}`;
    const dist = { tarball: `${origin}/tarballs/${folder}`, integrity };
    const { name, version } = manifest;
    return Response.json({ name, "dist-tags": { latest: version }, versions: { [version]: { ...manifest, dist } } });
  }

  /** Packs a folder as `npm pack` does. */
  #tarball(folder: string): Uint8Array {
    const args = ["--sort=name", "--mtime=@0", "--transform", "s,^\\.,package,", "-cf", "-", "."];
    const { success, stdout, stderr } = new Deno.Command("tar", { args, cwd: join(this.#npm, folder) }).outputSync();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return gzipSync(stdout);
  }

  /** Makes programs in `directory` take the scope @airkern from this registry, all else from where the repository takes it. */
  prepare(directory: string): void {
    Deno.writeTextFileSync(join(directory, ".npmrc"), `@airkern:registry=http://127.0.0.1:${this.#server.addr.port}/\n`);
    Deno.copyFileSync(join(ROOT, "deno.lock"), join(directory, "deno.lock"));
  }

  /** Stops and removes what Deno keeps of this registry in its cache: a folder that is named for the port. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
    const { stdout } = new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync();
    const { npmCache } = JSON.parse(new TextDecoder().decode(stdout));
    rmSync(join(npmCache, String(this.#server.addr.port)), { recursive: true, force: true });
  }
}

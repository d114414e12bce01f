/**
 * The feed-forward layer whose experts are chosen a token: only those that tokens of the pass go to are read and computed.
 * @module
 */
import { feedForward } from "./mlp.ts";
import type { DenseBesideExperts, MoeConfig } from "./model_config.ts";
import { norm } from "./norm.ts";
import { layerPrefix, type Pass, type PassExperts } from "./pass.ts";
import { byExpert, route } from "./router.ts";

/** Bytes of a float32 or an id. */
const WORD = 4;

/** Returns the address of a row. */
function row(address: bigint, index: number, cols: number): bigint {
  return address + BigInt(index * cols * WORD);
}

/** Returns the next layer whose router can be asked beforehand. */
function nextRouted(pass: Pass, layer: number): { layer: number; config: MoeConfig } | undefined {
  const { layers } = pass.config;
  const next = layers.findIndex(({ feedForward, parallel, norms }, index) =>
    index > layer && feedForward.kind === "moe" && !parallel && norms.feedForwardInput !== undefined
  );
  return next < 0 ? undefined : { layer: next, config: layers[next].feedForward as MoeConfig };
}

function askRouter(experts: PassExperts, y: bigint, x: bigint, layer: number, { routerBias }: MoeConfig): void {
  const name = `${layerPrefix(layer)}mlp.gate`;
  experts.router(y, x, `${name}.weight`, routerBias ? `${name}.bias` : undefined);
}

function routeLayer(pass: Pass, layer: number, config: MoeConfig, logits: Float32Array) {
  return route(config.router, logits, pass.tokens, {
    ...config.correctionBias && { correction: pass.experts!.correction(layer) },
    ...config.expertScales && { scales: pass.hostVector(`${layerPrefix(layer)}mlp.gate.per_expert_scale`) },
  });
}

/** Enqueues what the dense layer beside the experts gives, and makes x their input. */
async function denseBeside(pass: Pass, beside: DenseBesideExperts, prefix: string, x: bigint): Promise<void> {
  const { hidden } = pass.activations, { besideOutput } = pass.experts!.activations;
  await feedForward(pass, beside.mlp, `${prefix}mlp.`, x, besideOutput);
  norm(pass, besideOutput, besideOutput, prefix, beside.outputNorm);
  norm(pass, x, hidden, prefix, beside.expertInputNorm);
}

/** Enqueues projected = the shared expert's output, or 0 where there is none: what the routed experts are added to. */
async function sharedExpert(pass: Pass, config: MoeConfig, prefix: string, x: bigint): Promise<void> {
  const { shared } = config;
  const { ops, tokens, activations: { projected, gate } } = pass;
  const { hiddenSize } = pass.config;
  const { identity, outputs } = pass.experts!.activations;
  if (shared && !shared.gated) return await feedForward(pass, shared.mlp, `${prefix}mlp.shared_expert.`, x, projected);
  ops.fill(projected, 0, tokens * hiddenSize * WORD);
  if (!shared) return;
  await feedForward(pass, shared.mlp, `${prefix}mlp.shared_expert.`, x, outputs);
  // Behind the shared expert, whose inner activations are not needed any more.
  await pass.linear(gate, x, `${prefix}mlp.shared_expert_gate.weight`);
  ops.gated(gate, gate, 0n, tokens, "sigmoid");
  ops.scatterAdd(projected, outputs, identity, gate, tokens, tokens, hiddenSize);
}

/**
 * Enqueues projected = moe(x), x: [tokens, hiddenSize], which is written over where a dense layer works beside the experts; waits for the router's logits and for experts that are not in memory. `prefix` precedes the names of
 * the layer's tensors.
 *
 * While the experts that are missing are read, the shared expert and those that are there are computed. What a token's experts give is added in the order of
 * the experts' numbers whatever came first, so that a token's sum does not depend on what is in memory or shares the pass. The router of the next such
 * layer is asked with the present hidden state, which residual connections keep close to the one it will see (Eliseev and Mazur 2023, arXiv:2312.17238).
 */
export async function moe(pass: Pass, layer: number, config: MoeConfig, prefix: string, x: bigint): Promise<void> {
  const { ops, tokens } = pass;
  const { hidden, projected } = pass.activations;
  const { hiddenSize } = pass.config;
  const experts = pass.experts!;
  const { logits, expectedLogits, gathered, outputs, tokenIds, weights } = experts.activations;

  const { beside } = config;
  if (beside) norm(pass, gathered, hidden, prefix, beside.routerNorm);
  askRouter(experts, logits, beside ? gathered : x, layer, config);
  const next = experts.readsAhead ? nextRouted(pass, layer) : undefined;
  if (next) {
    const routerNorm = next.config.beside?.routerNorm ?? pass.config.layers[next.layer].norms.feedForwardInput!;
    norm(pass, gathered, hidden, layerPrefix(next.layer), routerNorm);
    askRouter(experts, expectedLogits, gathered, next.layer, next.config);
  }
  experts.sendLogits(next !== undefined);
  if (beside) await denseBeside(pass, beside, prefix, x);
  await sharedExpert(pass, config, prefix, x);
  const received = await experts.receiveLogits();

  const routing = routeLayer(pass, layer, config, received.logits);
  const uses = byExpert(routing);
  // A token's experts can be computed in any order where there is a row for what each gives.
  const reorder = tokens * config.router.topK <= experts.outputRows;
  const order = experts.begin(layer, uses, routing, reorder);
  if (next) {
    const expected = routeLayer(pass, next.layer, next.config, received.expected);
    experts.expect(next.layer, byExpert(expected).map(({ expert }) => expert));
  }

  let first = 0;
  const places = new Map(uses.map(({ expert, entries }) => {
    first += entries.length;
    return [expert, { first: first - entries.length, entries }];
  }));
  for (const expert of order) {
    const { first, entries } = places.get(expert)!;
    const output = reorder ? row(outputs, first, hiddenSize) : outputs;
    const token = Math.floor(entries[0] / config.router.topK);
    await oneExpert(pass, config, `${prefix}mlp.experts.${expert}.`, x, output, { first, rows: entries.length, token });
    if (!reorder) addOutputs(outputs, first, entries.length);
  }
  if (reorder) addOutputs(outputs, 0, tokens * config.router.topK);
  if (beside) {
    norm(pass, projected, projected, prefix, beside.expertOutputNorm);
    ops.add(projected, experts.activations.besideOutput, tokens * hiddenSize);
  }

  function addOutputs(from: bigint, first: number, count: number): void {
    const factors = config.router.scalesInput ? 0n : row(weights, first, 1);
    ops.scatterAdd(projected, from, row(tokenIds, first, 1), factors, count, tokens, hiddenSize);
  }
}

/** Enqueues output: [rows, hiddenSize] = expert(x of the tokens that go to it), the entries from `first` on; `token` is the first of them. */
async function oneExpert(
  pass: Pass,
  config: MoeConfig,
  prefix: string,
  x: bigint,
  output: bigint,
  { first, rows, token }: { first: number; rows: number; token: number },
): Promise<void> {
  const { ops, tokens } = pass;
  const { gate, up } = pass.activations;
  const { hiddenSize } = pass.config;
  const experts = pass.experts!;
  const { gathered, tokenIds, weights, identity } = experts.activations;
  const linear = (y: bigint, x: bigint, name: string): Promise<void> =>
    experts.linear(y, x, rows, `${prefix}${name}.weight`, config.bias ? `${prefix}${name}.bias` : undefined);

  let input = gathered;
  if (config.router.scalesInput) {
    ops.gatherRows(output, x, row(tokenIds, first, 1), rows, tokens, hiddenSize);
    ops.fill(gathered, 0, rows * hiddenSize * WORD);
    ops.scatterAdd(gathered, output, identity, row(weights, first, 1), rows, rows, hiddenSize);
  } else if (rows === tokens) input = x;
  else if (rows === 1) input = row(x, token, hiddenSize);
  else ops.gatherRows(gathered, x, row(tokenIds, first, 1), rows, tokens, hiddenSize);
  if (!config.plain) await linear(gate, input, "gate_proj");
  await linear(config.plain ? gate : up, input, "up_proj");
  ops.gated(gate, gate, config.plain ? 0n : up, rows * config.intermediateSize, config.activation);
  await linear(output, gate, "down_proj");
}

/**
 * Compares the weight formats on synthetic weights: bits a weight and signal-to-noise ratio.
 *
 *   deno run -A scripts/bench/formats.ts
 *
 * Gauss and Student t are independent weights. The model-like ones have lognormal row and column scales, and 0.05% outliers at 5 to 15
 * standard deviations of their row.
 */
import { AIRK_F32 } from "../../lib/ffi/abi.ts";
import { Context } from "../../lib/ffi/context.ts";
import { quantizedBytesBound, quantizeRows, trainQuantizer } from "../../lib/ffi/quantize.ts";
import { Random } from "../../lib/generate/random.ts";
import { printRows, type Row } from "./process.ts";

const ROWS = 1024, COLS = 2048;
const random = new Random(1);

/** Two uniform numbers in (0, 1) make one of the normal distribution (Box and Muller, 1958). */
function gauss(): number {
  const uniform = () => (random.uint32() + 0.5) / 2 ** 32;
  return Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Student's t with n degrees of freedom. */
function student(n: number): number {
  let chiSquare = 0;
  for (let i = 0; i < n; i++) chiSquare += gauss() ** 2;
  return gauss() / Math.sqrt(chiSquare / n);
}

function modelLike(rowSpread: number, columnSpread: number): Float32Array<ArrayBuffer> {
  const columns = Array.from({ length: COLS }, () => Math.exp(columnSpread * gauss()));
  const weights = new Float32Array(ROWS * COLS);
  for (let row = 0; row < ROWS; row++) {
    const scale = Math.exp(rowSpread * gauss());
    for (let col = 0; col < COLS; col++) {
      const outlier = random.uint32() / 2 ** 32 < 0.0005;
      const value = outlier ? Math.sign(gauss()) * (5 + 10 * random.uint32() / 2 ** 32) : gauss();
      weights[row * COLS + col] = 0.02 * scale * columns[col] * value;
    }
  }
  return weights;
}

const SETS: [name: string, weights: Float32Array<ArrayBuffer>][] = [
  ["Gauss", Float32Array.from({ length: ROWS * COLS }, () => 0.02 * gauss())],
  ["Student t(6)", Float32Array.from({ length: ROWS * COLS }, () => 0.02 * student(6))],
  ["model-like, row spread 0.3, column spread 0.2", modelLike(0.3, 0.2)],
  ["model-like, row and column spread 0.5", modelLike(0.5, 0.5)],
];

using context = Context.open();
const rows: Row[] = [];
for (const [what, weights] of SETS) {
  const source = new Uint8Array(weights.buffer);
  const cells = [];
  for (const name of ["nf4", "q4o"]) {
    const format = context.formatId(name);
    const parameters = await trainQuantizer(context, format, source, AIRK_F32, ROWS, COLS);
    const extent = new Uint8Array(quantizedBytesBound(context, format, ROWS, COLS));
    const { bytes, squaredWeights, squaredErrors } = await quantizeRows(
      context,
      format,
      source,
      AIRK_F32,
      ROWS,
      COLS,
      parameters,
      extent,
    );
    const snrDb = 10 * Math.log10(squaredWeights / squaredErrors);
    cells.push(`${name}: ${(8 * bytes / weights.length).toFixed(3)} bits, ${snrDb.toFixed(2)} dB`);
  }
  rows.push({ what, figure: cells[1], ceiling: cells[0] });
}
printRows(rows);

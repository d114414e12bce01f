/**
 * Translates arithmetic, logic, comparisons and conversions. Approximate instructions are computed as well as C++ does:
 * what an approximation does to a result only a GPU shows.
 * @module
 */
import { cppType, type Emitter, isInteger, Modifiers, type Translation, unsignedType } from "./emitter.ts";
import { type PtxType, TYPE_BITS } from "./module.ts";

const FLOATS = ["f32", "f64"];
const SMALL_FLOATS = ["f16", "f16x2", "bf16", "bf16x2"];

/** Calls a C++ function of float arguments on each 16-bit element of the operands. */
function small(emit: Emitter, type: PtxType, lambda: string, operands: string[]): string {
  const values = operands.map((o) => emit.value(o, type));
  return `ptx::on_${type.startsWith("b") ? "bfloat16" : "half"}${type.endsWith("x2") ? "2" : ""}(${lambda}, ${
    values.join(", ")
  })`;
}

function binary(operator: string, smallFunction?: string): Translation {
  return (emit, i) => {
    const m = new Modifiers(i);
    const type = m.type();
    m.ignore("rn");
    m.end();
    const [to, a, b] = i.operands;
    if (smallFunction && SMALL_FLOATS.includes(type)) return emit.assign(to, type, small(emit, type, smallFunction, [a, b]));
    const as = isInteger(type) ? `u${TYPE_BITS[type]}` : type;
    return emit.assign(to, type, `${emit.value(a, as)} ${operator} ${emit.value(b, as)}`);
  };
}

/** add, sub, and, or, xor. */
const simple: Record<string, Translation> = {
  add: binary("+", "[](double a, double b) { return a + b; }"),
  sub: binary("-", "[](double a, double b) { return a - b; }"),
  and: binary("&"),
  or: binary("|"),
  xor: binary("^"),
};

const WIDER: Record<PtxType, PtxType> = { u16: "u32", s16: "s32", u32: "u64", s32: "s64", u64: "u64", s64: "s64" };

const multiply: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const type = m.type(), [to, a, b, c] = i.operands, adding = i.opcode === "mad";
  if (!isInteger(type)) {
    m.ignore("rn");
    m.end();
    if (adding) {
      return emit.assign(
        to,
        type,
        `${type === "f32" ? "fmaf" : "fma"}(${[a, b, c].map((o) => emit.value(o, type)).join(", ")})`,
      );
    }
    if (SMALL_FLOATS.includes(type)) {
      return emit.assign(to, type, small(emit, type, "[](double a, double b) { return a * b; }", [a, b]));
    }
    return emit.assign(to, type, `${emit.value(a, type)} * ${emit.value(b, type)}`);
  }
  const part = m.required("lo", "hi", "wide");
  m.end();
  const wide = WIDER[type], wideCpp = cppType(wide), result = part === "wide" ? wide : type;
  let product = `static_cast<${wideCpp}>(${emit.value(a, type)}) * static_cast<${wideCpp}>(${emit.value(b, type)})`;
  if (part === "lo") {
    product = `static_cast<${unsignedType(type)}>(ptx::wrapping_multiply(${emit.value(a, type)}, ${emit.value(b, type)}))`;
  }
  if (part === "hi") {
    product = TYPE_BITS[type] === 64
      ? `ptx::multiply_high(${emit.value(a, type)}, ${emit.value(b, type)})`
      : `(${product}) >> ${TYPE_BITS[type]}`;
  }
  if (adding) product = `static_cast<${unsignedType(result)}>(${product}) + ${emit.value(c, `u${TYPE_BITS[result]}`)}`;
  return emit.assign(to, result, product);
};

const fma: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const type = m.type(...FLOATS, ...SMALL_FLOATS);
  const rounding = m.required("rn", "rm");
  m.end();
  const [to, ...operands] = i.operands;
  if (rounding === "rm") {
    if (type !== "f32") throw new Error("unsupported form");
    return emit.assign(to, type, `ptx::fma_down(${operands.map((o) => emit.value(o, type)).join(", ")})`);
  }
  if (SMALL_FLOATS.includes(type)) {
    return emit.assign(to, type, small(emit, type, "[](double a, double b, double c) { return a * b + c; }", operands));
  }
  return emit.assign(to, type, `${type === "f32" ? "fmaf" : "fma"}(${operands.map((o) => emit.value(o, type)).join(", ")})`);
};

const divide: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const type = m.type();
  if (!isInteger(type)) m.ignore("rn", "full", "approx");
  m.end();
  const [to, a, b] = i.operands;
  return emit.assign(to, type, `${emit.value(a, type)} ${i.opcode === "div" ? "/" : "%"} ${emit.value(b, type)}`);
};

const extreme: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const type = m.type();
  m.end();
  const [to, a, b] = i.operands;
  if (SMALL_FLOATS.includes(type)) {
    return emit.assign(to, type, small(emit, type, `[](double a, double b) { return f${i.opcode}(a, b); }`, [a, b]));
  }
  const name = FLOATS.includes(type) ? `f${i.opcode}${type === "f32" ? "f" : ""}` : `std::${i.opcode}<${cppType(type)}>`;
  return emit.assign(to, type, `${name}(${emit.value(a, type)}, ${emit.value(b, type)})`);
};

/** One operand in, one out, by a C++ function for each kind of type. */
function unary(
  functions: { float?: string; integer?: string; small?: string; pred?: string },
  ...ignored: string[]
): Translation {
  return (emit, i) => {
    const m = new Modifiers(i);
    const type = m.type();
    m.ignore(...ignored);
    m.end();
    const [to, a] = i.operands;
    if (SMALL_FLOATS.includes(type) && functions.small) return emit.assign(to, type, small(emit, type, functions.small, [a]));
    const name = FLOATS.includes(type)
      ? functions.float
      : type === "pred"
      ? functions.pred
      : isInteger(type)
      ? functions.integer
      : undefined;
    if (!name) throw new Error(`unsupported type .${type}`);
    return emit.assign(to, type, `${name}(${emit.value(a, type)})`);
  };
}

const COMPARISONS: Record<string, string> = {
  eq: "==",
  ne: "!=",
  lt: "<",
  le: "<=",
  gt: ">",
  ge: ">=",
  lo: "<",
  ls: "<=",
  hi: ">",
  hs: ">=",
};

const setp: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const type = m.type(),
    comparison = m.required(/^(eq|ne|lt|le|gt|ge|lo|ls|hi|hs|num|nan|equ|neu|ltu|leu|gtu|geu)$/),
    combined = m.optional("and", "or", "xor");
  m.end();
  const [to, a, b, c] = i.operands;
  const read = (operand: string): string =>
    SMALL_FLOATS.includes(type)
      ? `ptx::${type === "bf16" ? "bfloat16" : "half"}_value(${emit.value(operand, type)})`
      : emit.value(operand, type);
  const x = read(a), y = read(b), unordered = `(${x} != ${x} || ${y} != ${y})`;
  const unsignedName = isInteger(type) ? undefined : comparison.match(/^(eq|ne|lt|le|gt|ge)u$/)?.[1];
  let result: string;
  if (comparison === "nan") result = unordered;
  else if (comparison === "num") result = `!${unordered}`;
  else if (unsignedName) result = `(${x} ${COMPARISONS[unsignedName]} ${y}) || ${unordered}`;
  // C++'s != is true for NaN, PTX's ne is not.
  else if (comparison === "ne" && !isInteger(type)) result = `(${x} != ${y}) && !${unordered}`;
  else result = `${x} ${COMPARISONS[comparison]} ${y}`;
  const join = (value: string): string =>
    combined ? `(${value}) ${{ and: "&&", or: "||", xor: "!=" }[combined]} ${emit.value(c, "pred")}` : value;
  const [first, second] = to.split("|");
  const compute = `const bool compared = ${result};`;
  const set = [emit.assign(first, "pred", join("compared")), second ? emit.assign(second, "pred", join("!compared")) : ""].join(
    " ",
  );
  return `{ ${compute} ${set} }`;
};

const selp: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const type = m.type();
  m.end();
  const [to, a, b, p] = i.operands;
  return emit.assign(to, type, `${emit.value(p, "pred")} ? ${emit.value(a, type)} : ${emit.value(b, type)}`);
};

/** Shifts by the width and more give zeros, or copies of the sign. */
const shift: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const type = m.type();
  m.end();
  const [to, a, n] = i.operands;
  return emit.assign(to, type, `ptx::${i.opcode}(${emit.value(a, type)}, ${emit.value(n, "u32")})`);
};

const ROUNDING: Record<string, string> = { rni: "nearbyint", rzi: "trunc", rmi: "floor", rpi: "ceil" };

const convert: Translation = (emit, i) => {
  const m = new Modifiers(i);
  const from = m.type();
  const [destination, first, second] = i.operands;
  if (second !== undefined) { // two floats to a pair, the first of them into the upper half
    const pair = i.modifiers.at(-2)!;
    if (from !== "f32" || !["f16x2", "bf16x2"].includes(pair) || i.modifiers.length !== 3 || i.modifiers[0] !== "rn") {
      throw new Error("unsupported conversion");
    }
    const one = (operand: string): string =>
      `emu::float_to_${pair === "f16x2" ? "half" : "bfloat16"}(${emit.value(operand, "f32")})`;
    return emit.assign(destination, pair, `${one(second)} | static_cast<uint32_t>(${one(first)}) << 16`);
  }
  const to = m.type();
  const rounding = m.optional(...Object.keys(ROUNDING)), nearest = m.optional("rn"), saturating = m.optional("sat");
  m.end();
  const floating = (type: PtxType): boolean => FLOATS.includes(type) || ["f16", "bf16"].includes(type);
  let value = emit.value(first, from);
  if (from === "f16") value = `emu::half_to_float(${value})`;
  if (from === "bf16") value = `emu::bfloat16_to_float(${value})`;
  if (rounding) value = `${ROUNDING[rounding]}(${value})`;
  if (isInteger(to) && floating(from)) {
    if (!rounding) throw new Error("a conversion to an integer without rounding");
    return emit.assign(destination, to, `ptx::saturate<${cppType(to)}>(${value})`);
  }
  if (isInteger(to) && saturating) return emit.assign(destination, to, `ptx::clamp<${cppType(to)}>(${value})`);
  if (saturating) value = `ptx::saturate_to_one(${value})`;
  if (to === "f16" || to === "bf16") {
    if (from === "f64" || !nearest && from === "f32") throw new Error("unsupported conversion");
    return emit.assign(destination, to, `emu::float_to_${to === "f16" ? "half" : "bfloat16"}(static_cast<float>(${value}))`);
  }
  return emit.assign(destination, to, value);
};

/** An instruction that is one C++ call on its operands, of the given types, with exactly these modifiers. */
function call(name: string, modifiers: string, result: PtxType, ...types: PtxType[]): Translation {
  return (emit, i) => {
    if (i.modifiers.join(".") !== modifiers || i.operands.length !== types.length + 1) throw new Error("unsupported form");
    return emit.assign(i.operands[0], result, `${name}(${types.map((t, n) => emit.value(i.operands[n + 1], t)).join(", ")})`);
  };
}

/** Chooses a translation by all modifiers together. */
function byForm(forms: Record<string, Translation>): Translation {
  return (emit, i) => {
    const translation = forms[i.modifiers.join(".")];
    if (!translation) throw new Error("unsupported form");
    return translation(emit, i);
  };
}

/** A float function that tanhf and its like use with .ftz too: numbers below the normal ones count as zero, going in and coming out. */
function approximate(name: string, ...ignored: string[]): Translation {
  const plain = unary({ float: name }, "approx", ...ignored);
  return (emit, i) =>
    i.modifiers.join(".") === "approx.ftz.f32"
      ? emit.assign(i.operands[0], "f32", `ptx::flushed(${name}(ptx::flushed(${emit.value(i.operands[1], "f32")})))`)
      : plain(emit, i);
}

/** Translations by opcode. */
export const ARITHMETIC: Record<string, Translation> = {
  ...simple,
  mul: multiply,
  mad: multiply,
  fma,
  div: divide,
  rem: divide,
  min: extreme,
  max: extreme,
  neg: unary({ float: "-", integer: "ptx::negate", small: "[](double a) { return -a; }" }),
  abs: unary({ float: "std::fabs", integer: "ptx::absolute", small: "[](double a) { return std::fabs(a); }" }),
  not: unary({ integer: "~", pred: "!" }),
  ex2: approximate("std::exp2"),
  lg2: unary({ float: "std::log2" }, "approx"),
  sqrt: unary({ float: "std::sqrt" }, "approx", "rn"),
  rsqrt: unary({ float: "1 / std::sqrt" }, "approx"),
  rcp: approximate("1 / ", "rn"),
  sin: unary({ float: "std::sin" }, "approx"),
  cos: unary({ float: "std::cos" }, "approx"),
  tanh: unary({ float: "std::tanh" }, "approx"),
  setp,
  selp,
  shl: shift,
  shr: shift,
  cvt: convert,
  shf: byForm({
    "r.wrap.b32": call("ptx::funnel_right_wrap", "r.wrap.b32", "b32", "b32", "b32", "u32"),
    "l.wrap.b32": call("ptx::funnel_left_wrap", "l.wrap.b32", "b32", "b32", "b32", "u32"),
  }),
  prmt: call("__byte_perm", "b32", "b32", "b32", "b32", "b32"),
  lop3: call("ptx::logic3", "b32", "b32", "b32", "b32", "b32", "u32"),
  dp4a: byForm({
    "s32.s32": call("__dp4a", "s32.s32", "s32", "s32", "s32", "s32"),
    "u32.u32": call("__dp4a", "u32.u32", "u32", "u32", "u32", "u32"),
  }),
  popc: call("__popc", "b32", "u32", "b32"),
  clz: call("__clz", "b32", "u32", "s32"),
  bfind: byForm({ "shiftamt.u32": call("ptx::shift_of_highest_bit", "shiftamt.u32", "u32", "u32") }),
  brev: call("__brev", "b32", "b32", "b32"),
  copysign: call("ptx::copy_sign", "f32", "f32", "f32", "f32"),
  bfe: byForm(Object.fromEntries(["u32", "s32", "u64", "s64"].map((t) => [t, call("ptx::extract", t, t, t, "u32", "u32")]))),
  bfi: byForm(Object.fromEntries(["b32", "b64"].map((t) => [t, call("ptx::insert", t, t, t, t, "u32", "u32")]))),
};

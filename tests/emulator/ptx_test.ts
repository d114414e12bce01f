import assert from "node:assert/strict";
import { parseInstruction, parsePtx } from "./ptx/module.ts";
import { translatePtx } from "./ptx/translate.ts";

/** A PTX file with one kernel of this body. */
function kernel(body: string, before = ""): string {
  return `.version 9.0\n.target sm_86\n.address_size 64\n${before}
.visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .align 8 .b8 k_param_1[24]\n)\n.maxntid 64, 2, 1\n{\n
\t.reg .pred %p<4>;\n\t.reg .f32 %f<9>;\n\t.reg .b16 %rs<3>;\n\t.reg .b32 %r<9>;\n\t.reg .b64 %rd<9>;\n${body}\n\tret;\n}\n`;
}

Deno.test("parseInstruction() splits guard, opcode, modifiers and operands", () => {
  assert.deepEqual(parseInstruction("@!%p1 ld.global.nc.L1::no_allocate.v2.u32 {%r1, %r2}, [%rd1+8]"), {
    text: "@!%p1 ld.global.nc.L1::no_allocate.v2.u32 {%r1, %r2}, [%rd1+8]",
    guard: { register: "%p1", negated: true },
    opcode: "ld",
    modifiers: ["global", "nc", "L1::no_allocate", "v2", "u32"],
    operands: ["{%r1, %r2}", "[%rd1+8]"],
  });
});

Deno.test("parsePtx() reads parameters, launch bounds, shared variables and renames what inline assembly declares", () => {
  const { kernels, variables } = parsePtx(kernel(
    `\t.shared .align 16 .b8 tile[512];
     {.reg .f16 low,high;\n mov.b32 {low,high}, %r1;\n cvt.f32.f16 %f1, low;}
     {.reg .f16 low;\n mov.b16 low, %rs1;\n}`,
    ".const .align 4 .f32 table[2] = {0f3F800000, 0f40000000};",
  ));
  assert.deepEqual(kernels[0].parameters, [{ name: "k_param_0", bytes: 8 }, { name: "k_param_1", bytes: 24 }]);
  assert.equal(kernels[0].maxThreads, 128);
  assert.deepEqual(kernels[0].variables.map((v) => [v.space, v.name, v.alignBytes, v.count]), [["shared", "tile", 16, 512]]);
  const names = kernels[0].statements.flatMap((s) => "instruction" in s ? s.instruction.operands : []);
  assert.ok(names.includes("low_scope1") && names.includes("low_scope2"), names.join(" "));
  assert.deepEqual(variables[0].values, ["0f3F800000", "0f40000000"]);
});

for (
  const [body, message] of [
    ["\tvfrob.u32 %r1, %r2;", /instruction "vfrob\.u32 %r1, %r2" of k: unknown instruction/],
    ["\tadd.sat.s32 %r1, %r2, %r3;", /unsupported modifier \.sat/],
    ["\tadd.ftz.f32 %f1, %f2, %f3;", /unsupported modifier \.ftz/],
    ["\tbar.sync 1;", /only barrier 0/],
    ["\tbar.sync 0, 64;", /only barrier 0/],
    ["\twmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 %r1, %r2, %r3, %r4;", /unknown instruction/],
    ["\tmma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};", /unsupported form/],
    ["\tmov.u32 %r1, %clock;", /unknown register %clock/],
    ["\tcall.uni (retval0), vprintf, (param0, param1);", /unknown instruction/],
    ["\tatom.global.add.f16x2 %r1, [%rd1], %r2;", /unsupported type \.f16x2/],
    ["\tcvt.s32.f32 %r1, %f1;", /without rounding/],
    ["\tld.global.v2.u32 %r1, [%rd1];", /a vector of another length/],
    ["\t.branchtargets a, b;", /unknown directive/],
  ] as const
) {
  Deno.test(`translatePtx() names what it cannot translate: ${body.trim()}`, () => {
    assert.throws(() => translatePtx(kernel(body)), message);
  });
}

Deno.test("translatePtx() refuses functions that were not inlined", () => {
  assert.throws(() => translatePtx(kernel("", ".func (.param .b32 r) f()\n;")), /\.func/);
});

Deno.test("translatePtx() takes the address of a parameter, and loads by it", () => {
  const code = translatePtx(
    kernel("\tmov.b64 %rd1, k_param_1;\n\tadd.s64 %rd2, %rd1, 8;\n\tld.param.v2.u32 {%r1, %r2}, [%rd2+-4];"),
  );
  assert.match(code, /R_rd1, static_cast<uint64_t>\(static_cast<uint64_t>\(reinterpret_cast<uint64_t>\(arguments\[1\]\)\)\)/);
  assert.match(code, /from = \(reinterpret_cast<char \*>\(ptx::as<uint64_t>\(R_rd2\)\) \+ \(-4\)\); .*load<uint32_t>\(from, 1\)/);
  assert.match(
    translatePtx(kernel("\tld.param.u64 %rd1, [k_param_1+16];")),
    /static_cast<const char \*>\(arguments\[1\]\) \+ 16/,
  );
  assert.throws(() => translatePtx(kernel("\tmov.b64 %rd1, k_param_2;")), /unknown register k_param_2/);
});

Deno.test("translatePtx() flushes approximate functions that say so, and rounds fma.rm down", () => {
  const code = translatePtx(
    kernel("\tex2.approx.ftz.f32 %f1, %f2;\n\tex2.approx.f32 %f1, %f2;\n\tfma.rm.f32 %f1, %f2, %f3, %f4;"),
  );
  assert.match(code, /flushed\(std::exp2\(ptx::flushed\(.*R_f2/);
  assert.match(code, /static_cast<float>\(std::exp2\(ptx::as<float>\(R_f2\)\)\)/);
  assert.match(code, /ptx::fma_down\(.*R_f2\), .*R_f3\), .*R_f4\)/);
});

Deno.test("translatePtx() guards, labels and compares as PTX does, NaN included", () => {
  const code = translatePtx(kernel("\tsetp.ne.f32 %p1, %f1, %f2;\n\t@!%p1 bra $L__BB0_2;\n\tadd.s32 %r1, %r1, -1;\n$L__BB0_2:"));
  assert.match(code, /if \(!R_p1\) \{ goto L_L__BB0_2; \}/);
  assert.match(code, /L_L__BB0_2:;/);
  assert.match(code, /R_r1, static_cast<int32_t>\(ptx::as<uint32_t>\(R_r1\) \+ static_cast<uint32_t>\(-1ll\)\)/);
  assert.match(code, /!= .* && !\(/);
});

import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { withQuantizationFile } from "../../lib/checkpoint/quantization_file.ts";
import { FormatError } from "../../lib/errors.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

Deno.test("withQuantizationFile() adds what AutoAWQ, AutoGPTQ and ModelOpt say beside config.json, where that says nothing", () =>
  withTemporaryDirectory((directory) => {
    const write = (name: string, content: string) => fs.writeFileSync(join(directory, name), content);
    const config = { model_type: "llama" };
    assert.equal(withQuantizationFile(directory, config), config);
    write("quant_config.json", `{"zero_point": true, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}`);
    assert.deepEqual(withQuantizationFile(directory, config), {
      ...config,
      quantization_config: { quant_method: "awq", zero_point: true, q_group_size: 128, w_bit: 4, version: "GEMM" },
    });
    write("quantize_config.json", `{"bits": 4, "group_size": 32}`);
    assert.deepEqual(withQuantizationFile(directory, config).quantization_config, {
      quant_method: "gptq",
      bits: 4,
      group_size: 32,
    });
    // GPTQModel names the method itself.
    write("quantize_config.json", `{"bits": 4, "quant_method": "awq"}`);
    assert.deepEqual(withQuantizationFile(directory, config).quantization_config, { quant_method: "awq", bits: 4 });
    write("hf_quant_config.json", `{"quantization": {"quant_algo": "FP8"}}`);
    assert.deepEqual(withQuantizationFile(directory, config).quantization_config, {
      ...{ quant_method: "modelopt", quantization: { quant_algo: "FP8" } },
    });
    const own = { ...config, quantization_config: { quant_method: "fp8" } };
    assert.equal(withQuantizationFile(directory, own), own);
    write("hf_quant_config.json", "[]");
    assert.throws(() => withQuantizationFile(directory, config), FormatError);
    return Promise.resolve();
  }));

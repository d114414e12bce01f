#!/usr/bin/env python3
"""Write cpu/gguf_grids.h: the points that codes of GGUF's IQ types stand for, of gguf-py's quants.py, each coordinate an index of two or three bits."""

import pathlib

import numpy as np
from gguf import quants

OUT = pathlib.Path(__file__).resolve().parents[2] / "cpu" / "gguf_grids.h"
# Name here, gguf-py's class, bits of a coordinate.
GRIDS = [
    ("iq2_xxs", quants.IQ2_XXS, 2), ("iq2_xs", quants.IQ2_XS, 2), ("iq2_s", quants.IQ2_S, 2), ("iq1", quants.IQ1_S, 2),
    ("iq3_xxs", quants.IQ3_XXS, 3), ("iq3_s", quants.IQ3_S, 3),
]

lines = [
    "// Points of GGUF's IQ types: entry i has coordinate j in bits [b j, b j + b), b = 2 of eight coordinates or 3 of four, as an index into the values that",
    "// gguf_blocks.h gives them. Written by scripts/model/make_gguf_grids.py from gguf-py's tables; do not edit.",
    "#pragma once", "", "#include <cstdint>", "", "// clang-format off",
]
for name, kind, bits in GRIDS:
    kind.init_grid()
    grid = kind.grid.reshape(kind.grid_shape)
    indices = np.searchsorted(np.array(kind.grid_map, np.float32), grid).astype(np.uint32)
    assert np.array_equal(np.array(kind.grid_map, np.float32)[indices], grid)
    packed = (indices << (bits * np.arange(grid.shape[1], dtype=np.uint32))).sum(1)
    lines.append(f"#define AIRK_GRID_{name.upper()} {{ \\")
    for start in range(0, len(packed), 24):
        lines.append("  " + ", ".join(str(value) for value in packed[start : start + 24]) + ", \\")
    lines[-1] = lines[-1].removesuffix(", \\") + "}"
lines += ["// clang-format on", ""]
OUT.write_text("\n".join(lines))
print(f"{OUT.name}: {OUT.stat().st_size} bytes")

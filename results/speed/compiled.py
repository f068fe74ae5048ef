"""What Triton makes of bench/kernels.py for an NVIDIA Hopper GPU, without one: python results/speed/compiled.py

A line a kernel and tile: registers a thread, shared memory, matrix instructions, and how many fetches of how many bytes
its loop begins. With fetches of 16 bytes in place of 4, and runs first in the launch order, `_scatter` took 149 us,
428 before (results/speed/h200).
"""

import glob
import os
import re
import subprocess
import tempfile
from collections import Counter

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench import kernels

os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"  # as bench.slots.environment has it
TARGET = GPUTarget("cuda", 90, 32)
CHANNELS = ("inputs", "outputs")  # what is known to be a multiple of 16 in the inner layers


def compiled(kernel: triton.JITFunction, dtype: str, warps: int, **constants: object) -> str:
    """Return the line of one kernel: constants are its upper-case arguments."""
    names, fixed = kernel.arg_names, {"PRECISION": "tf32", **constants}
    pointers = [name for name in ("x", "w", "y", "small", "large", "dw") if name in names]
    types = {name: "*fp32" if name == "dw" else f"*{dtype}" for name in pointers}
    types |= {name: "constexpr" if name in fixed else "i32" for name in names if name not in types}
    divisible = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name in names
        if name in pointers or name in CHANNELS
    }
    places = {(names.index(name),): value for name, value in fixed.items()}
    source = ASTSource(fn=kernel, signature=types, constexprs=places, attrs=divisible)
    made = triton.compile(source, target=TARGET, options={"num_warps": warps})
    ptx = made.asm["ptx"]
    fetched = Counter(re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, 0x(\w+)", ptx))
    products = "wgmma" if "wgmma.mma_async" in ptx else "mma" if "mma.sync" in ptx else "none"
    fetches = ", ".join(f"{count} of {int(size, 16)} bytes" for size, count in fetched.items())
    tile = f"{constants['BM']}x{constants['BN']}x{constants['BK']}"
    return (
        f"{kernel.__name__} {dtype} {tile}, {warps} warps: {_registers(made.asm['cubin'])} registers, "
        f"{made.metadata.shared // 1024} KB shared, {products}, fetches {fetches or 'none ahead'}"
    )


def _registers(cubin: bytes) -> str:
    tool = glob.glob(f"{os.path.dirname(triton.__file__)}/backends/nvidia/bin/cuobjdump*")
    if not tool:
        return "unknown"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([tool[0], "-res-usage", file.name], capture_output=True, text=True).stdout
    return ", ".join(re.findall(r"REG:(\d+)", told))


def main() -> None:
    """Print every kernel at the tiles that layers of 16 to 256 channels get."""
    for dtype in ("fp32", "bf16"):
        for channels in (16, 32, 64, 128, 256):
            bm, bn, bk, warps = kernels._tile(channels, max(32, channels))
            for kernel in (kernels._gather, kernels._scatter):
                print(compiled(kernel, dtype, warps, ALIGNED=True, BM=bm, BN=bn, BK=bk))
            bm, bn, bk, warps = kernels._tile_of_weight(channels, 16 * channels)
            print(compiled(kernels._weigh, dtype, warps, ALIGNED=True, BM=bm, BN=bn, BK=bk))


if __name__ == "__main__":
    main()

"""The kernels for GPUs compile for GPUs: what the interpreter takes, the compiler may refuse.

No GPU is needed. In the process of the tests Triton interprets, so they compile in another one.
"""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is for Linux"
)

PROGRAM = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bench.operators.gpu import triton_kernels as kernels

type, precision, capability = sys.argv[1:]
map = dict(H=14, W=14, OH=14, OW=14, KH=7, KW=7, SH=1, SW=1, DH=1, DW=1, TOP=3, LEFT=3)
tile = dict(LINES=64, COLUMNS=16, DEPTH=16)
plane = dict(H=14, W=14, ROWS=16, COLUMNS=16, EACH=2)
POINTERS = dict.fromkeys("x w y g across upright bias table".split(), "*" + type)
POINTERS |= {"out": "*fp32", "source": "*i64"}
for kernel, constants in (
    (kernels._correlate, dict(**map, **tile, BIASED=True, CHUNKS=1)),
    (kernels._kernel_gradient, dict(**map, **tile)),
    (kernels._strips, dict(**plane, THIN=3, LONG=15, BEFORE=6)),
    (kernels._circular, plane),
):
    constants = constants | {"PRECISION": precision}
    signature = {
        name: "constexpr" if name in constants else POINTERS.get(name, "i32")
        for name in kernel.arg_names
    }
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    compiled = triton.compile(source, target=GPUTarget("cuda", int(capability), 32))
    assert len(compiled.asm["cubin"]) > 1000
    print(kernel.__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("type", "capability"), [("fp32", "90"), ("bf16", "80")])
def test_every_kernel_compiles(type, capability, tmp_path):
    precision = "tf32x3" if type == "fp32" else "tf32"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, type, precision, capability],
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == 4

"""GPUs without a GPU: OpenCL runs on the CPU (PoCL), CUDA and Metal show what they compile to."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinyseg.device import gpus
from tinyseg.errors import BackendError

ROOT = Path(__file__).parents[2]

has_nvrtc = pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None
    or importlib.util.find_spec("nvidia.cuda_nvrtc") is None,
    reason='no NVRTC: pip install "tinyseg[cuda]"',
)


def run(script: str, device: str, *arguments: str) -> str:
    """What a Python script prints on a device of tinygrad."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = os.environ | {"DEV": device, "PYTHONPATH": path}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# OpenCL


def opencl_devices() -> int:
    """How many devices tinygrad could open as CL, be they GPUs or not."""
    try:
        from tinygrad.runtime.autogen import opencl as cl

        platform, count = (cl.cl_platform_id * 1)(), cl.cl_uint()
        cl.clGetPlatformIDs(1, platform, None)
        status = cl.clGetDeviceIDs(platform[0], cl.CL_DEVICE_TYPE_ALL, 0, None, count)
        return int(count.value) if status == 0 else 0
    except AttributeError:  # no library
        return 0


has_opencl = pytest.mark.skipif(
    opencl_devices() == 0, reason="no OpenCL device: apt-get install pocl-opencl-icd"
)

STEPS = """
import json
import sys
import numpy as np
from tinyseg.device.choose import backend
from tinyseg.device.tensors import to_device
from tinyseg.kernels import plans
from tinyseg.models.unet import UNet
from tinyseg.training.step import TrainStep

plans.overridden = "plain"
rng = np.random.default_rng(0)
image = rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
label = (image[:, 0] > 0).astype(np.uint8)
found = []
for jit in (True, False) if "both" in sys.argv else (True,):
    step = TrainStep(UNet(1, base_channels=2, depth=1), "bce", "sgd(lr=0.1)", jit=jit, canary=False)
    batch = to_device(image), to_device(label)
    losses = [float(step(*batch)["loss"].item()) for _ in range(3)]
    state = {name: tensor.numpy().tobytes().hex() for name, tensor in step.state.items()}
    found.append([losses, state])
assert found[0] == found[-1], "JIT and no JIT differ"
print(json.dumps([backend().device, found[0][0]]))
"""


@pytest.mark.slow
@has_opencl
def test_training_on_opencl_is_training_on_the_cpu() -> None:
    """Three steps on a real OpenCL device: bit for bit without JIT, and beside the CPU."""
    device, losses = json.loads(run(STEPS, "CL", "both"))
    assert device == "CL"
    _, expected = json.loads(run(STEPS, "CPU"))
    assert losses[2] < losses[0]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@has_opencl
def test_opencl_on_the_cpu_is_not_taken_for_a_gpu() -> None:
    assert not gpus.may_be_there("CL")


@pytest.mark.slow
@has_opencl
def test_loops_of_the_gpu_run_on_opencl() -> None:
    script = """
from test_gpu_convolution import *
plans.overridden, plans.WARPS = PLAIN, 4
check_convolution((2, 5, 8, 16, 32, 3, 1, 1, True), dtypes.float, 1e-6)
check_transposed((1, 2, 4, 16, 8), dtypes.float, 1e-6)
"""
    folder = str(ROOT / "tests" / "kernels")
    run(f"import sys; sys.path.insert(0, {folder!r})\n{script}", "CL")


# CUDA

CONVOLUTIONS = """
import json
import sys
from tinygrad import Device, Tensor
from tinygrad.codegen import to_program
from tinyseg.device.choose import backend
from tinyseg.models.unet import UNet
from tinyseg.nn import parameters, state_dict

device = Device[backend().device]
from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

precision, base, depth, batch, channels, size = sys.argv[1], *map(int, sys.argv[2:])
device.renderer.compiler = NVRTCCompiler(device.renderer.target.arch, ptx=True)  # no machine code
model = UNet(channels, base_channels=base, depth=depth, precision=precision)
logits = model(Tensor.empty(batch, channels, size, size), training=True)
gradients = logits.mean().gradient(*parameters(state_dict(model)).values())
kernels = [call.src[0] for call in logits.schedule_linear(*gradients).src]
names = [kernel.arg.name for kernel in kernels if kernel.op.name == "SINK"]
own = [k for k in kernels if k.op.name == "SINK" and k.arg.name.startswith(("forward_", "weight_"))]
ptx = {k.arg.name: to_program(k, device.renderer).src[-1].arg.decode() for k in dict.fromkeys(own)}
found = {name: [text.count("mma.sync"), text.count("ld.local")] for name, text in ptx.items()}
print(json.dumps([len(own), found]))
"""


@pytest.mark.slow
@has_nvrtc
def test_every_convolution_of_a_small_net_uses_tensor_cores() -> None:
    check_tensor_cores("sm_90", "bfloat16", 8, 1, 2, 3, 48)


@pytest.mark.slow
@has_nvrtc
@pytest.mark.parametrize(
    ("arch", "precision", "case"),
    [
        ("sm_90", "bfloat16", (16, 4, 4, 1, 128)),
        ("sm_86", "float16", (32, 4, 2, 3, 256)),
        ("sm_90", "float16", (64, 4, 1, 1, 256)),
    ],
    ids=["A", "B", "C"],
)
def test_every_convolution_of_the_bench_uses_tensor_cores(
    arch: str, precision: str, case: tuple[int, ...]
) -> None:
    check_tensor_cores(arch, precision, *case)


def check_tensor_cores(arch: str, precision: str, *case: int) -> None:
    """`case` is base, depth, batch, channels, size."""
    depth = case[1]
    count, found = json.loads(run(CONVOLUTIONS, f"NULL:CUDA:{arch}", precision, *map(str, case)))
    layers = 2 * (2 * depth + 1) + depth + 1
    assert count == 3 * layers - 1  # forward and both gradients, but none of the image
    assert {name for name, (multiplied, _) in found.items() if not multiplied} == set()
    assert {name for name, (_, spilled) in found.items() if spilled} == set()


@pytest.mark.parametrize("known", [True, False])
def test_an_old_nvidia_driver_is_told(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tinygrad.runtime.support.compiler_cuda")
    from tinygrad.runtime.autogen import cuda, nvrtc
    from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

    def release(major: object, minor: object) -> None:
        major._obj.value, minor._obj.value = 12, 8

    def driver(version: object) -> None:
        version._obj.value = 12080 if known else 12040

    monkeypatch.setattr(nvrtc, "nvrtcVersion", release)
    monkeypatch.setattr(cuda, "cuDriverGetVersion", driver)
    compiler = object.__new__(NVRTCCompiler)
    compiler.ptx = True
    device = SimpleNamespace(device="CUDA", renderer=SimpleNamespace(compiler=compiler))
    if known:
        assert gpus.nvidia_compiler(device) == "NVRTC 12.8 compiles"
    else:
        with pytest.raises(BackendError, match=r'CUDA 12\.4 .*"nvidia-cuda-nvrtc-cu12==12\.4\.\*"'):
            gpus.nvidia_compiler(device)


def test_without_nvrtc_the_extra_is_named() -> None:
    device = SimpleNamespace(device="CUDA", renderer=SimpleNamespace(compiler=object()))
    assert 'pip install "tinyseg[cuda]"' in gpus.nvidia_compiler(device)


def test_the_extra_is_found_and_a_path_of_the_user_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
    library.parent.mkdir(parents=True)
    library.touch()
    headers = tmp_path / "nvidia" / "cuda_runtime"
    headers.mkdir()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(os, "environ", {"NVRTC_PATH": "mine"})
    gpus.use_cuda_extra()
    assert os.environ == {"NVRTC_PATH": "mine"}
    monkeypatch.setattr(os, "environ", {"CUDA_PATH": "/usr/local/cuda"})
    gpus.use_cuda_extra()
    assert os.environ == {"NVRTC_PATH": str(library), "CUDA_PATH": str(headers)}


# Metal


def test_metal_is_written_with_simdgroup_instructions() -> None:
    """What is rendered only: it never ran on a Mac."""
    from tinygrad import Device, dtypes
    from tinygrad.codegen import to_program
    from tinygrad.codegen.opt import tc
    from tinygrad.device import Compiler
    from tinygrad.renderer.cstyle import CStyleLanguage, MetalRenderer
    from tinygrad.uop.ops import UOp

    from tinyseg.kernels.gpu.tensorcores import forward_kernel, weight_kernel
    from tinyseg.kernels.plans import forward_warp, weight_warp
    from tinyseg.kernels.shapes import Convolution, Instruction

    target = replace(Device["CPU"].renderer.target, device="METAL", arch="Apple9")
    renderer = object.__new__(MetalRenderer)  # its own __init__ loads Apple's compiler
    CStyleLanguage.__init__(renderer, target)
    renderer.compiler, renderer.tensor_cores = Compiler(), tc.metal
    conv, half = Convolution(2, 16, 16, 32, 64, 3, 1, 1), dtypes.half
    core = Instruction(8, 8, 8)
    images, weights = ((2, 16, 16, 32), half), ((64, 3, 3, 32), half)
    result, warp = ((2, 16, 16, 64), half), weight_warp(conv, core)
    sums = ((warp.parts, 9 * 32, 64), dtypes.float)
    for kernel, arguments in [
        (forward_kernel(conv, forward_warp(conv, core)), (result, images, weights)),
        (weight_kernel(conv, warp), (sums, images, result)),
    ]:
        given = [UOp.placeholder(*argument, slot) for slot, argument in enumerate(arguments)]
        source = to_program(kernel(*given), renderer).src[-2].arg
        assert "simdgroup_multiply_accumulate" in source

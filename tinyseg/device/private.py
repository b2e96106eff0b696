"""All private or version-dependent parts of tinygrad that tinyseg touches, and why.

Written for tinygrad 0.13. A part may be used in `device` and `kernels` only (and by
`jit/serialize.py`); a test for each says in words when a new version has changed it.
"""

from typing import NamedTuple


class Part(NamedTuple):
    """One part of tinygrad."""

    name: str
    """Its dotted name."""
    purpose: str
    """What tinyseg uses it for."""
    loss: str
    """What does not work without it."""


_UPLOAD = "arrays reach the device by running a kernel for each shape, seconds at the start"
_STATE = "a jitted step that repeats its first batch cannot be detected"
_RANDOM = "dropout in a user's network repeats its numbers in a jitted or resumed step"
_CAPTURE = "a step is compiled twice, or kernel by kernel: its first call takes twice as long"
_STORE = "compiled steps cannot be kept on disk"
_LAUNCH = "every kernel of the CPU is started from Python: a quarter of a small step's time"
_SCHEDULE = "a step without the JIT is scheduled anew in each call: three times as slow"
_COMPILER = "the CPU's kernels come from the first compiler that is found, often a slow one"
_CACHE = "tinygrad runs machine code from a cache.db that somebody else may have written"
_KERNEL = "layers run as tinygrad's own operations, several times slower on the CPU"
_CORES = "float16 and bfloat16 convolutions leave a GPU's tensor cores idle"
_DRIVER = "the errors of a missing or old driver are tinygrad's own, or appear in mid-training"

PARTS = (
    # tensors
    Part("tinygrad.dtype._from_np_dtype", "the type of an array as a Tensor's", _UPLOAD),
    Part("tinygrad.dtype._to_np_dtype", "the type of a Tensor as an array's", _UPLOAD),
    Part("tinygrad.Tensor.uop", "read to find its buffer, set to undo an assignment", _STATE),
    Part("tinygrad.Tensor.is_param_", "marks statistics and counters as not trained", _STATE),
    Part("tinygrad.UOp.base", "the buffer below a reshaped Tensor", _STATE),
    Part("tinygrad.UOp.is_realized", "whether a Tensor is in memory", _STATE),
    Part("tinygrad.UOp.buffer", "the memory of a Tensor", _UPLOAD),
    Part("tinygrad.device.Buffer.copyin", "writes into a Tensor's memory", _UPLOAD),
    Part("tinygrad.device.Buffer.as_memoryview", "reads a Tensor's memory", _UPLOAD),
    Part("tinygrad.device.Buffer.ensure_allocated", "reserves a Tensor's memory", _UPLOAD),
    # random numbers
    Part("tinygrad.Tensor._seed", "keeps a step's numbers apart from the weights'", _RANDOM),
    Part("tinygrad.Tensor._device_seeds", "replaced by the state of a step", _RANDOM),
    Part("tinygrad.Tensor._device_rng_counters", "replaced by the state of a step", _RANDOM),
    Part("tinygrad.Tensor._next_counter", "makes seed and counter of a device", _RANDOM),
    # jitted functions
    Part("tinygrad.TinyJit.cnt", "set to 1: the first call is captured", _CAPTURE),
    Part("tinygrad.TinyJit.captured", "what is replayed, kept on disk and put back", _STORE),
    Part("tinygrad.TinyJit.add_linear", "where the captured kernels are known", _CAPTURE),
    Part("tinygrad.engine.jit.CapturedJit", "opened by jit/serialize.py", _STORE),
    Part("tinygrad.codegen.to_program", "lowers one kernel while others are compiled", _CAPTURE),
    Part("tinygrad.codegen.to_program_cache", "gets the kernels that were compiled", _CAPTURE),
    Part("tinygrad.helpers.JIT_BATCH_SIZE", "0: all kernels of a step are one graph", _LAUNCH),
    Part("tinygrad.helpers.BEAM", "a search compiles in its own order", _CAPTURE),
    Part("tinygrad.helpers.JIT", "JIT=0 runs a step without its capture", _STORE),
    # the graph of the CPU
    Part("tinygrad.engine.jit.GraphRunner", "the base class of the launcher", _LAUNCH),
    Part("tinygrad.engine.realize._resolve", "the argument of a call, or a view of it", _LAUNCH),
    Part("tinygrad.engine.realize.get_call_arg_uops", "the arguments of a call", _LAUNCH),
    Part("tinygrad.runtime.ops_cpu.CPUProgram", "loads the launcher's machine code", _LAUNCH),
    Part("tinygrad.runtime.ops_cpu.CPUWorker", "whether a thread is the device's own", _LAUNCH),
    Part("tinygrad.device.Compiled.graph", "replaced by the launcher, or repaired", _LAUNCH),
    Part("tinygrad.uop.ops.CallInfo", "its text, part of a graph's key", _SCHEDULE),
    # device and compiler
    Part("tinygrad.helpers.CPU_COUNT", "the CPU threads of a kernel", _KERNEL),
    Part("tinygrad.helpers.DEV", "the device and renderer that the user asks for", _COMPILER),
    Part("tinygrad.helpers.ContextVar._cache", "all switches, for the key of a step", _STORE),
    Part("tinygrad.helpers.CACHELEVEL", "0: cache.db is never opened", _CACHE),
    Part("tinygrad.device.Compiler.compile_cached", "replaced by our own cache", _CACHE),
    Part("tinygrad.device.Compiler.cachekey", "tells compilers apart in our cache", _CACHE),
    Part("tinygrad.device.Compiled.renderer", "who writes and compiles kernels", _COMPILER),
    Part("tinygrad.device.Compiled.renderers", "our choice is put first", _COMPILER),
    Part("tinygrad.renderer.cstyle.ClangRenderer", "whether our kernels can run", _KERNEL),
    Part("tinygrad.renderer.cstyle.ClangJITRenderer", "gets the chosen compiler", _COMPILER),
    Part("tinygrad.runtime.support.compiler_cpu.ClangJITCompiler", "the base class", _COMPILER),
    Part("tinygrad.runtime.support.elf.jit_loader", "links what a compiler wrote", _COMPILER),
    Part("tinygrad.runtime.autogen.llvm", "the version of libLLVM", _COMPILER),
    Part("tinygrad.runtime.autogen.opencl", "whether OpenCL is a GPU", _DRIVER),
    Part("tinygrad.runtime.autogen.cuda", "the version of NVIDIA's driver", _DRIVER),
    Part("tinygrad.runtime.autogen.nvrtc", "the version of NVIDIA's compiler", _DRIVER),
    Part("tinygrad.runtime.support.compiler_cuda.NVRTCCompiler", "who compiles", _DRIVER),
    # kernels
    Part("tinygrad.Tensor.custom_kernel", "runs a kernel of ours in a step", _KERNEL),
    Part("tinygrad.UOp", "the instructions of a kernel", _KERNEL),
    Part("tinygrad.uop.ops.UOp", "the instructions of a kernel", _KERNEL),
    Part("tinygrad.uop.ops.Ops", "the operations of a kernel", _KERNEL),
    Part("tinygrad.uop.ops.AxisType", "the loops of a kernel", _KERNEL),
    Part("tinygrad.uop.ops.KernelInfo", "the name of a kernel", _KERNEL),
    Part("tinygrad.uop.ops.ProgramInfo", "threads and arguments of a kernel", _KERNEL),
    Part("tinygrad.renderer.Estimates", "the operations that a kernel counts", _KERNEL),
    Part("tinygrad.dtype.DType", "types of vectors and pointers", _KERNEL),
    Part("tinygrad.dtype.AddrSpace", "registers of a kernel", _KERNEL),
    Part("tinygrad.codegen.opt.Opt", "asks for tensor cores and unrolled loops", _CORES),
    Part("tinygrad.codegen.opt.OptOps", "asks for tensor cores and unrolled loops", _CORES),
    Part("tinygrad.renderer.Renderer.tensor_cores", "which a GPU has", _CORES),
)

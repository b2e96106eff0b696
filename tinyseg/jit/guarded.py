"""A jitted function of explicit state: guarded on every call, proven once, kept on disk.

TinyJit replaces only whole own buffers among its arguments; all else (Python numbers, slices) is
baked in at the first call, silently. So: state and inputs are passed as Tensors, each is checked on
every call, and after the capture a canary proves that the result depends on them. A step that comes
from the disk must repeat, bit for bit, what it computed from random numbers when it was stored.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tinygrad import Tensor, UOp
from tinygrad.helpers import JIT

from tinyseg.common.arrays import Array
from tinyseg.common.cache_dir import CacheOff
from tinyseg.device.capture import JitFunction
from tinyseg.device.choose import backend
from tinyseg.device.tensors import buffer_of, clone, copy_, owns_buffer, shorten_view, to_device
from tinyseg.errors import StepError
from tinyseg.jit.key import NotCacheable, signature, step_key
from tinyseg.jit.serialize import NotSerializable, pack, unpack
from tinyseg.jit.store import StepCache
from tinyseg.kernels import fallbacks

Alter = Callable[[Array], Array]
Inputs = tuple[Tensor, ...]
Recipe = Callable[[], dict[str, str]]


class GuardedJit:
    """Runs `function(*inputs) -> Tensor`, which may assign `state` in place, jitted or not.

    Within `tinygrad.Context(JIT=0)` a call is not jitted, as that of a TinyJit.

    `alter` has an entry for each input: how the canary changes it, or None to leave it. `recipe`
    describes all that shapes the graph besides state and inputs, for the key on disk; it raises
    NotCacheable where that cannot be described.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        state: dict[str, Tensor],
        alter: Sequence[Alter | None],
        jit: bool = True,
        canary: bool = True,
        recipe: Recipe | None = None,
    ):
        self.function, self.state, self.alter = function, state, alter
        self.canary, self.recipe = canary, recipe
        self.names: list[str] = []
        """The function's names of its outputs, set while it is traced; kept with the step."""
        self.plain: list[str] = []
        """Convolutions that tinygrad's own operations compute, and why; set while it is traced."""
        self.origin = ""
        """Where the compiled step came from and whether it was kept, in words."""
        self.signature: list[tuple[Any, ...]] = []
        self.jit = JitFunction(lambda state, *inputs: self._realize(*inputs)) if jit else None
        self._settled: list[UOp] = []

    @property
    def compiled(self) -> bool:
        """Whether the first call has been made."""
        return bool(self.signature)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the output in a buffer of its own, which no later call overwrites."""
        inputs = tuple(_own(tensor) for tensor in inputs)
        current = [_signature(tensor) for tensor in inputs]
        if not self.signature:
            output = self._first(inputs)
            self.signature = current
            return output
        if current != self.signature:
            raise StepError(
                f"the step was compiled for {_describe(self.signature)} but got "
                f"{_describe(current)}; keep the shapes or make a new step"
            )
        return self._run(inputs)

    # 1. A call

    def _realize(self, *inputs: Tensor) -> Tensor:
        with fallbacks() as plain:
            output = self.function(*inputs)
        self.plain[:] = dict.fromkeys(plain)
        output.realize(*self.state.values())
        for tensor in self.state.values():
            shorten_view(tensor)
        return output

    def _run(self, inputs: Inputs) -> Tensor:
        if self.jit is None or not JIT:
            return self._realize(*inputs)
        captured, buffers = self.jit.program, self._buffers(inputs)
        if captured is None:
            output = self.jit(list(self.state.values()), *inputs)
        else:
            # what TinyJit would check again, 240 substitutions a call, is checked already
            output = captured(buffers, {})
        # all replays write to one buffer: without a copy a list of losses is n times the last
        return clone(output)

    def _buffers(self, inputs: Inputs) -> list[Any]:
        """Return the buffers of all arguments in TinyJit's order: Tensors, then the list."""
        state = [buffer_of(tensor) for tensor in self.state.values()]
        if not _are_same(state, self._settled):
            self._settle()
            state = self._settled = [buffer_of(tensor) for tensor in self.state.values()]
        buffers = [*map(buffer_of, inputs), *state]
        if len({id(buffer) for buffer in buffers}) < len(buffers):
            raise StepError("a step got the same Tensor twice; pass copies: tensor.clone()")
        return buffers

    def _settle(self) -> None:
        """Realize the state that was assigned since the last call, so that it is whole buffers."""
        if waiting := [tensor for tensor in self.state.values() if not owns_buffer(tensor)]:
            Tensor.realize(*waiting)
        for name, tensor in self.state.items():
            if not owns_buffer(tensor):
                raise StepError(f"{name} is no longer a whole Tensor; assign to it, do not replace")

    # 2. The first call

    def _first(self, inputs: Inputs) -> Tensor:
        if self.jit is None:
            return self._run(inputs)
        entry = self._open(inputs)
        if not self.canary:
            return self._run(inputs)
        before, first = self._snapshot(), None
        try:
            if entry is None or not self._load(*entry, inputs):
                self._restore(before)
                first = self._digests(self._run(inputs))
                self._check_counts(inputs)
                if entry is not None:
                    self._store(*entry, inputs)
        finally:
            self._restore(before)
        output = self._run(inputs)
        if first is not None:
            _check_same(self._digests(output), first)
        return output

    def _open(self, inputs: Inputs) -> tuple[StepCache, str] | None:
        """Return the cache and the key of this step, or None with the reason in `origin`."""
        if self.recipe is None or not self.canary:
            self.origin = "compiled; not cached: nothing describes it or proves it"
            return None
        try:
            named = {f"input {index}": tensor for index, tensor in enumerate(inputs)}
            tensors = {"state": signature(self.state), "inputs": signature(named)}
            return StepCache(), step_key({**self.recipe(), **tensors})
        except (CacheOff, NotCacheable) as reason:
            self.origin = f"compiled; not cached: {reason}"
            return None

    def _load(self, cache: StepCache, key: str, inputs: Inputs) -> bool:
        content = cache.load(key)
        if content is None:
            return False
        assert self.jit is not None
        try:
            header, _, program = content.partition(b"\n")
            facts = json.loads(header)
            self.jit.program = unpack(program)
            proven = bool(self._proof(inputs) == facts["proof"])
        except Exception:  # noqa: BLE001  what does not load or run, in any way, is compiled anew
            proven = False
        if proven:
            self.names[:], self.plain[:] = facts["names"], facts["plain"]
            self.origin = "taken from the cache"
        else:
            self.jit.program = None
        return proven

    def _store(self, cache: StepCache, key: str, inputs: Inputs) -> None:
        captured = self.jit.program if self.jit else None
        if captured is None:  # JIT=0
            return
        try:
            program = pack(captured, self._buffers(inputs))
            facts = {"names": self.names, "plain": self.plain, "proof": self._proof(inputs)}
            cache.store(key, json.dumps(facts).encode() + b"\n" + program)
            self.origin = "compiled and kept in the cache"
        except (NotSerializable, OSError) as reason:
            self.origin = f"compiled; not cached: {reason}"

    # 3. Proofs

    def _check_counts(self, inputs: Inputs) -> None:
        """Raise StepError unless each input, when changed, changes the output or the new state.

        From a random state: zeros in the real one, as of a fresh head, may hide the input.
        """
        expected = self._outcome(inputs)
        for index, alter in enumerate(self.alter):
            if alter is None:
                continue
            changed = list(inputs)
            changed[index] = to_device(alter(inputs[index].numpy()))
            if self._outcome(changed) != expected:
                continue
            # nothing changed: is the step locked, or does the network really not look at it?
            if self._outcome(changed, plain=True) != expected:
                raise StepError(
                    f"the jitted step ignores input {index} and repeats the first batch; "
                    "pass image and label as whole Tensors, or run with jit=False"
                )

    def _proof(self, inputs: Inputs) -> str:
        """Return a digest of the results of a call with random inputs and a random state."""
        rng = np.random.default_rng(1)
        results = self._outcome([to_device(_random_like(rng, tensor.numpy())) for tensor in inputs])
        return hashlib.sha256(b"".join(results.values())).hexdigest()

    def _outcome(self, inputs: Sequence[Tensor], plain: bool = False) -> dict[str, bytes]:
        """Return digests of the results of a call from a random state, which overwrites the state.

        Tensors are filled one by one: a copy of all is large.
        """
        rng = np.random.default_rng(0)
        for tensor in self.state.values():
            copy_(tensor, _random_like(rng, tensor.numpy()))
        return self._digests(self._realize(*inputs) if plain else self._run(tuple(inputs)))

    def _digests(self, output: Tensor) -> dict[str, bytes]:
        """Return digests of the output and of each Tensor of the state, as they are now."""
        tensors = {"output": output, **self.state}
        return {n: hashlib.sha256(t.numpy().tobytes()).digest() for n, t in tensors.items()}

    def _snapshot(self) -> dict[str, Array]:
        return {name: _kept(tensor.numpy()) for name, tensor in self.state.items()}

    def _restore(self, arrays: dict[str, Array]) -> None:
        for name, array in arrays.items():
            copy_(self.state[name], array)


def _check_same(again: dict[str, bytes], first: dict[str, bytes]) -> None:
    other = [name for name, digest in first.items() if again[name] != digest]
    if other:
        raise StepError(
            f"the same step gave another {other[0]} when replayed from the same state: it depends "
            "on something that is not in its state, e.g. a Tensor in a closure; make it an "
            "attribute of the network, or run with jit=False"
        )


def _are_same(one: Sequence[UOp], other: Sequence[UOp]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _kept(array: Array) -> Array:
    """Return a copy; all zeros, as in a fresh optimizer's state, take no memory."""
    if array.reshape(-1).view(np.uint8).any():  # of the bytes: -0.0 is kept as it is
        return array.copy()
    return np.broadcast_to(array.dtype.type(0), array.shape)


def _random_like(rng: np.random.Generator, array: Array) -> Array:
    """Return random numbers of this shape that suit any layer; integers are 0 or 1."""
    if array.dtype.kind != "f":
        return np.asarray(rng.integers(0, 2, array.shape), array.dtype)
    fan_in = array[0].size if array.ndim > 1 else 1
    return np.asarray((rng.random(array.shape, np.float32) / 2 + 0.25) / fan_in, array.dtype)


def _own(tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise StepError(
            f"a step takes Tensors, not {type(tensor).__name__}: a number or an index would keep "
            "its first value in every later call; pass Tensor(array)"
        )
    if tensor.device != backend().device:  # made before the device was chosen
        tensor = tensor.to(backend().device)
    return tensor if owns_buffer(tensor) else tensor.clone().realize()


def _signature(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.device


def _describe(signature: list[tuple[Any, ...]]) -> str:
    return " and ".join(f"{s} {np.dtype(dtype.fmt)} on {device}" for s, dtype, device in signature)


__all__ = ["GuardedJit"]


class CompiledStep:
    """What the training step and the prediction step say about how they were compiled."""

    _guarded: GuardedJit

    @property
    def compiled(self) -> bool:
        """Whether the first call, which compiles, has been made."""
        return self._guarded.compiled

    @property
    def origin(self) -> str:
        """Where the compiled step came from: compiled (and why not kept), or from the cache."""
        return self._guarded.origin

    @property
    def plain(self) -> list[str]:
        """The convolutions for which tinyseg has no kernel, by sizes, each with the reason."""
        return self._guarded.plain


def alter_image(image: Array) -> Array:
    """Return another image of the same shape and type: how the canary changes it."""
    ramp = np.linspace(-1, 1, image.size, dtype=np.float32).reshape(image.shape)
    return (image[::-1] * 0.5 + ramp).astype(image.dtype)

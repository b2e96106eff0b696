"""Optimizers and the loss scale over explicit state; learning-rate schedules on the host."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from tinygrad import Tensor, dtypes

from tinyseg import kernels
from tinyseg.backend import upload
from tinyseg.errors import ConfigError
from tinyseg.text import Call, Value, check_name, fill, parse_call

Tensors = dict[str, Tensor]

_SGD: dict[str, Value] = {"lr": 0.01, "momentum": 0.0, "nesterov": False, "decay": 0.0}
_ADAM: dict[str, Value] = {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "decay": 0.0}
_ADAMW: dict[str, Value] = {**_ADAM, "decay": 0.01}
OPTIMIZERS = {"sgd": _SGD, "adam": _ADAM, "adamw": _ADAMW}


class Optimizer:
    """Changes parameters in place by their gradients; all it remembers is in `state`."""

    def __init__(self, text: str, parameters: Tensors):
        call = parse_call(text)
        check_name(call, OPTIMIZERS, "optimizer")
        settings = fill(call, OPTIMIZERS[call.name])
        self.name, self.parameters = call.name, parameters
        self.nesterov = bool(settings.pop("nesterov", False))
        self.settings = {name: float(value) for name, value in settings.items()}  # type: ignore[arg-type]
        _check_settings(call, self.settings, self.nesterov)
        self.learning_rate = self.settings["lr"]
        self.state = self._make_state()

    def _make_state(self) -> Tensors:
        if self.name == "sgd":
            return self._zeros("velocity") if self.settings["momentum"] else {}
        powers = {f"{beta}_power": upload(np.ones(1, np.float32)) for beta in ("beta1", "beta2")}
        return {**powers, **self._zeros("mean"), **self._zeros("square")}

    def _zeros(self, prefix: str) -> Tensors:
        shapes = {name: tensor.shape for name, tensor in self.parameters.items()}
        return {f"{prefix}.{n}": upload(np.zeros(s, np.float32)) for n, s in shapes.items()}

    def update(self, gradients: Tensors, learning_rate: Tensor, accept: Tensor) -> None:
        """Assigns new parameters and state (unrealized); where `accept` is false, the old ones."""
        if self.name == "sgd":
            for old, new in self._sgd(gradients, learning_rate):
                old.assign(accept.where(new, old))
        else:
            self._adam(gradients, learning_rate, accept)

    def _sgd(self, gradients: Tensors, learning_rate: Tensor) -> list[tuple[Tensor, Tensor]]:
        momentum, decay = self.settings["momentum"], self.settings["decay"]
        pairs: list[tuple[Tensor, Tensor]] = []
        for name, parameter in self.parameters.items():
            step = gradients[name] + parameter * decay if decay else gradients[name]
            if momentum:
                old = self.state[f"velocity.{name}"]
                velocity = old * momentum + step
                pairs.append((old, velocity))
                step = step + velocity * momentum if self.nesterov else velocity
            pairs.append((parameter, parameter - learning_rate * step))
        return pairs

    def _adam(self, gradients: Tensors, learning_rate: Tensor, accept: Tensor) -> None:
        """Kingma & Ba 2015; adamw decouples the decay (Loshchilov & Hutter 2019)."""
        s, names = self.settings, list(self.parameters)
        powers = []
        for beta in ("beta1", "beta2"):
            old = self.state[f"{beta}_power"]
            powers.append(old.assign(accept.where(old * s[beta], old)))
        decoupled = s["decay"] if self.name == "adamw" else 0.0
        rate, rescale = learning_rate / (1 - powers[0]), (1 - powers[1]).rsqrt()
        shrink, taken = learning_rate * decoupled, accept.reshape(1).cast(dtypes.float32)
        kernels.adam(
            list(self.parameters.values()),
            [self.state[f"mean.{name}"] for name in names],
            [self.state[f"square.{name}"] for name in names],
            [gradients[name] for name in names],
            Tensor.cat(rate, rescale, shrink, taken),
            s["beta1"],
            s["beta2"],
            s["epsilon"],
            s["decay"] - decoupled,
        )


def _check_settings(call: Call, settings: dict[str, float], nesterov: bool) -> None:
    below_one = [name for name in ("momentum", "beta1", "beta2") if settings.get(name, 0) >= 1]
    negative = [name for name, value in settings.items() if value < 0]
    if below_one or negative:
        name = (below_one + negative)[0]
        rule = "below 1" if below_one else "at least 0"
        raise ConfigError(f"{call}: {name}={settings[name]} cannot be used: it must be {rule}")
    if nesterov and not settings["momentum"]:
        raise ConfigError(
            f"{call}: nesterov needs a momentum, e.g. sgd(momentum=0.9,nesterov=true)"
        )


def clip(gradients: Tensors, norm: Tensor, largest: float) -> Tensors:
    """Return the gradients scaled so that their joint norm, now `norm`, is at most `largest`."""
    scale = (largest / (norm + 1e-6)).minimum(1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}


def joint_norm(gradients: Tensors) -> Tensor:
    """The norm of all gradients as one vector: finite only when all of them are."""
    return kernels.joint_norm(list(gradients.values()))


class LossScale:
    """A factor of the loss that keeps float16 gradients from underflow; undone before the update.

    Micikevicius et al. 2018, section 3.2, adapted as in torch.amp.GradScaler: from 2^16, halved
    with every update that overflows and is left out, doubled after GROW_AFTER good ones; here it
    stays within 1 and 2^24. `fixed` > 0 is kept. Other precisions need none: `state` is empty.
    """

    GROW_AFTER = 2000

    def __init__(self, precision: str = "float16", fixed: float = 0.0):
        self.lowest, self.highest = (fixed, fixed) if fixed else (1.0, 2.0**24)
        self.state: Tensors = {}
        if precision == "float16":
            self.state["loss_scale.value"] = upload(np.array([fixed or 2.0**16], np.float32))
            self.state["loss_scale.good"] = upload(
                np.zeros(1, np.int32)
            )  # updates since the last change

    def up(self, loss: Tensor) -> Tensor:
        """The loss whose gradients are to be taken."""
        return loss * self.state["loss_scale.value"].reshape(()) if self.state else loss

    def down(self, gradients: Tensors) -> Tensors:
        """The gradients of the loss itself."""
        if not self.state:
            return gradients
        back = 1 / self.state["loss_scale.value"]
        return {
            name: gradient * back.reshape([1] * gradient.ndim)
            for name, gradient in gradients.items()
        }

    def adapt(self, accept: Tensor) -> None:
        """Assigns (unrealized) the scale of the next step; `accept`: the gradients were finite."""
        scale, good = self.state["loss_scale.value"], self.state["loss_scale.good"]
        full = good + 1 >= self.GROW_AFTER
        moved = accept.where(full.where(scale * 2, scale), scale / 2)
        counted = (accept & ~full).where(good + 1, 0)
        scale.assign(moved.clip(self.lowest, self.highest))
        good.assign(counted)


_SCHEDULES: dict[str, dict[str, Value]] = {
    "constant": {"warmup": 0.0},
    "cosine": {"warmup": 0.0, "floor": 0.0},
    "poly": {"power": 0.9, "warmup": 0.0},
    "plateau": {"factor": 0.1, "patience": 10.0, "warmup": 0.0},
}


@dataclass
class Schedule:
    """The learning rate's factor in [0, 1] at each step; only `plateau` remembers anything."""

    text: str
    name: str = ""
    settings: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0
    """plateau: the product of all reductions so far."""
    best: float = -1.0
    """plateau: the best validation Dice so far."""
    waited: int = 0
    """plateau: epochs since the best."""

    def __post_init__(self) -> None:
        call = parse_call(self.text)
        check_name(call, _SCHEDULES, "schedule")
        filled = fill(call, _SCHEDULES[call.name])
        self.name, self.settings = call.name, {k: float(v) for k, v in filled.items()}  # type: ignore[arg-type]
        for name, value in self.settings.items():
            top = math.inf if name in ("power", "patience") else 1.0
            if not 0 <= value <= top:
                raise ConfigError(f"{call}: {name}={value} must be between 0 and {top}")

    def factor(self, step: int, steps: int) -> float:
        """The factor of step number `step` (from 0) of `steps` in all."""
        warmup = self.settings["warmup"] * steps
        rising = min(1.0, (step + 1) / warmup) if warmup >= 1 else 1.0
        done = max(0.0, (step - warmup) / max(steps - warmup, 1))
        return self.scale * rising * _SHAPES[self.name](done, self.settings)

    def observe(self, dice: float) -> bool:
        """Tells plateau the epoch's validation Dice; True when it lowers the rate now."""
        if self.name != "plateau":
            return False
        if dice > self.best:
            self.best, self.waited = dice, 0
            return False
        self.waited += 1
        if self.waited <= self.settings["patience"]:
            return False
        self.scale, self.waited = self.scale * self.settings["factor"], 0
        return True


_SHAPES: dict[str, Callable[[float, dict[str, float]], float]] = {
    "constant": lambda done, s: 1.0,
    "plateau": lambda done, s: 1.0,
    "cosine": lambda done, s: s["floor"] + (1 - s["floor"]) * 0.5 * (1 + math.cos(math.pi * done)),
    "poly": lambda done, s: (1 - done) ** s["power"],
}

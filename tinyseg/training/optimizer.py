"""Optimizers over explicit state: ours, read from text, and tinygrad's own."""

from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes, nn

from tinyseg import kernels
from tinyseg.common.spec import Call, Value, check_name, fill, parse_call
from tinyseg.device.tensors import Tensors, ensure_buffer, hold_back, to_device
from tinyseg.errors import ConfigError, StepError

_SGD: dict[str, Value] = {
    "lr": 0.01,
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "encoder": 1.0,
}
_ADAM: dict[str, Value] = {
    "lr": 0.001,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "encoder": 1.0,
}
_ADAMW: dict[str, Value] = {**_ADAM, "weight_decay": 0.01}
_RENAMED = {"decay": "weight_decay", "epsilon": "eps"}
"""Arguments of version 0.1, which saved runs may have."""
OPTIMIZERS = {"sgd": _SGD, "adam": _ADAM, "adamw": _ADAMW}


class Optimizer:
    """Changes parameters in place by their gradients; all that it keeps is in `state`."""

    def __init__(self, text: str, parameters: Tensors):
        call = parse_call(text)
        arguments = {_RENAMED.get(name, name): value for name, value in call.arguments.items()}
        call = Call(call.name, arguments)
        check_name(call, OPTIMIZERS, "optimizer")
        settings = fill(call, OPTIMIZERS[call.name])
        self.name, self.parameters = call.name, parameters
        self.nesterov = bool(settings.pop("nesterov", False))
        self.settings = {name: float(value) for name, value in settings.items()}  # type: ignore[arg-type]
        _check_settings(call, self.settings, self.nesterov)
        self.learning_rate = self.settings["lr"]
        self.groups = self._make_groups(call)
        """Factors of the learning rate, and the parameters that each is for."""
        self.state = self._make_state()

    def _make_groups(self, call: Call) -> list[tuple[float, list[str]]]:
        factor, names = self.settings.pop("encoder"), list(self.parameters)
        if factor == 1:
            return [(1.0, names)]
        encoder = [name for name in names if name.startswith("encoder.")]
        if names and not encoder:
            raise ConfigError(
                f"{call}: encoder={factor:g} has no effect, as no encoder is trained: omit it, or "
                "choose another network (`tinyseg models`)"
            )
        return [(factor, encoder), (1.0, [name for name in names if name not in encoder])]

    def _make_state(self) -> Tensors:
        if self.name == "sgd":
            return self._zeros("velocity") if self.settings["momentum"] else {}
        powers = {f"{beta}_power": to_device(np.ones(1, np.float32)) for beta in ("beta1", "beta2")}
        return {**powers, **self._zeros("mean"), **self._zeros("square")}

    def _zeros(self, prefix: str) -> Tensors:
        shapes = {name: tensor.shape for name, tensor in self.parameters.items()}
        return {f"{prefix}.{n}": to_device(np.zeros(s, np.float32)) for n, s in shapes.items()}

    def update(self, gradients: Tensors, learning_rate: Tensor, accept: Tensor) -> None:
        """Assign new parameters and state (unrealized); where `accept` is false, the old ones."""
        if self.name == "sgd":
            for old, new in self._sgd(gradients, learning_rate):
                old.assign(accept.where(new, old))
        else:
            self._adam(gradients, learning_rate, accept)

    def _sgd(self, gradients: Tensors, learning_rate: Tensor) -> list[tuple[Tensor, Tensor]]:
        momentum, decay = self.settings["momentum"], self.settings["weight_decay"]
        pairs: list[tuple[Tensor, Tensor]] = []
        rates = {
            n: learning_rate if f == 1 else learning_rate * f for f, g in self.groups for n in g
        }
        for name, parameter in self.parameters.items():
            step = gradients[name] + parameter * decay if decay else gradients[name]
            if momentum:
                old = self.state[f"velocity.{name}"]
                velocity = old * momentum + step
                pairs.append((old, velocity))
                step = step + velocity * momentum if self.nesterov else velocity
            pairs.append((parameter, parameter - rates[name] * step))
        return pairs

    def _adam(self, gradients: Tensors, learning_rate: Tensor, accept: Tensor) -> None:
        """Kingma & Ba 2015; adamw decouples the decay (Loshchilov & Hutter 2019)."""
        s = self.settings
        powers = []
        for beta in ("beta1", "beta2"):
            old = self.state[f"{beta}_power"]
            powers.append(old.assign(accept.where(old * s[beta], old)))
        decoupled = s["weight_decay"] if self.name == "adamw" else 0.0
        rate, rescale = learning_rate / (1 - powers[0]), (1 - powers[1]).rsqrt()
        shrink, taken = learning_rate * decoupled, accept.reshape(1).cast(dtypes.float32)
        settings = (s["beta1"], s["beta2"], s["eps"], s["weight_decay"] - decoupled)
        for factor, names in self.groups:
            numbers = (rate, rescale, shrink, taken)
            if factor != 1:
                numbers = (rate * factor, rescale, shrink * factor, taken)
            kernels.adam(
                [self.parameters[name] for name in names],
                [self.state[f"mean.{name}"] for name in names],
                [self.state[f"square.{name}"] for name in names],
                [gradients[name] for name in names],
                Tensor.cat(*numbers),
                kernels.AdamSettings(*settings),
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


class TinygradOptimizer:
    """One of tinygrad's own optimizers, such as `tinygrad.nn.optim.Adam`, in a step.

    It changes the parameters that it was made with: those left out stay as they are.
    """

    def __init__(self, optimizer: Any, parameters: Tensors):
        single = isinstance(optimizer, nn.optim.Optimizer) and hasattr(optimizer, "lr")
        if not single:
            raise StepError(
                f"optimizer={type(optimizer).__name__} cannot be used: give a text such as "
                '"adam(lr=0.001)", one of tinygrad.nn.optim (not a group), or a function of the '
                "list of parameters that returns one"
            )
        names = {id(tensor): name for name, tensor in parameters.items()}
        if not all(id(tensor) in names for tensor in optimizer.params):
            raise StepError(
                f"{type(optimizer).__name__} was made with Tensors that are no parameters of the "
                "network: make it with tinygrad.nn.state.get_parameters(model) of the same model"
            )
        self.optimizer = optimizer
        self.parameters = {names[id(tensor)]: tensor for tensor in optimizer.params}
        self.learning_rate = float(str(optimizer.lr.numpy().reshape(-1)[0]))
        """The one that it was made with, which the schedule multiplies."""
        ignored = {id(optimizer.lr), *map(id, (*optimizer.params, *optimizer.buffers))}
        tensors = nn.state.get_state_dict(optimizer)
        self.state: Tensors = {n: t for n, t in tensors.items() if id(t) not in ignored}
        ensure_buffer(*self.state.values())

    def update(self, gradients: Tensors, learning_rate: Tensor, accept: Tensor) -> None:
        """Assign new parameters and state (unrealized); where `accept` is false, the old ones."""
        tensors = [*self.parameters.values(), *self.state.values()]
        self.optimizer.lr = learning_rate
        with hold_back(tensors, lambda new, old: accept.where(new, old)), Tensor.train():
            for name, parameter in self.parameters.items():
                parameter.grad = gradients[name]
            self.optimizer.schedule_step()
            self.optimizer.zero_grad()


def clip(gradients: Tensors, norm: Tensor, largest: float) -> Tensors:
    """Return the gradients scaled so that their joint norm, now `norm`, is at most `largest`."""
    scale = (largest / (norm + 1e-6)).minimum(1.0)
    return {name: gradient * scale for name, gradient in gradients.items()}


def joint_norm(gradients: Tensors) -> Tensor:
    """Return the norm of all gradients as one vector: finite only when all of them are."""
    return kernels.joint_norm(list(gradients.values()))

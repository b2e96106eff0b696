"""How a network is called: ours and a user's, in training and in evaluation."""

import inspect
from typing import Any

from tinygrad import Tensor


def forward(model: Any, x_bchw: Tensor, training: bool) -> Tensor:
    """Return `model(x)` or, where the network takes it, `model(x, training)`.

    `Tensor.training` is set meanwhile: tinygrad's own BatchNorm and `.dropout()` go by it.
    """
    with Tensor.train(training):
        try:
            taken = inspect.signature(model).parameters.values()
        except (TypeError, ValueError):  # code that Python cannot look into
            return model(x_bchw)
        if any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in taken):
            return model(x_bchw, training=training)
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in taken if p.kind in positional and p.default is p.empty]
        return model(x_bchw, training) if len(needed) == 2 else model(x_bchw)

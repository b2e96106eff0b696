"""How a network, of ours or of a user, is called in training and in evaluation."""

import inspect
from typing import Any

from tinygrad import Tensor

from tinyseg.device.tensors import hold_back
from tinyseg.errors import StepError
from tinyseg.nn.module import state_dict


def forward(model: Any, x_bchw: Tensor, training: bool) -> Tensor:
    """Return `model(x)` or, where the network takes it, `model(x, training)`.

    `Tensor.training` is set meanwhile: tinygrad's own BatchNorm and `.dropout()` go by it.
    """
    with Tensor.train(training):
        try:
            arguments = inspect.signature(model).parameters.values()
        except (TypeError, ValueError):  # code that Python cannot look into
            return model(x_bchw)
        if any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in arguments):
            return model(x_bchw, training=training)
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in arguments if p.kind in positional and p.default is p.empty]
        return model(x_bchw, training) if len(needed) == 2 else model(x_bchw)


def output_channels(model: Any, in_channels: int = 0, size: int = 64) -> int:
    """Return K of the logits (B, K, H, W): `model.out_channels`, or that of a call of the model.

    Nothing is computed for it. `in_channels` 0: as many as the first weight of four dimensions
    takes. StepError where that does not give four dimensions.
    """
    known = getattr(model, "out_channels", None)
    if isinstance(known, int):
        return known
    weights = list(state_dict(model).values())
    channels = in_channels or next((int(w.shape[1]) for w in weights if w.ndim == 4), 1)
    try:
        with hold_back(weights):
            shape = forward(model, Tensor.zeros(1, channels, size, size), training=False).shape
    except Exception as error:  # noqa: BLE001 - the code is the user's
        shape = f"{type(error).__name__}: {error}"
    if isinstance(shape, str) or len(shape) != 4:
        raise StepError(
            f"{type(model).__name__} called with an image (1, {channels}, {size}, {size}) gives "
            f"{shape}, not logits (1, K, {size}, {size}); if it needs another image, set "
            "model.out_channels to 1 (sigmoid) or to the number of classes (softmax)"
        )
    return int(shape[1])

"""The loss scale that keeps float16 gradients from underflow."""

import numpy as np
from tinygrad import Tensor

from tinyseg.device.tensors import Tensors, to_device


class LossScale:
    """A factor of the loss that keeps float16 gradients from underflow, divided out of them again.

    Micikevicius et al. 2018, section 3.2, adapted as in torch.amp.GradScaler: from 2^16, halved
    with every update that overflows and is left out, doubled after GROW_AFTER good ones; here it
    stays within 1 and 2^24. `fixed` > 0 is kept. Other precisions need none: `state` is empty.
    """

    GROW_AFTER = 2000

    def __init__(self, precision: str = "float16", fixed: float = 0.0):
        self.lowest, self.highest = (fixed, fixed) if fixed else (1.0, 2.0**24)
        self.state: Tensors = {}
        if precision == "float16":
            self.state["loss_scale.value"] = to_device(np.array([fixed or 2.0**16], np.float32))
            self.state["loss_scale.good"] = to_device(
                np.zeros(1, np.int32)
            )  # updates since the last change

    def up(self, loss: Tensor) -> Tensor:
        """Return the scaled loss, whose gradients are taken."""
        return loss * self.state["loss_scale.value"].reshape(()) if self.state else loss

    def down(self, gradients: Tensors) -> Tensors:
        """Return the gradients of the loss itself."""
        if not self.state:
            return gradients
        back = 1 / self.state["loss_scale.value"]
        return {
            name: gradient * back.reshape([1] * gradient.ndim)
            for name, gradient in gradients.items()
        }

    def adapt(self, accept: Tensor) -> None:
        """Assign (unrealized) the next scale; `accept`: whether the gradients were finite."""
        scale, good = self.state["loss_scale.value"], self.state["loss_scale.good"]
        full = good + 1 >= self.GROW_AFTER
        new_scale = accept.where(full.where(scale * 2, scale), scale / 2)
        new_good = (accept & ~full).where(good + 1, 0)
        scale.assign(new_scale.clip(self.lowest, self.highest))
        good.assign(new_good)

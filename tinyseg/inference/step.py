"""The compiled prediction step."""

from typing import Any

from tinygrad import Tensor

from tinyseg.device.choose import backend
from tinyseg.device.tensors import Tensors, realize_weights
from tinyseg.jit.guarded import CompiledStep, GuardedJit, alter_image
from tinyseg.jit.key import describe
from tinyseg.nn import forward, state_dict


class PredictStep(CompiledStep):
    """A function of images: probabilities (B, K, H, W) in [0, 1] of a model in evaluation mode."""

    def __init__(self, model: Any, jit: bool = True, canary: bool = True):
        backend()
        self.model = model
        self.state: Tensors = state_dict(model)
        realize_weights(self.state)
        self._guarded = GuardedJit(
            self._step, self.state, (alter_image,), jit, canary, self._recipe
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Return the foreground's probability (K = 1), or that of each class, summing to 1."""
        return self._guarded(image)

    def _step(self, image: Tensor) -> Tensor:
        return probabilities(forward(self.model, image, training=False)).contiguous()

    def _recipe(self) -> dict[str, str]:
        return {"step": describe(type(self), {}), "model": describe(self.model, self.state)}


def probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities (B, K, H, W) of logits: sigmoid for one channel, else softmax."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(axis=1)

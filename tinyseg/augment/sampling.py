"""What one transform draws: a number for each sample, and whether the sample gets it at all."""

from collections.abc import Callable, Iterator

from tinygrad import Tensor


class Draw:
    """The numbers of one transform; each is a Tensor (B,), drawn anew in every step."""

    def __init__(
        self, numbers: Iterator[Tensor], normal: Callable[[int], Tensor], on: Tensor | None
    ):
        """`numbers` are uniform in [0, 1); `on` (B,) says who gets the transform (None: all)."""
        self._numbers, self._on = numbers, on
        self.normal = normal
        """`normal(count)` gives each sample so many normal numbers: (B, count)."""

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """A number between low and high, for every sample."""
        return next(self._numbers) * (high - low) + low

    def gate(self, value: Tensor, neutral: float) -> Tensor:
        """The value where the sample gets the transform, else the one that changes nothing."""
        # a choice, not a blend: what is off must be off to the last bit
        if self._on is None:
            return value
        return self._on.reshape(-1, *(1,) * (value.ndim - 1)).where(value, neutral)

    def between(self, low: float, high: float, neutral: float) -> Tensor:
        """A number between low and high where the sample gets the transform."""
        return self.gate(self.uniform(low, high), neutral)

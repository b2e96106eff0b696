"""What one transform draws: a number for each sample, and whether the sample gets it at all."""

from collections.abc import Callable, Iterator

from tinygrad import Tensor


class Draw:
    """The random numbers of one transform; each is a Tensor (B,), drawn anew in every step."""

    def __init__(
        self, numbers: Iterator[Tensor], normal: Callable[[int], Tensor], applied: Tensor | None
    ):
        """`numbers` are uniform in [0, 1); `applied` (B,): which samples get it (None: all)."""
        self._numbers, self._applied = numbers, applied
        self.normal = normal
        """`normal(count)` draws so many normal numbers for each sample: (B, count)."""

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return a number between low and high, for every sample."""
        return next(self._numbers) * (high - low) + low

    def gate(self, value: Tensor, neutral: float) -> Tensor:
        """Return the value where the sample gets the transform, else one that changes nothing."""
        # a choice, not a blend: where it is off it must be off to the last bit
        if self._applied is None:
            return value
        return self._applied.reshape(-1, *(1,) * (value.ndim - 1)).where(value, neutral)

    def between(self, low: float, high: float, neutral: float) -> Tensor:
        """Return a number between low and high where the sample gets the transform."""
        return self.gate(self.uniform(low, high), neutral)

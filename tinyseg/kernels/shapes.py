"""The sizes of a convolution, and the tile or the warp that a kernel of it works with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Convolution:
    """The sizes of one convolution over NHWC memory; everything else follows from them."""

    batch: int
    rows: int
    columns: int
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = False
    relu: bool = False
    scatter: int = 1
    """Output pixels per input pixel and axis: 2 makes a transposed convolution of a 1x1 one."""

    @property
    def out_rows(self) -> int:
        """Rows of the output before scattering."""
        return (self.rows + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def out_columns(self) -> int:
        """Columns of the output before scattering."""
        return (self.columns + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def operations(self) -> int:
        """Floating-point operations, a multiply-add counted as two, padding included."""
        pixels = self.batch * self.out_rows * self.out_columns
        return 2 * pixels * self.kernel**2 * self.inputs * self.outputs

    @property
    def label(self) -> str:
        """A name for programs and reports."""
        size = f"{self.batch}x{self.rows}x{self.columns}"
        kind = f"{self.kernel}s{self.stride}p{self.padding}"
        kind += "r" * self.relu + "t" * (self.scatter > 1)
        return f"{size}_{self.inputs}to{self.outputs}_k{kind}"


@dataclass(frozen=True)
class AdamSettings:
    """What is the same in every step of Adam, and compiled into its kernel."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Added to the gradient (L2), as in Adam; AdamW's comes with the numbers of each step."""


@dataclass(frozen=True)
class Tile:
    """The register tile and the cache blocks of one kernel."""

    lanes: int
    """Floats in one vector."""
    vectors: int
    """Vectors of output channels held at once."""
    steps: int
    """Columns (forward) or input channels (weight gradient) held at once."""
    block: int
    """Input channels (forward) or rows (weight gradient) per cache block."""
    threads: int

    @property
    def width(self) -> int:
        """Channels held at once."""
        return self.lanes * self.vectors

    def __str__(self) -> str:
        return f"{self.steps}x{self.vectors}x{self.lanes} block {self.block} on {self.threads}"


@dataclass(frozen=True)
class Instruction:
    """One matrix multiplication of a GPU's tensor cores, of half numbers with float32 sums."""

    columns: int
    rows: int
    depth: int
    """Numbers that are summed over."""
    exists: bool = True
    """False computes the same with plain arithmetic, for devices without (in tests)."""

    def __str__(self) -> str:
        name = f"m{self.rows}n{self.columns}k{self.depth}"
        return name if self.exists else f"{name} by plain arithmetic"


@dataclass(frozen=True)
class Warp:
    """What the threads of one warp compute together."""

    instruction: Instruction
    wide: int
    """Instructions next to each other, which share the rows that were read."""
    tall: int
    """Instructions below each other, which share the columns that were read."""
    together: int = 1
    """Warps of a block: they read the same pixels."""
    parts: int = 1
    """Partial sums of a weight gradient."""

    @property
    def rows(self) -> int:
        """Output channels of a block."""
        return self.instruction.rows * self.tall * self.together

    def __str__(self) -> str:
        tile = f"{self.tall}x{self.wide} {self.instruction} a warp, {self.together} warps a block"
        return tile + (f", {self.parts} partial sums" if self.parts > 1 else "")

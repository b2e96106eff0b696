"""The peer: the same U-Net, loss and optimizer in PyTorch; imported by benches only."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

Array = np.ndarray[Any, np.dtype[Any]]


class DoubleConv(nn.Module):
    """Twice: 3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_bchw: Tensor) -> Tensor:
        x_bchw = self.relu(self.norm1(self.conv1(x_bchw)))
        return self.relu(self.norm2(self.conv2(x_bchw)))


class Up(nn.Module):
    """Doubles the resolution, joins the skip connection, convolves."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = DoubleConv(2 * out_channels, out_channels)

    def forward(self, x_bchw: Tensor, skip_bchw: Tensor) -> Tensor:
        return self.conv(torch.cat([skip_bchw, self.up(x_bchw)], dim=1))


class UNet(nn.Module):
    """tinyseg's U-Net with a sigmoid head; its weights have the same names and shapes."""

    def __init__(self, in_channels: int, base: int, depth: int):
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        pairs = zip([in_channels, *widths], widths, strict=False)
        self.down = nn.ModuleList(DoubleConv(before, after) for before, after in pairs)
        self.pool = nn.MaxPool2d(2)
        levels = reversed(range(depth))
        self.up = nn.ModuleList(Up(widths[level + 1], widths[level]) for level in levels)
        self.head = nn.Conv2d(base, 1, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x_bchw = block(self.pool(x_bchw) if level else x_bchw)
            skips.append(x_bchw)
        x_bchw = skips.pop()
        for up in self.up:
            x_bchw = up(x_bchw, skips.pop())
        return self.head(x_bchw)


class Peer:
    """PyTorch's side of a pair, with the same methods as `worker.Ours`."""

    def __init__(self, task: dict[str, Any]):
        self.device, self.options = torch_device(task["device"]), task["options"]
        torch.set_num_threads(task["threads"])
        torch.backends.cudnn.benchmark = True
        channels_last = self.options["layout"] == "channels_last"
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def build(self, case: Any, weights: Path, batches: list[tuple[Array, Array]]) -> None:
        """Make the model with tinyseg's weights, and upload the batches."""
        self.model = UNet(case.channels, case.base, case.depth)
        with np.load(weights) as arrays:
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        missing, unknown = self.model.load_state_dict(tensors, strict=False)
        if unknown or any(not name.endswith("num_batches_tracked") for name in missing):
            raise SystemExit(f"weights do not fit the peer: {missing=} {unknown=}")
        self.model.to(self.device, memory_format=self.format)
        # the fused one is PyTorch's fastest Adam, and not its default
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.batches = [(self._upload(x), self._upload(y[:, None])) for x, y in batches]
        compiled = self.options["compile"]
        self.forward = torch.compile(self.model) if compiled else self.model

    def _upload(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(array.astype(np.float32))
        return tensor.to(self.device, memory_format=self.format)

    def _logits(self, image: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.options["autocast"]):
            return self.forward(image)

    def train(self, number: int) -> None:
        """One step on a batch."""
        image, label = self.batches[number]
        self.loss = binary_cross_entropy_with_logits(self._logits(image).float(), label)
        self.optimizer.zero_grad()
        self.loss.backward()
        self.optimizer.step()

    @torch.inference_mode()
    def predict(self, number: int) -> None:
        """Probabilities of a batch in evaluation mode."""
        if self.model.training:
            self.model.eval()
        self.probability = self._logits(self.batches[number][0]).float().sigmoid()

    def read_loss(self) -> float:
        """The last step's loss."""
        return self.loss.item()

    def read_probability(self) -> Array:
        """The last prediction."""
        return self.probability.numpy(force=True)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()

    def facts(self) -> dict[str, Any]:
        """What the numbers depend on, and the GPU's memory."""
        on_gpu = self.device == "cuda"
        return {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if on_gpu else self.device,
            "device_memory_mib": torch.cuda.max_memory_reserved() / 2**20 if on_gpu else 0.0,
        }


def torch_device(tinygrad_device: str) -> str:
    """PyTorch's name of tinygrad's device."""
    if tinygrad_device in ("CUDA", "NV", "AMD"):
        return "cuda"
    return "mps" if tinygrad_device == "METAL" else "cpu"

"""ResNet (He, Zhang, Ren & Sun 2016, https://arxiv.org/abs/1512.03385)."""

from collections.abc import Sequence

from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.kernels import relu
from tinyseg.nn import BatchNorm, Conv2d, Dropout, Generator, normed


class BasicBlock:
    """Two 3 x 3 convolutions beside a shortcut; torchvision's BasicBlock, name by name."""

    expansion = 1

    def __init__(
        self,
        rng: Generator | None,
        inputs: int,
        width: int,
        stride: int,
        dilation: int,
        drop: float,
    ):
        self.conv1 = Conv2d(rng, inputs, width, 3, stride, bias=False, dilation=dilation)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv2d(rng, width, width, 3, bias=False, dilation=dilation)
        self.bn2 = BatchNorm(width, activation="none")
        self.downsample = _downsample(rng, inputs, width, stride)
        self.drop = Dropout(rng, drop, of="images")

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        y = normed(self.conv1, self.bn1, x_bchw, training)
        y = normed(self.conv2, self.bn2, y, training)
        return _add(self.drop(y, training), x_bchw, self.downsample, training)


class Bottleneck:
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut; torchvision's Bottleneck.

    The 3 x 3 convolution has the stride (version 1.5), not the first one as in the paper.
    """

    expansion = 4

    def __init__(
        self,
        rng: Generator | None,
        inputs: int,
        width: int,
        stride: int,
        dilation: int,
        drop: float,
    ):
        outputs = width * self.expansion
        self.conv1 = Conv2d(rng, inputs, width, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv2d(rng, width, width, 3, stride, bias=False, dilation=dilation)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv2d(rng, width, outputs, 1, bias=False)
        self.bn3 = BatchNorm(outputs, activation="none")
        self.downsample = _downsample(rng, inputs, outputs, stride)
        self.drop = Dropout(rng, drop, of="images")

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        y = normed(self.conv1, self.bn1, x_bchw, training)
        y = normed(self.conv2, self.bn2, y, training)
        y = normed(self.conv3, self.bn3, y, training)
        return _add(self.drop(y, training), x_bchw, self.downsample, training)


Downsample = tuple[Conv2d, BatchNorm] | None


def _downsample(rng: Generator | None, inputs: int, outputs: int, stride: int) -> Downsample:
    """Return the shortcut's 1 x 1 convolution, where sizes differ."""
    if stride == 1 and inputs == outputs:
        return None
    conv = Conv2d(rng, inputs, outputs, 1, stride, bias=False)
    return conv, BatchNorm(outputs, activation="none")


def _add(y_bchw: Tensor, x_bchw: Tensor, downsample: Downsample, training: bool) -> Tensor:
    if downsample:
        x_bchw = normed(*downsample, x_bchw, training)
    return relu(y_bchw + x_bchw).cast(y_bchw.dtype)


class ResNet:
    """The ResNet without its head; tensors are named as in torchvision and in SMP's encoders."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        rng: Generator | None,
        in_channels: int,
        output_stride: int = 32,
        stochastic_depth: float = 0.0,
    ):
        self.output_stride = output_stride
        self.conv1 = Conv2d(rng, in_channels, 64, 7, 2, bias=False)
        self.bn1 = BatchNorm(64)
        widths = (64, 128, 256, 512)
        self.channels = (64, *(width * block.expansion for width in widths))
        stages, inputs, number = [], 64, 0
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            # a stage that may not halve the resolution looks as far by dilation
            dilation = max(1, 2 ** (index + 2) // output_stride)
            stride = 1 if index == 0 or dilation > 1 else 2
            stage = []
            for place in range(count):
                drop = stochastic_depth * number / sum(blocks)
                stage.append(block(rng, inputs, width, 1 if place else stride, dilation, drop))
                number += 1
                inputs = width * block.expansion
            stages.append(stage)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def __call__(self, x_bchw: Tensor, training: bool) -> list[Tensor]:
        """Return five features, the largest first; `channels` has their sizes."""
        features = [normed(self.conv1, self.bn1, x_bchw, training)]
        x = kernels.max_pool(features[0], 3)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, training)
            features.append(x)
        return features

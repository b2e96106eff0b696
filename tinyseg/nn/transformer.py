"""The parts of vision transformers, on tokens (B, N, C) (Dosovitskiy et al. 2021, ViT)."""

import numpy as np
from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.device.tensors import to_device
from tinyseg.kernels import wide
from tinyseg.nn.layers import Generator, normal


class Linear:
    """A matrix product with a bias; as torch.nn.Linear."""

    def __init__(self, rng: Generator | None, inputs: int, outputs: int):
        self.weight = normal(rng, (outputs, inputs), 0.02)  # of ViT
        self.bias = to_device(np.zeros(outputs, np.float32))

    def __call__(self, x_bnc: Tensor) -> Tensor:
        batch, count, inputs = x_bnc.shape
        # a 1 x 1 convolution, which has fast kernels
        x_bcn1 = x_bnc.permute(0, 2, 1).reshape(batch, inputs, count, 1)
        weight = self.weight.reshape(*self.weight.shape, 1, 1)
        y_bon1 = kernels.conv2d(x_bcn1, weight, self.bias)
        return y_bon1.reshape(batch, -1, count).permute(0, 2, 1)


class LayerNorm:
    """Normalization of each token over its channels (Ba, Kiros & Hinton 2016)."""

    def __init__(self, channels: int, eps: float = 1e-6):
        self.weight = to_device(np.ones(channels, np.float32))
        self.bias = to_device(np.zeros(channels, np.float32))
        self.eps = eps

    def __call__(self, x_bnc: Tensor) -> Tensor:
        x = wide(x_bnc)
        centered = x - x.mean(axis=2, keepdim=True)
        variance = centered.square().mean(axis=2, keepdim=True)
        y_bnc = centered * (variance + self.eps).rsqrt() * self.weight + self.bias
        return y_bnc.cast(x_bnc.dtype)


def attend(q_bhnd: Tensor, k_bhmd: Tensor, v_bhmd: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, with the heads joined: (B, N, H D)."""
    q, k, v = wide(q_bhnd), wide(k_bhmd), wide(v_bhmd)
    kernels.count(4 * int(q.numel() * k.shape[2]))
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(axis=-1)
    mixed = (weights @ v).cast(q_bhnd.dtype)
    return mixed.permute(0, 2, 1, 3).flatten(2)


class Attention:
    """Multi-head self-attention (Vaswani et al. 2017); as timm's."""

    def __init__(self, rng: Generator | None, channels: int, heads: int):
        self.heads = heads
        self.qkv = Linear(rng, channels, 3 * channels)
        self.proj = Linear(rng, channels, channels)

    def __call__(self, x_bnc: Tensor) -> Tensor:
        batch, count, _ = x_bnc.shape
        parts = self.qkv(x_bnc).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(attend(parts[0], parts[1], parts[2]))


class MLP:
    """Two linear layers with a GELU between them."""

    def __init__(self, rng: Generator | None, channels: int, inner: int):
        self.fc1 = Linear(rng, channels, inner)
        self.fc2 = Linear(rng, inner, channels)

    def __call__(self, x_bnc: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x_bnc)))


def gelu(x: Tensor) -> Tensor:
    """Return x times the probability that a normal number is below x (Hendrycks & Gimpel 2016)."""
    return (wide(x) * 0.5 * (1 + (wide(x) / 2**0.5).erf())).cast(x.dtype)


class TransformerBlock:
    """Attention and an MLP, each beside a shortcut and after a normalization; as timm's."""

    def __init__(self, rng: Generator | None, channels: int, heads: int):
        self.norm1 = LayerNorm(channels)
        self.attn = Attention(rng, channels, heads)
        self.norm2 = LayerNorm(channels)
        self.mlp = MLP(rng, channels, 4 * channels)

    def __call__(self, x_bnc: Tensor) -> Tensor:
        x_bnc = x_bnc + self.attn(self.norm1(x_bnc))
        return x_bnc + self.mlp(self.norm2(x_bnc))

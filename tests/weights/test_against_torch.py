"""Where PyTorch and segmentation-models-pytorch are installed: the same logits and gradients.

A venv with torch, segmentation-models-pytorch 0.6 and timm runs it; CI has the goldens instead.
"""

from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor
from weights.formula import numbers
from weights.test_transfer import value

from tinyseg.config import ModelConfig
from tinyseg.device.tensors import copy_, to_device
from tinyseg.models import build
from tinyseg.nn import parameters, state_dict
from tinyseg.runs.checkpoint import save
from tinyseg.weights import load_weights, to_torch

torch = pytest.importorskip("torch")
smp = pytest.importorskip("segmentation_models_pytorch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

NETWORKS = {
    "unet": "Unet",
    "unet++": "UnetPlusPlus",
    "fpn": "FPN",
    "deeplabv3+": "DeepLabV3Plus",
}


def with_values(model):
    """The same weights as the goldens have, by a formula."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))
    return model


def reference(name: str, encoder: str):
    without = {"fpn": {"decoder_dropout": 0.0}, "deeplabv3+": {"decoder_aspp_dropout": 0.0}}
    network = getattr(smp, NETWORKS[name])
    return with_values(network(encoder, encoder_weights=None, classes=3, **without.get(name, {})))


def our_name(name: str) -> str:
    """SMP's EfficientNets have an underscore before every name."""
    return name.replace("._", ".")


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))


PAIRS = [
    *((name, "resnet18") for name in NETWORKS),
    *(("unet", encoder) for encoder in ("resnet34", "resnet50", "mobilenet_v2")),
    *((name, "efficientnet-b0") for name in ("unet", "fpn")),
]


@pytest.mark.parametrize(("name", "encoder"), PAIRS)
def test_logits_and_gradients_are_those_of_smp(tmp_path: Path, name: str, encoder: str) -> None:
    theirs, path = reference(name, encoder), tmp_path / "smp.pth"
    torch.save(theirs.state_dict(), path)
    ours = build(ModelConfig(name=name, encoder=encoder), 3, 3, seed=0)
    load_weights(ours, ModelConfig(name=name, encoder=encoder, weights=str(path)))
    x = numbers("image", (2, 3, 64, 64))
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    assert relative(ours(to_device(x)).numpy(), expected) < 1e-4
    slope = numbers("slope", expected.shape)
    (theirs.train()(torch.from_numpy(x)) * torch.from_numpy(slope)).sum().backward()
    trained = parameters(state_dict(ours))
    loss = (ours(to_device(x), training=True) * to_device(slope)).sum()
    gradients = loss.gradient(*trained.values())
    Tensor.realize(*gradients)
    expected = {n: p.grad.numpy() for n, p in theirs.named_parameters() if p.grad is not None}
    expected = {our_name(name): g for name, g in expected.items()}
    assert set(expected) == set(trained)
    found = dict(zip(trained, (g.numpy() for g in gradients), strict=True))
    size = {n: np.abs(g).max() for n, g in expected.items()}
    worst = {n: np.abs(found[n] - g).max() / size[n] for n, g in expected.items()}
    assert max(worst.values()) < 1e-3, max(worst, key=worst.get)


@pytest.mark.parametrize(("name", "encoder"), [("unet", "resnet18"), ("fpn", "efficientnet-b0")])
def test_smp_loads_an_export(tmp_path: Path, name: str, encoder: str) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    config = ModelConfig(name=name, encoder=encoder)
    ours = build(config, 1, 3, seed=0)
    weights = {n: value(n, t.shape) for n, t in ours.state_dict().items() if "key" not in n}
    for n, tensor in ours.state_dict().items():
        if n in weights:
            copy_(tensor, weights[n])
    tensors, made = to_torch(config, 1, 3, weights)
    save(tmp_path / "torch.safetensors", tensors, {"network": made})
    theirs = eval(made, {"smp": smp}).eval()
    loaded = theirs.load_state_dict(
        safetensors.load_file(tmp_path / "torch.safetensors"), strict=False
    )
    assert not loaded.unexpected_keys
    unused = ("encoder._conv_head.", "encoder._bn1.")  # of SMP's EfficientNet
    assert not [n for n in loaded.missing_keys if not n.startswith(unused) and "tracked" not in n]
    x = numbers("image", (2, 1, 64, 64))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    assert relative(ours(to_device(x)).numpy(), expected) < 1e-4

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
from tinyseg.device.tensors import to_device
from tinyseg.models import build
from tinyseg.nn import parameters, state_dict
from tinyseg.weights import load_weights

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


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_are_those_of_smp(
    tmp_path: Path, name: str, encoder: str, legacy: bool
) -> None:
    theirs, path = reference(name, encoder), tmp_path / "smp.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    ours = build(ModelConfig(name=name, encoder=encoder), 3, 3, seed=0)
    load_weights(ours, ModelConfig(name=name, encoder=encoder, weights=str(path)))
    x = numbers("image", (2, 3, 64, 64))
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    assert relative(ours(to_device(x)).numpy(), expected) < 1e-4
    if legacy:
        return
    slope = numbers("slope", expected.shape)
    (theirs.train()(torch.from_numpy(x)) * torch.from_numpy(slope)).sum().backward()
    trained = parameters(state_dict(ours))
    loss = (ours(to_device(x), training=True) * to_device(slope)).sum()
    gradients = loss.gradient(*trained.values())
    Tensor.realize(*gradients)
    expected = {n: p.grad.numpy() for n, p in theirs.named_parameters() if p.grad is not None}
    assert set(expected) == set(trained)
    found = dict(zip(trained, (g.numpy() for g in gradients), strict=True))
    size = {n: np.abs(g).max() for n, g in expected.items()}
    worst = {n: np.abs(found[n] - g).max() / size[n] for n, g in expected.items()}
    assert max(worst.values()) < 1e-3, max(worst, key=worst.get)

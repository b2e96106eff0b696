"""A folder that tests fill with small images and masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for each test: what one has decoded, another one decodes again."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "tinyseg" / "images"


class Folder:
    """Writes files below `path`; each returns the file's path."""

    def __init__(self, path: Path):
        self.path = path

    def save(self, name: str, values, **options) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values))
        image.save(path, **options)
        return path

    def text(self, name: str, text: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def image(self, name: str, height: int = 12, width: int = 16, rgb: bool = False) -> Path:
        rng = np.random.default_rng(len(name) + sum(name.encode()))
        shape = (height, width, 3) if rgb else (height, width)
        return self.save(name, rng.integers(0, 256, shape, dtype=np.uint8))

    def mask(self, name: str, values=(0, 255), height: int = 12, width: int = 16) -> Path:
        """Horizontal bands of the values, the first on top."""
        bands = np.array(values)[np.arange(height) * len(values) // height]
        return self.save(name, np.repeat(bands[:, None], width, 1).astype(np.uint8))

    def pairs(self, count: int = 4, values=(0, 255), prefix: str = "") -> None:
        for index in range(count):
            self.image(f"{prefix}images/a{index}.png")
            self.mask(f"{prefix}masks/a{index}.png", values)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "set")

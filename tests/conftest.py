"""What all tests share: the backend is chosen once, and the real images are found or skipped."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinyseg.device.choose import Backend
from tinyseg.device.choose import backend as choose_backend

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def backend() -> Backend:
    """Device and compiler, chosen before any test: a machine without one fails here, in words."""
    return choose_backend()


@pytest.fixture(scope="module", autouse=True)
def _settled_heap() -> Iterator[None]:
    """What tinygrad keeps of a module's graphs is not walked in every collection after it."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real images: {SHARED_DATA} is not there")
    return SHARED_DATA

"""The public names of the package: each is there, and none is imported before it is used."""

import subprocess
import sys

import pytest

import tinyseg


@pytest.mark.parametrize("name", tinyseg.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert name in dir(tinyseg)
    assert getattr(tinyseg, name) is getattr(tinyseg, name)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = tinyseg.trian


def test_importing_the_package_imports_neither_tinygrad_nor_numpy() -> None:
    code = "import sys, tinyseg; print([m for m in ('tinygrad', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

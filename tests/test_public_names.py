"""The public names of the package: each is there, and none is imported before it is used."""

import inspect
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


def test_help_begins_with_an_example_and_every_public_name_has_a_docstring() -> None:
    assert tinyseg.__doc__
    assert 'ts.train("cells/", "runs/first"' in tinyseg.__doc__
    for name in tinyseg.__all__:
        assert name in tinyseg.__doc__ or name in ("losses", "metrics", "UNet"), name
        assert (getattr(tinyseg, name).__doc__ or "").count(" ") > 3, name


def test_the_parameters_of_train_beyond_data_and_folder_are_by_keyword() -> None:
    for function, count in ((tinyseg.train, 2), (tinyseg.overfit, 2)):
        parameters = inspect.signature(function).parameters.values()
        positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert len(positional) == count

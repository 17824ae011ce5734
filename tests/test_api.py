"""Every public name exists and has a docstring."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import export
import zoo
import zoo.errors

MODULES = [zoo, export] + [
    importlib.import_module(module.name)
    for package in (zoo, export)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_public_names_exist_and_are_documented(module: ModuleType) -> None:
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        value = inspect.unwrap(getattr(module, name))
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name} has no docstring"
            generated = value.__doc__.startswith(f"{name}(")  # by `dataclass`
            assert not generated, f"{name} has no docstring of its own"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_public_names_are_unique(module: ModuleType) -> None:
    names = list(getattr(module, "__all__", ()))
    assert len(names) == len(set(names))


def test_every_error_is_public_and_a_zoo_error() -> None:
    errors = [name for name in zoo.errors.__all__ if inspect.isclass(getattr(zoo.errors, name))]
    assert set(errors) <= set(zoo.__all__)
    assert all(issubclass(getattr(zoo, name), zoo.ZooError) for name in errors)

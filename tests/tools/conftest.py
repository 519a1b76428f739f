"""Scripts as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'


@pytest.fixture
def load_benchmark(monkeypatch) -> Callable[[str], ModuleType]:
    """A function from the name of a benchmark to its module, which finds the others beside it."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f'{name}_benchmark', BENCHMARKS / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # processes look the functions they are given up there
        spec.loader.exec_module(module)
        return module

    monkeypatch.syspath_prepend(BENCHMARKS)
    return load

"""The examples in docstrings run, and every component and public function has one.

An example finds ``torch`` and ``np`` imported, and runs in an empty folder. Everything else it imports itself, so a
reader can paste it.
"""

from __future__ import annotations

import ast
import doctest
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

import pvvae_plugin

PACKAGE = Path(pvvae_plugin.__file__).parent
DOCUMENTED = (ast.ClassDef, ast.FunctionDef)


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str, int]]:
    """Name, docstring and line of everything below ``node``. Read, not imported: decorators hide nothing."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, DOCUMENTED):
            inner = f'{name}.{child.name}'
            if (text := ast.get_docstring(child, clean=False)) is not None:
                yield inner, text, child.body[0].lineno - 1
            yield from docstrings(child, inner)


def find_examples() -> list[doctest.DocTest]:
    parser, examples = doctest.DocTestParser(), []
    for file in sorted(PACKAGE.rglob('*.py')):
        module = '.'.join(file.relative_to(PACKAGE).with_suffix('').parts)
        for name, text, line in docstrings(ast.parse(file.read_text()), module):
            test = parser.get_doctest(text, {'torch': torch, 'np': np}, name, str(file), line)
            if test.examples:
                examples.append(test)
    return examples


@pytest.fixture(autouse=True)
def quiet_logs(monkeypatch):
    """Log lines are no part of an example, and no logger that writes to its output outlives it."""
    monkeypatch.setattr(MMLogger, '_instance_dict', MMLogger._instance_dict.copy())
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize('example', find_examples(), ids=lambda example: example.name)
def test_example(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert not result.failed, ''.join(report)

"""The examples in docstrings run, and every component and public function has one.

An example finds ``torch`` and ``np`` imported, the default scope ``pvvae_plugin`` set, and an empty folder to write to.
It imports everything else itself, so a reader can paste it after those two imports.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import logging
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import Registry

import pvvae_plugin
from pvvae_plugin import registry
from pvvae_plugin.apis import VideoAutoencoderInferencer, VideoGeneratorInferencer
from pvvae_plugin.models import LatentDiT, LatentVideoGenerator, PredictiveVAE

PACKAGE = Path(pvvae_plugin.__file__).parent
# Examples with lines that no test can run, and what these need.
NOT_RUN = {
    'datasets.latent_dataset.LatentDataset': 'cached latents of a trained VAE',
    'engine.distributed.SubmoduleDistributedDataParallel': 'several processes',
    'engine.distributed.init_cpu_process_group': 'several processes',
    'engine.fsdp.GeneratorFSDPStrategy': 'several processes',
    'evaluation.extractors.c3d.C3D': 'published weights',
    'evaluation.extractors.i3d.I3D': 'published weights',
    'evaluation.extractors.i3d_torchscript.I3DTorchScript': 'published weights',
    'evaluation.extractors.videomae.VideoMAE': 'published weights',
    'evaluation.video_inception_score.VideoInceptionScore': 'published weights',
    'models.losses.lpips.LPIPS': 'published weights',
}
# Methods that users call, beside the classes themselves.
METHODS = {
    PredictiveVAE: (
        'encode',
        'decode',
        'pad_latents',
        'forward',
        'predict',
        'normalize_latents',
        'denormalize_latents',
        'encode_chunk',
        'decode_chunk',
        'encode_stream',
        'decode_stream',
        'save_pretrained',
        'from_pretrained',
    ),
    LatentDiT: ('forward', 'features'),
    LatentVideoGenerator: ('forward', 'generate'),
    VideoAutoencoderInferencer: ('reconstruct', 'predict', 'encode', 'decode'),
    VideoGeneratorInferencer: ('generate',),
}


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str, int]]:
    """Name, docstring and line of everything below ``node``. Read, not imported: decorators hide nothing."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
            inner = f'{name}.{child.name}'
            if (text := ast.get_docstring(child, clean=False)) is not None:
                yield inner, text, child.body[0].lineno - 1
            yield from docstrings(child, inner)


def find_examples() -> list[doctest.DocTest]:
    parser, examples = doctest.DocTestParser(), []
    for file in sorted(PACKAGE.rglob('*.py')):
        module = '.'.join(file.relative_to(PACKAGE).with_suffix('').parts)
        for name, text, line in docstrings(ast.parse(file.read_text(encoding='utf-8')), module):
            test = parser.get_doctest(text, {'torch': torch, 'np': np}, name, str(file), line)
            if test.examples:
                examples.append(test)
    return examples


EXAMPLES = find_examples()


@pytest.fixture
def quiet_logs(monkeypatch):
    """Keep log lines out of the output of examples, and loggers that write there out of later tests."""
    monkeypatch.setattr(MMLogger, '_instance_dict', MMLogger._instance_dict.copy())
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize('example', EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_example(example, tmp_path, monkeypatch, quiet_logs):
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    result = doctest.DocTestRunner().run(example, out=report.append)
    assert not result.failed, ''.join(report)


def test_only_these_examples_are_not_run():
    skipped = {test.name for test in EXAMPLES if any(line.options.get(doctest.SKIP) for line in test.examples)}
    assert skipped == set(NOT_RUN)


def components() -> Iterator[tuple[str, Any]]:
    """Everything of ours in a registry."""
    for name, table in vars(registry).items():
        if isinstance(table, Registry):
            table.import_from_location()
            for key, component in table.module_dict.items():
                yield f'{name}: {key}', component


def exports() -> Iterator[tuple[str, Any]]:
    """Functions and classes that packages export, and those of ``functional/`` and ``temporal.py``."""
    for info in pkgutil.walk_packages([str(PACKAGE)], 'pvvae_plugin.'):
        if info.name.startswith('pvvae_plugin.functional.') or info.name == 'pvvae_plugin.temporal':
            module = importlib.import_module(info.name)
            members = [(key, value) for key, value in vars(module).items() if not key.startswith('_')]
            members = [member for member in members if getattr(member[1], '__module__', None) == info.name]
        elif info.ispkg:
            module = importlib.import_module(info.name)
            members = [(key, getattr(module, key)) for key in getattr(module, '__all__', ())]
        else:
            continue
        yield from ((f'{info.name}.{key}', value) for key, value in members)


def methods() -> Iterator[tuple[str, Any]]:
    for cls, names in METHODS.items():
        yield from ((f'{cls.__name__}.{name}', getattr(cls, name)) for name in names)


@pytest.mark.parametrize('listing', [components, exports, methods], ids=lambda listing: listing.__name__)
def test_everything_that_users_call_has_an_example(listing):
    listed = {
        name: thing
        for name, thing in listing()
        if (inspect.isroutine(thing) or inspect.isclass(thing))
        and thing.__module__.startswith('pvvae_plugin.')
        and not thing.__module__.startswith('pvvae_plugin.cli')
    }
    assert listed
    without = [name for name, thing in listed.items() if '>>>' not in (thing.__doc__ or '')]
    assert not without, f'without an example in the docstring (docs/extend.md): {", ".join(without)}'

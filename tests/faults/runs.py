"""Small runs of the scripts for the tests here, and how two of their checkpoints are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
ITERATIONS = 12

# Two optimizers, the second from an odd iteration on, accumulated gradients, averages, two data workers.
VAE = f"""
_base_ = r'{ROOT}/configs/pvvae_demo.py'
custom_imports = dict(imports=['killing'])
model = dict(
    backbone=dict(encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8)),
    discriminator=dict(type='PatchDiscriminator3D', base_width=4),
    adversarial=dict(type='AdversarialLoss', start_iter=3),
)
optim_wrapper = dict(
    vae=dict(accumulative_counts=2),
    discriminator=dict(
        type='AutocastOptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-3),
        clip_grad=dict(max_norm=1.0),
        accumulative_counts=2,
    ),
)
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(length=20))
val_dataloader = dict(batch_size=2, dataset=dict(length=4))
"""
GENERATOR = f"""
_base_ = r'{ROOT}/configs/dit_demo.py'
custom_imports = dict(imports=['killing'])
model = dict(
    backbone=dict(encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8)),
    backbone_checkpoint='VAE',
    head=dict(depth=2, hidden_size=32, num_heads=2),
)
optim_wrapper = dict(head=dict(accumulative_counts=2))
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(length=20))
val_dataloader = dict(batch_size=2, dataset=dict(length=4))
test_dataloader = test_cfg = test_evaluator = None
"""
SHORT = f"""
train_cfg = dict(max_iters={ITERATIONS}, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=4),
]
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=1), logger=dict(interval=2))
custom_hooks = [h for h in _base_.custom_hooks if 'Visualization' not in h['type']] + [dict(type='KillHook'), EXTRA]
"""


def write_config(path: Path, kind: str, extra: str = "dict(type='KillHook')", vae: str = '', more: str = '') -> Path:
    """A config of a small VAE or generator; ``extra`` is one more hook."""
    text = kind.replace('VAE', vae) if kind is GENERATOR else kind
    path.write_text(text + SHORT.replace('EXTRA', extra) + more)
    return path


def environment(**variables: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT), os.environ.get('PYTHONPATH', '')])
    search = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PATH': search, **variables, 'PYTHONPATH': path}


def train_command(config: Path, work_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, 'tools/train.py', str(config), '--work-dir', str(work_dir), *arguments]


def run(command: list[str], code: int | None = 0, **variables: str) -> str:
    """Run it and return what it printed; ``code`` is what it must exit with (negative: the signal), None anything."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert code is None or done.returncode == code, f'exit code {done.returncode}, not {code}\n{done.stdout[-4000:]}'
    return done.stdout


def last(work_dir: Path, iteration: int = ITERATIONS) -> dict[str, Any]:
    return torch.load(work_dir / f'iter_{iteration}.pth', map_location='cpu', weights_only=True)


def assert_same_state(found: dict, expected: dict) -> None:
    """Everything that training depends on is bit-equal: weights, averages, optimizers, schedules, place in the data."""
    for key in ('state_dict', 'raw_weights', 'optimizer', 'param_schedulers'):
        assert_equal(found[key], expected[key], key)
    for key in ('iter', 'samples_seen'):
        assert found['message_hub']['runtime_info'][key] == expected['message_hub']['runtime_info'][key], key
    # The curves as well: a loss of every iteration, once each.
    scalars = [checkpoint['message_hub']['log_scalars'] for checkpoint in (found, expected)]
    names = [name for name in scalars[1] if 'time' not in name and 'memory' not in name and 'eta' not in name]
    assert 'train/loss' in names
    for name in names:
        histories = [scalar[name]._log_history.tolist() for scalar in scalars]
        assert histories[0] == histories[1], name


def assert_equal(found: Any, expected: Any, path: str) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            assert_equal(found[key], expected[key], f'{path}.{key}')
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), path
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_equal(a, b, f'{path}.{i}')
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), path
    else:
        assert found == expected, path

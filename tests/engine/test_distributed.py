"""Two processes give the same weights as one process with the full batch, per step and in complete runs."""

from __future__ import annotations

import copy
import os
import socket
import sys
from pathlib import Path

import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from parallel_runs import (
    in_processes,
    largest_difference,
    losses_of,
    run_in_processes,
    shared_out,
    train_and_count,
    vae_config,
)
from parallel_runs import train as train_whole_run

from pvvae_plugin.engine import SubmoduleDistributedDataParallel, SubmoduleOptimWrapperConstructor
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample

STEPS = 3


def build(config: dict, state: dict | None) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope('pvvae_plugin'):
        model = MODELS.build(config).double()
    if state is not None:
        model.load_state_dict(state)
    return model


def batch_of(step: int, indices: list[int]) -> dict:
    """Return clips keyed by step and index, with different numbers of observed groups. Step 0 drops nothing."""
    inputs, samples = [], []
    for i in indices:
        generator = torch.Generator().manual_seed(1000 * step + i)
        inputs.append(torch.randint(0, 256, (3, 9, 32, 32), generator=generator, dtype=torch.uint8))
        observed = 3 if step == 0 else 1 + (i + step) % 3
        meta = {'draw_key': 100 * step + i, 'num_observed_groups': observed, 'path': str(i)}
        samples.append(VideoDataSample(metainfo=meta))
    return {'inputs': inputs, 'data_samples': samples}


def train(model: torch.nn.Module, indices: list[int]) -> None:
    # SGD, because its update is proportional to the gradient. Adam's first update depends only on the sign.
    entry = {'type': 'AutocastOptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.05}}
    parts = getattr(model, 'module', model).optimized_modules
    optim = SubmoduleOptimWrapperConstructor({name: dict(entry) for name in parts})(model)
    hub = MessageHub.get_current_instance()
    for step in range(STEPS):
        hub.update_info('iter', step)
        model.train_step(batch_of(step, indices), optim)


def worker(rank: int, port: int, config: dict, state: dict, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)
    )
    torch.distributed.init_process_group('gloo')
    with DefaultScope.overwrite_default_scope('pvvae_plugin'):
        model = build(config, state)
        train(SubmoduleDistributedDataParallel(model), [rank, rank + 2])
    torch.save(model.state_dict(), f'{out}/rank{rank}.pth')
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tiny_vae_config, tmp_path):
    config = {
        'type': 'VideoAutoencoder',
        'backbone': tiny_vae_config,
        'loss': {'type': 'PredictiveReconLoss'},
        'discriminator': {'type': 'PatchDiscriminator3D', 'base_width': 4},
        'adversarial': {'type': 'AdversarialLoss', 'start_iter': 1},
    }
    model = build(config, None)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    os.environ['PYTHONPATH'] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run_in_processes(worker, (port, config, state, str(tmp_path)), 2)
    train(model, [0, 1, 2, 3])
    ranks = [torch.load(tmp_path / f'rank{r}.pth', weights_only=True) for r in range(2)]
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0, msg=name)
        torch.testing.assert_close(ranks[0][name], expected, rtol=0, atol=1e-9, msg=name)
    moved = [n for n, t in model.state_dict().items() if not torch.equal(t, state[n])]
    assert any(n.startswith('discriminator') for n in moved)
    assert 'backbone.padding_token' in moved


def test_a_whole_run_of_two_processes_equals_one(tmp_path):
    """Train with MMEngine's runner, hooks and samplers: AdamW, gradient accumulation, EMA, and a GAN that starts later.

    In float64 gradients differ by 1e-17. AdamW divides them by their own size plus ``eps`` (1e-8), which makes 1e-11 of
    it where a gradient is 0 but for roundings: that of the discriminator's last bias, while all logits lie within the
    margins of the hinge.
    """
    cfg = vae_config(6, 'AdamW', accumulate=2)
    alone = train_whole_run(copy.deepcopy(cfg), str(tmp_path / 'one'))
    found = in_processes(2, train_and_count, shared_out(cfg, 2), str(tmp_path / 'two'), out=tmp_path / 'ranks')
    for rank, counts in found:
        for key in ('weights', 'averages', 'optimizers'):
            assert largest_difference(rank[key], alone[key]) < 1e-9, key
            assert largest_difference(rank[key], found[0][0][key]) == 0, key
        assert largest_difference(losses_of(rank), losses_of(alone)) < 1e-9
        # Only the second step of each pair updates, and the discriminator starts later.
        both = ['backbone', 'discriminator']
        assert [sorted(count) for count in counts] == [[], ['backbone'], [], both, [], both]
    assert {'loss_gan', 'loss_disc'} <= alone['losses'][2].keys() - alone['losses'][1].keys()

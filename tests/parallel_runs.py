"""Whole runs, from config to last checkpoint, in one process or several, that leave behind what they computed.

Processes take clips in turn, so that ``n`` of them with batches of ``8 / n`` see what one sees with a batch of 8.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.multiprocessing
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import pvvae_plugin  # noqa: F401
from pvvae_plugin.engine import build_runner
from pvvae_plugin.functional.sharded import whole
from pvvae_plugin.registry import MODELS

CLIPS = {'type': 'SyntheticVideoDataset', 'length': 20, 'clip_len': 9, 'size': 16, 'difficulty': 'easy'}
VAE = {
    'type': 'PredictiveVAE',
    'latent_channels': 4,
    'encoder_widths': (8, 8, 8),
    'decoder_widths': (8, 8, 8),
    'encoder_blocks': 1,
    'decoder_blocks': 1,
    'strides': ((2, 2), (2, 1)),
    'patch_size': 2,
}


def config(steps: int, **parts) -> Config:
    """What the configs of both kinds of run share."""
    warm_up = {'type': 'LinearLR', 'start_factor': 0.5, 'by_epoch': False, 'begin': 0, 'end': 3}
    loader = {'batch_size': 8, 'num_workers': 0}
    return Config(
        {
            'default_scope': 'pvvae_plugin',
            'launcher': 'none',
            'model_wrapper_cfg': {'type': 'SubmoduleDistributedDataParallel'},
            'env_cfg': {'dist_cfg': {'backend': 'gloo'}, 'mp_cfg': {'opencv_num_threads': 0}},
            'randomness': {'seed': 0},
            'log_level': 'ERROR',
            'log_processor': {'by_epoch': False},
            'train_cfg': {'type': 'ClipTrainLoop', 'max_iters': steps, 'val_interval': steps},
            'train_dataloader': {**loader, 'sampler': {'type': 'InfiniteClipSampler'}},
            'param_scheduler': [warm_up],
            'default_hooks': {'checkpoint': {'type': 'AtomicCheckpointHook', 'interval': 2}},
            **copy.deepcopy(parts),
        }
    )


def optimizers(names: tuple[str, ...], kind: str, accumulate: int = 1) -> dict:
    optimizer = {'SGD': {'type': 'SGD', 'lr': 0.02, 'momentum': 0.9}, 'AdamW': {'type': 'AdamW', 'lr': 1e-3}}[kind]
    entry = {
        'type': 'AutocastOptimWrapper',
        'optimizer': optimizer,
        'clip_grad': {'max_norm': 1.0},
        'accumulative_counts': accumulate,
    }
    return {'constructor': 'SubmoduleOptimWrapperConstructor', **{name: copy.deepcopy(entry) for name in names}}


def vae_config(steps: int, optimizer: str, accumulate: int = 1, start_iter: int = 2) -> Config:
    """A VAE with dropped groups and a GAN that joins in later."""
    cfg = config(
        steps,
        model={
            'type': 'VideoAutoencoder',
            'backbone': VAE,
            'loss': {'type': 'PredictiveReconLoss', 'kl_weight': 1e-3},
            'discriminator': {'type': 'PatchDiscriminator3D', 'base_width': 4, 'num_stages': 2},
            'adversarial': {'type': 'AdversarialLoss', 'start_iter': start_iter},
        },
        optim_wrapper=optimizers(('vae', 'discriminator'), optimizer, accumulate),
        custom_hooks=[{'type': 'TrainedWeightsEMAHook', 'module': 'backbone', 'decay': 0.9}],
    )
    drop = {'type': 'FutureDropSampler', 'temporal_ratio': 4, 'max_drop_ratio': 1.0}
    cfg.train_dataloader.dataset = {**CLIPS, 'pipeline': [drop, {'type': 'PackClip'}]}
    return cfg


def save_vae(path: Path) -> str:
    """A random VAE, as a finished run leaves it."""
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('pvvae_plugin'):
        vae = MODELS.build(dict(VAE))
    torch.save({'state_dict': {f'backbone.{name}': tensor for name, tensor in vae.state_dict().items()}}, path)
    return str(path)


def generator_config(steps: int, optimizer: str, backbone: str, accumulate: int = 1) -> Config:
    """A generator with hidden classes and given frames, validated and drawn at the end."""
    cfg = config(
        steps,
        model={
            'type': 'LatentVideoGenerator',
            'backbone': VAE,
            'backbone_checkpoint': backbone,
            'head': {
                'type': 'LatentDiT',
                'latent_channels': 4,
                'num_classes': 7,
                'depth': 2,
                'hidden_size': 12,
                'num_heads': 2,
                'qk_norm': True,
            },
            'class_dropout': 0.3,
            'condition_prob': 0.5,
        },
        optim_wrapper=optimizers(('head',), optimizer, accumulate),
        custom_hooks=[
            {'type': 'StartCheckHook'},
            {'type': 'RunRecordHook'},
            {'type': 'FiniteLossHook'},
            {'type': 'SkippedClipsHook'},
            {'type': 'CostEstimateHook'},
            {'type': 'FrozenBackboneHook'},
            {'type': 'LatentStatisticsHook', 'num_clips': 7},
            {'type': 'TrainedWeightsEMAHook', 'module': 'head', 'decay': 0.9},
            {'type': 'GenerationVisualizationHook', 'num_clips': 2, 'num_inference_steps': 2},
        ],
        val_cfg={},
        val_evaluator=[{'type': 'FlowLoss'}],
    )
    cfg.train_dataloader.dataset = {**CLIPS, 'pipeline': [{'type': 'PackClip'}]}
    cfg.val_dataloader = {
        'batch_size': 2,
        'num_workers': 0,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'dataset': {**CLIPS, 'length': 7, 'seed': 1, 'test_mode': True, 'pipeline': [{'type': 'PackClip'}]},
    }
    return cfg


class Recorder(Hook):
    """Keeps the losses of each step and the numbers of validations, of all processes together."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []
        self.metrics: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        values = {name: float(value) for name, value in outputs.items()}
        of_all = dist.all_gather_object(values)  # a process whose clips are all whole has no error of predictions
        self.losses.append({name: sum(of_one.get(name, 0.0) for of_one in of_all) / len(of_all) for name in values})

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics.append(metrics)


def wholes(tree):
    """The same with whole tensors for shares of them."""
    if isinstance(tree, dict):
        return {key: wholes(value) for key, value in tree.items()}
    return whole(tree).detach().clone() if isinstance(tree, torch.Tensor) else tree


def train(cfg: Config, work_dir: str, dtype: torch.dtype = torch.float64, hooks: Sequence[Hook] = ()) -> dict:
    """Run a config in this process and return what it computed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        cfg.work_dir, cfg.experiment_name = work_dir, Path(work_dir).name
        runner = build_runner(cfg)
        recorder = Recorder()
        for hook in (recorder, *hooks):
            runner.register_hook(hook)
        runner.train()
    finally:
        torch.set_default_dtype(before)
    model = getattr(runner.model, 'module', runner.model)
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'TrainedWeightsEMAHook')
    return {
        'weights': wholes(dict(model.state_dict())),
        'averages': wholes(ema.averages),
        'optimizers': {name: wholes(optim.state_dict()['state']) for name, optim in runner.optim_wrapper.items()},
        'losses': recorder.losses,
        'metrics': recorder.metrics,
    }


def _worker(rank: int, world_size: int, port: int, function: Callable, args: tuple, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.distributed.init_process_group('gloo')
    torch.save(function(*args), f'{out}/rank{rank}.pth')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


# Imported once by a server, whose forks then start at once. It computes nothing: a fork with threads could hang.
multiprocessing.set_forkserver_preload(['pvvae_plugin.engine', 'pvvae_plugin.models', 'pvvae_plugin.datasets'])


def run_in_processes(function: Callable, args: tuple, world_size: int) -> None:
    """Run ``function(rank, *args)`` in several processes and wait for them."""
    torch.multiprocessing.start_processes(function, args, nprocs=world_size, start_method='forkserver')


def in_processes(world_size: int, function: Callable, *args, out: Path) -> list:
    """What a function returns in each of several processes of one gloo group."""
    out.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    run_in_processes(_worker, (world_size, port, function, args, str(out)), world_size)
    return [torch.load(out / f'rank{rank}.pth', weights_only=False) for rank in range(world_size)]


def shared_out(cfg: Config, world_size: int) -> Config:
    """The config of one process of several that share out its batches."""
    cfg = copy.deepcopy(cfg)
    cfg.launcher = 'pytorch'
    cfg.train_dataloader.batch_size //= world_size
    return cfg


def train_in(world_size: int, cfg: Config, work_dir: Path, dtype: torch.dtype = torch.float64) -> list[dict]:
    """What each of several processes computed, which share out each batch of a config."""
    return in_processes(world_size, train, shared_out(cfg, world_size), str(work_dir), dtype, out=work_dir / 'ranks')


def largest_difference(a, b) -> float:
    """Over all numbers of two trees, whose keys and other values must be the same."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), (sorted(a), sorted(b))
        return max((largest_difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        return max((largest_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if a is None or isinstance(a, (str, bool)):
        assert a == b
        return 0.0
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (a, b))
    difference = (a - b).abs()
    return difference.max().item() if difference.numel() else 0.0


def losses_of(found: dict) -> list[dict[str, float]]:
    """Losses of each step. Other logged numbers are means over parts of clips that differ from process to process."""
    return [{name: value for name, value in step.items() if name.startswith('loss')} for step in found['losses']]


class ReductionCounter(Hook):
    """Counts in each step how often each part's gradients were averaged over processes."""

    def __init__(self) -> None:
        self.counts: list[dict[str, int]] = []

    def before_train(self, runner) -> None:
        for name, wrapper in runner.model.module.parallel.items():
            wrapper.register_comm_hook(name, self._reduce)

    def _reduce(self, name, bucket):
        self.counts[-1][name] = self.counts[-1].get(name, 0) + 1
        return allreduce_hook(None, bucket)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.counts.append({})


def train_and_count(cfg: Config, work_dir: str) -> tuple[dict, list[dict[str, int]]]:
    """What a run computed, and the counts of a :class:`ReductionCounter`."""
    counter = ReductionCounter()
    return train(cfg, work_dir, hooks=[counter]), counter.counts

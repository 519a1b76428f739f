"""Configs of the stages of a study. They inherit from the base configs and add the changes of each arm."""

from __future__ import annotations

import copy
import pprint
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pvvae_plugin.datasets.latent_shards import config_sha256
from pvvae_plugin.files import file_sha256, write_atomically
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.temporal import frames_to_groups

from .arms import ARMS, BASELINE, Settings, base_configs, has_judge, scale_of

RECONSTRUCTIONS = 'reconstructions.npy'
OWN = 'own'  # prefix of distances to the VAE's own reconstructions
PRETRAINED = 'pretrained'  # folder, next to those of the arms
DISTANCES = ('FVD', 'KVD', 'ProxyFVD', 'ProxyKVD')
TRAININGS = ('pretraining', 'vae', 'decoder', 'generator')
WEIGHTED = '_weighted'  # configs whose training clips are weighted by motion


WITHOUT_EFFECT = ('vae', 'generator', 'on_videos', 'seeds', 'jobs', 'grace')  # of a scale; configs have their own hash


def changed_contents(recorded: dict[str, str], contents: dict[str, str]) -> list[str]:
    """Return the names of the contents that differ from those recorded earlier.

    Arms that did not exist then are not compared.
    """
    added = {what for what in ('scale', *(f'arm {name}' for name in ARMS)) if what not in recorded}
    return [what for what, digest in contents.items() if what not in added and recorded.get(what) != digest]


class RunConfigs:
    """Paths of a study's files, and configs of its runs.

    Args:
        settings: Settings of the study.
        out: Folder of the study.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings = settings
        self.out = out.resolve()
        self.scale = scale_of(settings)
        self.vae_file, self.generator_file = base_configs(settings)
        self.vae_base = Config.fromfile(self.vae_file).to_dict()
        self.generator_base = Config.fromfile(self.generator_file).to_dict()
        self.judge = self.out / 'judge.pth'

    def contents(self) -> dict[str, str]:
        """Return the SHA-256 of everything that decides results: configs, scale, arms and input files."""
        files = {'--i3d': self.settings.i3d}
        if self.settings.vae_init:
            files['--vae-init'] = resolve_checkpoint(self.settings.vae_init)
        configs = {'vae': self.vae_base, 'generator': self.generator_base}
        scale = {name: value for name, value in self.scale._asdict().items() if name not in WITHOUT_EFFECT}
        arms = {name: {**arm._asdict(), 'title': ''} for name, arm in ARMS.items()}
        return {
            'configs': config_sha256(configs),
            'scale': config_sha256(scale),
            **{f'arm {name}': config_sha256(arm) for name, arm in arms.items()},
            **{option: file_sha256(file) for option, file in files.items() if file},
        }

    def folder(self, arm: str, seed: int) -> Path:
        """Return the folder of a run."""
        return self.out / arm / f'seed{seed}'

    def config(self, arm: str, seed: int, name: str) -> Path:
        """Return the config file of a run. ``name`` is ``vae``, ``decoder`` or ``generator``."""
        return self.out / 'configs' / f'{arm}_seed{seed}_{name}.py'

    def checkpoints(self) -> list[int]:
        """Return the steps at which generators are measured."""
        return [self.scale.generator_steps // divisor for divisor in self.scale.checkpoints]

    def decoder_steps(self, arm: str) -> int:
        """Return the number of steps that train only the decoder."""
        return self.scale.decoder_steps if ARMS[arm].finetunes else 0

    def num_groups(self) -> int:
        """Return the number of frame groups of a training clip. All but the first can be dropped."""
        dataset = self.vae_base['train_dataloader']['dataset']
        ratio = next(step['temporal_ratio'] for step in dataset['pipeline'] if step['type'] == 'FutureDropSampler')
        return frames_to_groups(dataset['clip_len'], ratio)

    def is_synthetic(self) -> bool:
        """Return whether the clips are procedural."""
        return self.vae_base['train_dataloader']['dataset']['type'] == 'SyntheticVideoDataset'

    def write_shared(self) -> None:
        """Write the configs that all runs share, for the judge and the features of real clips."""
        # The judge trains on moving clips only, because still clips have no class.
        moving, _ = self._data(self.vae_base, still_share=0.0)
        write_config(self.out / 'configs' / 'data.py', self.vae_file, {**moving, **self._tests_vae()})
        data, _ = self._data(self.generator_base)
        write_config(self.out / 'configs' / 'references.py', self.generator_file, {**data, **self._tests_generator()})

    def pretrained(self, seed: int) -> Path | None:
        """Return the work directory of the pretrained VAE of a seed, or None without pretraining."""
        if self.settings.vae_init or not self.scale.pretraining_steps:
            return None
        return self.folder(PRETRAINED, seed) / 'vae'

    def write_pretraining(self, seed: int) -> None:
        """Write the config of the pretraining, which is that of the baseline with its own number of steps."""
        baseline = self._any_vae(BASELINE, seed, 0.0, 'pretraining')
        changes = {**baseline, **schedule(self.vae_base, self.scale.pretraining_steps)}
        write_config(self.config(PRETRAINED, seed, 'vae'), self.vae_file, changes)

    def write_run(self, arm: str, seed: int) -> None:
        """Write the configs of a single arm and seed. Rewriting them gives identical files."""
        for name, (base, changes) in self._files_of_run(arm, seed).items():
            write_config(self.config(arm, seed, name), base, changes)

    def _files_of_run(self, arm: str, seed: int) -> dict[str, tuple[Path, dict[str, Any]]]:
        """Return the base and the changes for each config."""
        configs = {'vae': (self.vae_file, self._vae(arm, seed))}
        if self.decoder_steps(arm):
            configs['decoder'] = (self.vae_file, self._decoder(arm, seed))
        if ARMS[arm].candidates > 1:
            for name, (_, changes) in list(configs.items()):
                weighted = self._weighted(arm, changes['train_dataloader']['dataset'])
                configs[f'{name}{WEIGHTED}'] = (self.config(arm, seed, name), weighted)
        configs['generator'] = (self.generator_file, self._generator(arm, seed))
        return configs

    def _vae(self, arm: str, seed: int) -> dict[str, Any]:
        """Return the changes to the VAE config."""
        what = ARMS[arm]
        steps = self.scale.vae_steps - self.decoder_steps(arm)
        start = self.settings.vae_init or self.pretrained(seed)
        training = {**schedule(self.vae_base, steps), 'load_from': None if start is None else str(start)}
        return merge(self._any_vae(arm, seed, what.max_drop_ratio, 'vae'), training)

    def _decoder(self, arm: str, seed: int) -> dict[str, Any]:
        """Return the changes to the VAE config for decoder fine-tuning."""
        adversarial = {'adversarial': {'start_iter': 0}} if self.vae_base['model'].get('adversarial') else {}
        training = {
            **schedule(self.vae_base, self.decoder_steps(arm)),
            'load_from': str(self.folder(arm, seed) / 'vae'),
            'model': {'freeze_encoder': True, **adversarial},
        }
        return merge(self._any_vae(arm, seed, 0.0, 'decoder'), training)

    def _any_vae(self, arm: str, seed: int, max_drop_ratio: float, stage: str) -> dict[str, Any]:
        """Return the config changes that all VAE trainings share."""
        what = ARMS[arm]
        data, pipeline = self._data(self.vae_base)
        objective = {
            'randomness': {'seed': stage_seed(seed, stage)},
            'model': {
                'backbone': {'padding': what.padding},
                'loss': {'diff_weight': what.diff_weight, 'kl_weight': what.kl_weight},
            },
            'train_dataloader': {'dataset': {'pipeline': with_drop_ratio(pipeline, max_drop_ratio)}},
            'default_hooks': {'checkpoint': {'interval': max(1, self.scale.vae_steps // 10), 'max_keep_ckpts': 1}},
        }
        return merge(data, {**objective, **self._tests_vae()})

    def _weighted(self, arm: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Return the changes that sample training clips weighted by motion."""
        dataset = merge(self.vae_base['train_dataloader']['dataset'], changes)
        weighted = {'type': 'MotionWeightedDataset', 'candidates': ARMS[arm].candidates, 'dataset': dataset}
        return {'train_dataloader': {'dataset': {'_delete_': True, **weighted}}}

    def _generator(self, arm: str, seed: int) -> dict[str, Any]:
        """Return the changes to the generator config."""
        folder, every = self.folder(arm, seed), min(self.checkpoints())
        data, _ = self._data(self.generator_base)
        training = {
            'randomness': {'seed': stage_seed(seed, 'generator')},
            'model': {
                'backbone': {'padding': ARMS[arm].padding},
                'backbone_checkpoint': str(folder / ('decoder' if self.decoder_steps(arm) else 'vae')),
            },
            'train_dataloader': {'dataset': {'data_root': str(folder / 'latents' / 'train')}},
            'val_dataloader': {'dataset': {'data_root': str(folder / 'latents' / 'val')}},
            **schedule(self.generator_base, self.scale.generator_steps, every),
            'default_hooks': {'checkpoint': {'interval': every, 'max_keep_ckpts': -1}},
        }
        return merge(data, {**training, **self._tests_generator(folder / RECONSTRUCTIONS)})

    def _data(self, base: dict[str, Any], still_share: float | None = None) -> tuple[dict[str, Any], list[dict]]:
        """Return the changes that the settings make to the datasets of a config, and its training pipeline.

        Args:
            base: The config.
            still_share: Overrides the ``still_share`` of the settings.
        """
        still_share = self.settings.still_share if still_share is None else still_share
        changes: dict[str, Any] = {}
        pipeline = base['train_dataloader']['dataset'].get('pipeline', [])
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if base.get(loader) is None:
                continue
            kind, split = base[loader]['dataset']['type'], 'train' if loader.startswith('train') else 'val'
            if kind == 'SyntheticVideoDataset':
                changes[loader] = {'dataset': {'difficulty': self.settings.difficulty}}
                if split == 'train' and still_share:
                    changes[loader]['dataset']['still_share'] = still_share
            elif kind == 'VideoDataset' and self.settings.videos:
                changes[loader] = {'dataset': {'data_root': str(Path(self.settings.videos).resolve() / split)}}
            if self.settings.smoke and kind == 'SyntheticVideoDataset':
                changes[loader]['dataset']['length'] = 24
        changes = merge(changes, {'train_dataloader': {'batch_size': batch_of_process(base, self.settings.gpus)}})
        if self.settings.smoke:
            changes = merge(changes, {'train_dataloader': {'batch_size': 2}, 'val_dataloader': {'batch_size': 4}})
        return changes, pipeline

    def _tests_vae(self) -> dict[str, Any]:
        metrics = copy.deepcopy(self.vae_base['test_evaluator'])
        if self.settings.i3d:
            i3d = {'type': 'I3DTorchScript', 'weights': self.settings.i3d}
            metrics = [m for m in metrics if m['type'] not in ('FVD', 'ProxyFVD')]
            metrics.append(
                {'type': 'FVD', 'extractor': i3d, 'protocol': self.generator_base['test_evaluator'][0]['protocol']}
            )
        return {'test_evaluator': self._judged(metrics)}

    def _judged(self, metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add the judge of procedural clips to the metrics, if there is one."""
        if not has_judge(self.settings):
            return metrics
        judge = {'classifier': str(self.judge)}
        metrics = [{**metric, **judge} if metric['type'].startswith('Proxy') else metric for metric in metrics]
        return [*metrics, {'type': 'ClassAccuracy', **judge}]

    def _tests_generator(self, reconstructions: Path | None = None) -> dict[str, Any]:
        """Return the changes for testing a generator: metrics and number of clips.

        Args:
            reconstructions: File with the VAE's reconstructions of real clips, as a second reference.
        """
        metrics = copy.deepcopy(self.generator_base['test_evaluator'])
        for metric in metrics:
            self._adapt_reference(metric)
        if self.settings.i3d and self.settings.scale != 'paper':
            i3d = {'type': 'I3DTorchScript', 'weights': self.settings.i3d}
            shared = {'protocol': metrics[0]['protocol'], 'reference': metrics[0]['reference']}
            metrics = [{'type': kind, 'extractor': i3d, **shared} for kind in ('FVD', 'KVD')]
        elif self.settings.i3d:
            for metric in metrics:
                if metric['type'] in ('FVD', 'KVD'):
                    metric['extractor'] = {'type': 'I3DTorchScript', 'weights': self.settings.i3d}
        if reconstructions:
            dataset = {'type': 'VideoArrayDataset', 'data_root': str(reconstructions)}
            for metric in [m for m in metrics if 'reference' in m and m['type'] in DISTANCES]:
                reference = {**metric['reference'], 'dataset': dataset}
                metrics.append({**metric, 'prefix': OWN, 'reference': reference})
        changes: dict[str, Any] = {'test_evaluator': self._judged(metrics)}
        if self.settings.smoke:
            changes['test_cfg'] = {'num_samples': 4, 'batch_size': 2, 'sampling': {'num_inference_steps': 2}}
        return changes

    def _adapt_reference(self, metric: dict[str, Any]) -> None:
        """Set the real clips of a metric to those of the settings."""
        reference = metric.get('reference')
        if not reference:
            return
        reference['cache_dir'] = str(self.out / 'reference_features')
        dataset = reference['dataset']
        if dataset['type'] == 'SyntheticVideoDataset':
            dataset['difficulty'] = self.settings.difficulty
            if self.settings.still_share:
                dataset['still_share'] = self.settings.still_share
        elif self.settings.videos:
            dataset['data_root'] = str(Path(self.settings.videos).resolve() / 'train')
        if self.settings.smoke:
            reference['num_samples'] = 8
            if dataset['type'] == 'SyntheticVideoDataset':
                dataset['length'] = 24


def batch_of_process(base: dict[str, Any], gpus: int) -> int:
    """Return the batch size per process. The total batch size is that of the config's learning rate.

    Raises:
        ValueError: If the total batch size is not divisible by ``gpus``.
    """
    whole = base.get('auto_scale_lr', {}).get('base_batch_size', base['train_dataloader']['batch_size'])
    if whole % gpus:
        raise ValueError(f'--gpus {gpus} does not divide the batch size {whole}; use a divisor of it')
    return whole // gpus


def stage_seed(seed: int, stage: str) -> int:
    """Return the seed of a training stage. Stages use different clip orders, which are equal for all arms."""
    return 10 * seed + TRAININGS.index(stage)


def schedule(base: dict[str, Any], steps: int, validate_every: int | None = None) -> dict[str, Any]:
    """Return the schedule of a run. The warm-up is at most a quarter of it. By default, validate only at the end."""
    schedulers = copy.deepcopy(base['param_scheduler'])
    for scheduler in schedulers:
        for end in ('begin', 'end'):
            if end in scheduler:
                scheduler[end] = min(scheduler[end], max(2, steps // 4) if scheduler[end] else 0)
    return {
        'train_cfg': {'max_iters': steps, 'val_interval': validate_every or steps},
        'param_scheduler': schedulers,
    }


def with_drop_ratio(pipeline: Sequence[dict], ratio: float) -> list[dict]:
    """Return the pipeline with this maximum drop ratio, or without dropping if it is 0."""
    if not any(step['type'] == 'FutureDropSampler' for step in pipeline):
        raise ValueError('the VAE config of a study needs a FutureDropSampler in its training pipeline')
    changed = [
        dict(step, max_drop_ratio=ratio) if step['type'] == 'FutureDropSampler' else dict(step) for step in pipeline
    ]
    return [step for step in changed if ratio or step['type'] != 'FutureDropSampler']


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Merge nested dicts. Entries of the second take precedence."""
    merged = copy.deepcopy(first)
    for key, value in second.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def write_config(path: Path, base: Path, changes: dict[str, Any]) -> None:
    """Write a config that inherits from ``base`` and overrides some entries."""
    lines = [f'_base_ = {str(base)!r}']
    lines += [f'{key} = {pprint.pformat(value, width=110, sort_dicts=False)}' for key, value in changes.items()]
    write_atomically(path, ('\n'.join(lines) + '\n').encode())

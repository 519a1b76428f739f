"""What the study compares, at which scale, and the commands that it takes."""

from __future__ import annotations

import copy
import pprint
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
RECONSTRUCTIONS = 'reconstructions.npy'
OWN = 'own'  # prefix of distances to the VAE's own reconstructions
WEIGHTED = '_weighted'  # configs whose training clips are weighted by motion


class Arm(NamedTuple):
    """A VAE's objective.

    Attributes:
        title: What figures and tables call it.
        max_drop_ratio: The paper's r; 0 drops nothing.
        diff_weight: Weight of the motion-aware term relative to the squared error.
        finetunes: Whether the last steps train the decoder alone, with nothing dropped.
        padding: What stands in place of dropped latents.
        kl_weight: Weight of the KL divergence.
        candidates: Clips that are drawn for each one of a batch, of which the more it moves the likelier one is kept.
    """

    title: str
    max_drop_ratio: float = 1.0
    diff_weight: float = 1.0
    finetunes: bool = True
    padding: str = 'learnable'
    kl_weight: float = 1e-6
    candidates: int = 1


# The first four are the paper's ladder; each of the others changes one thing of the last rung.
ARMS = {
    'baseline': Arm('reconstruction only', max_drop_ratio=0.0, diff_weight=0.0, finetunes=False),
    'predictive': Arm('+ predictive', diff_weight=0.0, finetunes=False),
    'motion': Arm('+ motion term', finetunes=False),
    'full': Arm('+ decoder fine-tuning'),
    'drop50': Arm('r = 0.5', max_drop_ratio=0.5),
    'drop75': Arm('r = 0.75', max_drop_ratio=0.75),
    'gaussian': Arm('Gaussian padding', padding='gaussian'),
    'diff4': Arm('motion weight 4', diff_weight=4.0),
    'kl4': Arm('KL 1e-4', kl_weight=1e-4),
    'kl2': Arm('KL 1e-2', kl_weight=1e-2),
    'weighted': Arm('clips weighted by motion', candidates=8),
}
GROUPS = {
    'pair': ['baseline', 'full'],
    'ladder': ['baseline', 'predictive', 'motion', 'full'],
    'ratio': ['drop50', 'drop75', 'full'],
    'padding': ['gaussian', 'full'],
    'knobs': ['full', 'diff4', 'kl4', 'kl2'],
    'still': ['baseline', 'full', 'diff4', 'weighted'],
    'all': list(ARMS),
}


class Scale(NamedTuple):
    """How large the study is. Every arm takes ``vae_steps``, those of fine-tuning included.

    Attributes:
        vae: Config of the VAE on procedural clips, or on the scale's own data set.
        generator: Config of the generator there.
        on_videos: Configs of both on a folder of videos; None where there are none.
        vae_steps: Steps of every VAE.
        decoder_steps: How many of them train the decoder alone, in arms that fine-tune it.
        generator_steps: Steps of every generator.
        checkpoints: Checkpoints of it that are measured, as divisors of its steps.
        clips: Clips whose latents generators train on.
        clips_per_video: The same for each file of a folder of videos, and of the scale's own data set.
        judge_steps: Steps of the classifier that judges procedural clips.
        probe_clips: Clips that linear probes are fitted on.
        seeds: How many by default.
        jobs: How many processes at once by default.
    """

    vae: str
    generator: str
    on_videos: tuple[str, str] | None
    vae_steps: int
    decoder_steps: int
    generator_steps: int
    checkpoints: tuple[int, ...]
    clips: int
    clips_per_video: int
    judge_steps: int
    probe_clips: int
    seeds: int
    jobs: int


SCALES = {
    'tiny': Scale(
        vae='study/vae_tiny.py',
        generator='study/dit_tiny.py',
        on_videos=('study/vae_tiny_videos.py', 'study/dit_tiny_videos.py'),
        vae_steps=2000,
        decoder_steps=400,
        generator_steps=4000,
        checkpoints=(8, 4, 2, 1),
        clips=8192,
        clips_per_video=32,
        judge_steps=1000,
        probe_clips=1280,
        seeds=2,
        jobs=2,
    ),
    'gpu-small': Scale(
        vae='study/vae_gpu_small.py',
        generator='study/dit_gpu_small.py',
        on_videos=('study/vae_gpu_small_videos.py', 'study/dit_gpu_small_videos.py'),
        vae_steps=20000,
        decoder_steps=4000,
        generator_steps=40000,
        checkpoints=(16, 8, 4, 2, 1),
        clips=32768,
        clips_per_video=128,
        judge_steps=2000,
        probe_clips=4096,
        seeds=3,
        jobs=1,
    ),
    'paper': Scale(
        vae='pvvae_ucf101.py',
        generator='dit_pvvae_cached.py',
        on_videos=None,
        vae_steps=100000,
        decoder_steps=50000,
        generator_steps=250000,
        checkpoints=(16, 8, 4, 2, 1),
        clips=0,
        clips_per_video=4,
        judge_steps=0,
        probe_clips=4096,
        seeds=3,
        jobs=1,
    ),
}


class Settings(NamedTuple):
    """What a study was asked for; a folder holds results of one.

    Attributes:
        scale: Key of :data:`SCALES`.
        difficulty: Of procedural clips.
        videos: Folder with ``train`` and ``val``; None for procedural clips.
        i3d: File of I3D's weights; None for proxies.
        vae_init: Checkpoint that every VAE starts from.
        still_share: Share of procedural training clips in which nothing moves.
        smoke: Whether to take next to no steps, to see whether it runs.
        gpus: Processes of a run.
    """

    scale: str
    difficulty: str
    videos: str | None
    i3d: str | None
    vae_init: str | None
    still_share: float
    smoke: bool
    gpus: int


class Stage(NamedTuple):
    """One process of the study.

    Attributes:
        name: Also of its log and its record.
        kind: Of work, by which the time left is estimated.
        command: What to run, from the repository's root.
        needs: Stages before it.
        resumable: Whether it goes on where it was stopped, rather than from its start.
    """

    name: str
    kind: str
    command: list[str]
    needs: tuple[str, ...]
    resumable: bool = False


def scale_of(settings: Settings) -> Scale:
    """The scale, or with ``smoke`` next to nothing of it."""
    scale = SCALES[settings.scale]
    if not settings.smoke:
        return scale
    return scale._replace(
        vae_steps=16,
        decoder_steps=8,
        generator_steps=8,
        checkpoints=(2, 1),
        clips=24,
        clips_per_video=2,
        judge_steps=2,
        probe_clips=24,
    )


def base_configs(settings: Settings) -> tuple[Path, Path]:
    """Files of the VAE's and the generator's config."""
    scale = SCALES[settings.scale]
    names = scale.on_videos if settings.videos else (scale.vae, scale.generator)
    return ROOT / 'configs' / names[0], ROOT / 'configs' / names[1]


def has_judge(settings: Settings) -> bool:
    """Whether the data's classes are motions, which a small classifier can tell."""
    return not settings.videos and settings.scale != 'paper'


class Plan:
    """All stages of a study, with the configs that they read written into its folder.

    Args:
        settings: What was asked for.
        arms: Keys of :data:`ARMS`.
        seeds: Seeds of VAE and generator.
        out: The study's folder.
        vaes_alone: Without generators.
    """

    def __init__(
        self, settings: Settings, arms: Sequence[str], seeds: Sequence[int], out: Path, vaes_alone: bool = False
    ) -> None:
        self.settings = settings
        self.arms = list(arms)
        self.seeds = list(seeds)
        self.out = out.resolve()
        self.vaes_alone = vaes_alone
        self.scale = scale_of(settings)
        self.vae_file, self.generator_file = base_configs(settings)
        self.vae_base = Config.fromfile(self.vae_file)
        self.generator_base = Config.fromfile(self.generator_file)
        self.judge = self.out / 'judge.pth'

    def checkpoints(self) -> list[int]:
        """Steps at which generators are measured."""
        return [self.scale.generator_steps // divisor for divisor in self.scale.checkpoints]

    def decoder_steps(self, arm: str) -> int:
        """Steps that train the decoder alone."""
        return self.scale.decoder_steps if ARMS[arm].finetunes else 0

    def stages(self) -> list[Stage]:
        """In the order in which they should start: a whole seed of all arms before the next."""
        shared = [self._judge()] if has_judge(self.settings) else []
        if not self.vaes_alone:
            shared.append(self._references(tuple(stage.name for stage in shared)))
        own = [stage for seed in self.seeds for arm in self.arms for stage in self._of_run(arm, seed)]
        return [*shared, *own]

    def folder(self, arm: str, seed: int) -> Path:
        """Where a run's files lie."""
        return self.out / arm / f'seed{seed}'

    def write_configs(self) -> None:
        """Write the configs that the stages read; the same ones again where they are there."""
        vae, _ = self._data(self.vae_base)
        write_config(self.out / 'configs' / 'data.py', self.vae_file, {**vae, **self._tests_vae()})
        generator, _ = self._data(self.generator_base)
        write_config(
            self.out / 'configs' / 'references.py', self.generator_file, {**generator, **self._tests_generator()}
        )
        for arm in self.arms:
            for seed in self.seeds:
                for name, (base, changes) in self._configs_of_run(arm, seed).items():
                    write_config(self._config(arm, seed, name), base, changes)

    def _config(self, arm: str, seed: int, name: str) -> Path:
        return self.out / 'configs' / f'{arm}_seed{seed}_{name}.py'

    def _configs_of_run(self, arm: str, seed: int) -> dict[str, tuple[Path, dict[str, Any]]]:
        what, folder, scale = ARMS[arm], self.folder(arm, seed), self.scale
        decoder_steps = self.decoder_steps(arm)
        interval = max(1, scale.vae_steps // 10)
        data, pipeline = self._data(self.vae_base)
        common: dict[str, Any] = merge(
            data,
            {
                'randomness': {'seed': seed},
                'model': {
                    'backbone': {'padding': what.padding},
                    'loss': {'diff_weight': what.diff_weight, 'kl_weight': what.kl_weight},
                },
                'default_hooks': {'checkpoint': {'interval': interval, 'max_keep_ckpts': 1}},
            },
        )
        vae = merge(
            common,
            {
                'train_dataloader': {'dataset': {'pipeline': with_drop_ratio(pipeline, what.max_drop_ratio)}},
                **schedule(self.vae_base, scale.vae_steps - decoder_steps),
                'load_from': self.settings.vae_init,
                **self._tests_vae(),
            },
        )
        configs = {'vae': (self.vae_file, vae)}
        if decoder_steps:
            decoder = merge(
                common,
                {
                    'train_dataloader': {'dataset': {'pipeline': with_drop_ratio(pipeline, 0.0)}},
                    **schedule(self.vae_base, decoder_steps),
                    'load_from': str(folder / 'vae'),
                    'model': {'freeze_encoder': True, **self._adversarial_from_the_start()},
                    **self._tests_vae(),
                },
            )
            configs['decoder'] = (self.vae_file, decoder)
        if what.candidates > 1:
            for name in list(configs):
                inner = merge(
                    plain(self.vae_base.train_dataloader.dataset.to_dict()),
                    configs[name][1]['train_dataloader']['dataset'],
                )
                weighted = {'type': 'MotionWeightedDataset', 'candidates': what.candidates, 'dataset': inner}
                changes = {'train_dataloader': {'dataset': {'_delete_': True, **weighted}}}
                configs[f'{name}{WEIGHTED}'] = (self._config(arm, seed, name), changes)
        generator_data, _ = self._data(self.generator_base)
        every = min(self.checkpoints())
        generator = merge(
            generator_data,
            {
                'randomness': {'seed': seed},
                'model': {
                    'backbone': {'padding': what.padding},
                    'backbone_checkpoint': str(folder / ('decoder' if decoder_steps else 'vae')),
                },
                'train_dataloader': {'dataset': {'data_root': str(folder / 'latents' / 'train')}},
                'val_dataloader': {'dataset': {'data_root': str(folder / 'latents' / 'val')}},
                **schedule(self.generator_base, scale.generator_steps, every),
                'default_hooks': {'checkpoint': {'interval': every, 'max_keep_ckpts': -1}},
                **self._tests_generator(folder / RECONSTRUCTIONS),
            },
        )
        configs['generator'] = (self.generator_file, generator)
        return configs

    def _data(self, base: Config) -> tuple[dict[str, Any], list[dict]]:
        """What the settings change of a config's data sets, and the pipeline of its training clips."""
        changes: dict[str, Any] = {}
        pipeline = base.train_dataloader.dataset.get('pipeline') or []
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if base.get(loader) is None:
                continue
            kind, split = base[loader].dataset.type, 'train' if loader.startswith('train') else 'val'
            if kind == 'SyntheticVideoDataset':
                changes[loader] = {'dataset': {'difficulty': self.settings.difficulty}}
                if split == 'train' and self.settings.still_share:
                    changes[loader]['dataset']['still_share'] = self.settings.still_share
            elif kind == 'VideoDataset' and self.settings.videos:
                changes[loader] = {'dataset': {'data_root': str(Path(self.settings.videos).resolve() / split)}}
            if self.settings.smoke and kind == 'SyntheticVideoDataset':
                changes[loader]['dataset']['length'] = 24
        if self.settings.smoke:
            changes = merge(changes, {'train_dataloader': {'batch_size': 2}, 'val_dataloader': {'batch_size': 4}})
        return changes, [dict(step) for step in pipeline]

    def _adversarial_from_the_start(self) -> dict[str, Any]:
        return {'adversarial': {'start_iter': 0}} if self.vae_base.model.get('adversarial') else {}

    def _tests_vae(self) -> dict[str, Any]:
        metrics = [dict(metric) for metric in self.vae_base.test_evaluator]
        if self.settings.i3d:
            i3d = {'type': 'I3DTorchScript', 'weights': self.settings.i3d}
            metrics = [m for m in metrics if m['type'] not in ('FVD', 'ProxyFVD')]
            metrics.append({'type': 'FVD', 'extractor': i3d, 'protocol': self._protocol()})
        if has_judge(self.settings):
            metrics.append({'type': 'ClassAccuracy', 'classifier': str(self.judge)})
        return {'test_evaluator': plain(metrics)}

    def _tests_generator(self, reconstructions: Path | None = None) -> dict[str, Any]:
        """Metrics of generated clips, and how many.

        Args:
            reconstructions: File of real clips as the generator's VAE reconstructs them, to compare with besides.
        """
        metrics = plain([dict(metric) for metric in self.generator_base.test_evaluator])
        for metric in metrics:
            self._adapt_reference(metric)
            if metric['type'].startswith('Proxy') and has_judge(self.settings):
                metric['classifier'] = str(self.judge)
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
            for metric in [m for m in metrics if 'reference' in m]:
                reference = {**metric['reference'], 'dataset': dataset}
                metrics.append({**metric, 'prefix': OWN, 'reference': reference})
        if has_judge(self.settings):
            metrics.append({'type': 'ClassAccuracy', 'classifier': str(self.judge)})
        changes: dict[str, Any] = {'test_evaluator': metrics}
        if self.settings.smoke:
            changes['test_cfg'] = {'num_samples': 4, 'batch_size': 2, 'sampling': {'steps': 2}}
        return changes

    def _protocol(self) -> Any:
        return plain(self.generator_base.test_evaluator[0])['protocol']

    def _adapt_reference(self, metric: dict[str, Any]) -> None:
        """Let the real clips of a metric be those that the settings name."""
        reference = metric.get('reference')
        if not reference:
            return
        reference['cache_dir'] = str(self.out / 'reference_features')
        dataset = reference['dataset']
        if dataset['type'] == 'SyntheticVideoDataset':
            dataset['difficulty'] = self.settings.difficulty
        elif self.settings.videos:
            dataset['data_root'] = str(Path(self.settings.videos).resolve() / 'train')
        if self.settings.smoke:
            reference['num_samples'] = 8
            if dataset['type'] == 'SyntheticVideoDataset':
                dataset['length'] = 24

    def _judge(self) -> Stage:
        command = [*script('analysis/train_classifier.py'), str(self.out / 'configs' / 'data.py')]
        command += ['--out', str(self.judge), '--steps', str(self.scale.judge_steps)]
        return Stage('judge', 'judge', command, ())

    def _references(self, needs: tuple[str, ...]) -> Stage:
        command = [*script('study/prepare_references.py'), str(self.out / 'configs' / 'references.py')]
        return Stage('references', 'references', command, needs)

    def _of_run(self, arm: str, seed: int) -> list[Stage]:
        """The stages of one arm with one seed."""
        run, folder = f'{arm}_seed{seed}', self.folder(arm, seed)
        vae_config, generator_config = self._config(arm, seed, 'vae'), self._config(arm, seed, 'generator')
        judged = ('judge',) if has_judge(self.settings) else ()
        weighted = WEIGHTED if ARMS[arm].candidates > 1 else ''
        command = self._train(self._config(arm, seed, f'vae{weighted}'), folder / 'vae')
        stages = [Stage(f'{run}_vae', 'vae', command, (), resumable=True)]
        last = folder / 'vae'
        if self.decoder_steps(arm):
            # The decoder forgets how to predict while nothing is dropped: what it had learned is measured before.
            before = [*self._launch('test.py', str(vae_config), str(last)), '--out', str(folder / 'vae_before.json')]
            before += ['--work-dir', str(folder / 'test_before')]
            stages.append(Stage(f'{run}_test_before', 'test', before, (f'{run}_vae', *judged)))
            last = folder / 'decoder'
            command = self._train(self._config(arm, seed, f'decoder{weighted}'), last)
            stages.append(Stage(f'{run}_decoder', 'decoder', command, (f'{run}_vae',), resumable=True))
        trained = stages[-1].name
        test = [*self._launch('test.py', str(vae_config), str(last)), '--out', str(folder / 'vae.json')]
        test += ['--work-dir', str(folder / 'test'), '--show-dir', str(folder / 'pictures')]
        stages.append(Stage(f'{run}_test', 'test', test, (trained, *judged)))
        probe = [*script('analysis/probe_latents.py'), str(vae_config), str(last), '--out', str(folder / 'probes')]
        probe += ['--num-clips', str(self.scale.probe_clips)]
        stages.append(Stage(f'{run}_probes', 'probes', probe, (trained,)))
        if self.vaes_alone:
            return stages
        for split in ('train', 'val'):
            command = [*self._launch('extract_latents.py', str(vae_config), str(last), str(folder / 'latents' / split))]
            command += ['--split', split, '--batch-size', '32']
            if split == 'train' and not self._is_synthetic():
                command += ['--clips-per-video', str(self.scale.clips_per_video)]
            elif split == 'train':
                command += ['--cfg-options', f'train_dataloader.dataset.length={self.scale.clips}']
            stages.append(Stage(f'{run}_latents_{split}', f'latents_{split}', command, (trained,), resumable=True))
        own = [*script('study/prepare_references.py'), str(generator_config)]
        own += ['--reconstruct', str(folder / RECONSTRUCTIONS)]
        stages.append(Stage(f'{run}_reconstructions', 'reconstructions', own, (trained, 'references')))
        encoded = (f'{run}_latents_train', f'{run}_latents_val')
        command = self._train(generator_config, folder / 'generator')
        stages.append(Stage(f'{run}_generator', 'generator', command, encoded, resumable=True))
        for step in self.checkpoints():
            checkpoint = folder / 'generator' / f'iter_{step}.pth'
            command = [*self._launch('test.py', str(generator_config), str(checkpoint))]
            command += ['--out', str(folder / f'generator_{step}.json'), '--work-dir', str(folder / 'test')]
            stages.append(Stage(f'{run}_at_{step}', 'at', command, (f'{run}_generator', f'{run}_reconstructions')))
        return stages

    def _is_synthetic(self) -> bool:
        return self.vae_base.train_dataloader.dataset.type == 'SyntheticVideoDataset'

    def _train(self, config: Path, work_dir: Path) -> list[str]:
        return [*self._launch('train.py', str(config)), '--work-dir', str(work_dir), '--resume']

    def _launch(self, tool: str, *arguments: str) -> list[str]:
        """A command in as many processes as there are GPUs."""
        if self.settings.gpus == 1:
            return [*script(tool), *arguments]
        started = [*script('launch.py'), str(self.settings.gpus), str(TOOLS / tool)]
        return [*started, *arguments, '--launcher', 'pytorch']


def script(name: str) -> list[str]:
    """Start of a command that runs one of our tools."""
    return [sys.executable, str(TOOLS / name)]


def schedule(base: Config, steps: int, validate_every: int | None = None) -> dict[str, Any]:
    """A run of so many steps, validated so often, or at the end alone; its warm-up takes a quarter of it at most."""
    schedulers = plain(list(base.param_scheduler))
    for scheduler in schedulers:
        for end in ('begin', 'end'):
            if end in scheduler:
                scheduler[end] = min(scheduler[end], max(2, steps // 4) if scheduler[end] else 0)
    return {
        'train_cfg': {'max_iters': steps, 'val_interval': validate_every or steps},
        'param_scheduler': schedulers,
    }


def with_drop_ratio(pipeline: Sequence[dict], ratio: float) -> list[dict]:
    """A pipeline whose future is dropped up to this ratio; at 0 nothing is."""
    if not any(step['type'] == 'FutureDropSampler' for step in pipeline):
        raise ValueError('the VAE config of a study needs a FutureDropSampler in its training pipeline')
    changed = [
        dict(step, max_drop_ratio=ratio) if step['type'] == 'FutureDropSampler' else dict(step) for step in pipeline
    ]
    return [step for step in changed if ratio or step['type'] != 'FutureDropSampler']


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts, the second's entries over the first's."""
    merged = copy.deepcopy(first)
    for key, value in second.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def plain(value: Any) -> Any:
    """Dicts and lists in place of MMEngine's."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value)
    return value


def write_config(path: Path, base: Path, changes: dict[str, Any]) -> None:
    """A config that inherits from ``base`` and changes some entries."""
    lines = [f'_base_ = {str(base)!r}']
    lines += [f'{key} = {pprint.pformat(value, width=110, sort_dicts=False)}' for key, value in changes.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')

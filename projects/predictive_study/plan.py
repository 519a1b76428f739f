"""Stages of a study and their commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .arms import ARMS, ROOT, Settings, has_judge, same_as
from .run_configs import PRETRAINED, RECONSTRUCTIONS, WEIGHTED, RunConfigs

TOOLS = ROOT / 'tools'
PREPARE_REFERENCES = [sys.executable, '-m', 'projects.predictive_study.prepare_references']


class Stage(NamedTuple):
    """One process of the study.

    Attributes:
        name: Name of the stage, its log and its record.
        kind: Kind of work, for estimating the remaining time.
        command: Command to run.
        needs: Names of the stages that must finish first.
        resumable: Whether a stopped stage resumes; if not, it restarts.
        keeps: Measured checkpoints. All others are deleted when the stage is done.
    """

    name: str
    kind: str
    command: list[str]
    needs: tuple[str, ...]
    resumable: bool = False
    keeps: tuple[Path, ...] = ()


class Plan(RunConfigs):
    """All stages of a study, and the configs for them in the study's folder.

    Args:
        settings: Settings of the study.
        arms: Keys of :data:`ARMS`.
        seeds: Seeds of VAE and generator.
        out: Folder of the study.
        vaes_alone: Whether to skip the generators.

    Attributes:
        same: Requested arms that train identically to another arm, mapped to the arm that replaces them.
    """

    def __init__(
        self, settings: Settings, arms: Sequence[str], seeds: Sequence[int], out: Path, vaes_alone: bool = False
    ) -> None:
        super().__init__(settings, out)
        self.same = {arm: first for arm in arms if (first := same_as(arm, self.num_groups())) != arm}
        self.arms = list(dict.fromkeys(self.same.get(arm, arm) for arm in arms))
        self.seeds = list(seeds)
        self.vaes_alone = vaes_alone

    def check(self) -> None:
        """Build the configs of one seed without writing them.

        Raises:
            ValueError: If a config cannot be built.
        """
        for arm in self.arms:
            self._files_of_run(arm, self.seeds[0])

    def write_configs(self) -> None:
        """Write the configs of all stages."""
        self.write_shared()
        for seed in self.seeds:
            if self.pretrained(seed):
                self.write_pretraining(seed)
        for arm in self.arms:
            for seed in self.seeds:
                self.write_run(arm, seed)

    def stages(self) -> list[Stage]:
        """Return the stages in starting order. All arms of a seed come before the next seed."""
        shared = [self._judge()] if has_judge(self.settings) else []
        if not self.vaes_alone:
            shared.append(self._references(tuple(stage.name for stage in shared)))
        own = []
        for seed in self.seeds:
            if folder := self.pretrained(seed):
                command = self._train(self.config(PRETRAINED, seed, 'vae'), folder)
                own.append(Stage(f'{PRETRAINED}_seed{seed}', 'pretraining', command, (), resumable=True))
            own += [stage for arm in self.arms for stage in self._of_run(arm, seed)]
        return [*shared, *own]

    def _judge(self) -> Stage:
        command = [*script('analysis/train_classifier.py'), str(self.out / 'configs' / 'data.py')]
        command += ['--out', str(self.judge), '--steps', str(self.scale.judge_steps)]
        return Stage('judge', 'judge', command, ())

    def _references(self, needs: tuple[str, ...]) -> Stage:
        command = [*PREPARE_REFERENCES, str(self.out / 'configs' / 'references.py')]
        return Stage('references', 'references', command, needs)

    def _of_run(self, arm: str, seed: int) -> list[Stage]:
        """Return the stages of a single arm and seed."""
        run, folder = f'{arm}_seed{seed}', self.folder(arm, seed)
        vae_config, generator_config = self.config(arm, seed, 'vae'), self.config(arm, seed, 'generator')
        judged = ('judge',) if has_judge(self.settings) else ()
        weighted = WEIGHTED if ARMS[arm].candidates > 1 else ''
        command = self._train(self.config(arm, seed, f'vae{weighted}'), folder / 'vae')
        before = (f'{PRETRAINED}_seed{seed}',) if self.pretrained(seed) else ()
        stages = [Stage(f'{run}_vae', 'vae', command, before, resumable=True)]
        last = folder / 'vae'
        if self.decoder_steps(arm):
            # Fine-tuning without dropping makes the decoder forget prediction, so measure it first.
            test = [*self._launch('test.py', str(vae_config), str(last)), '--out', str(folder / 'vae_before.json')]
            test += ['--work-dir', str(folder / 'test_before'), '--show-dir', str(folder / 'pictures_before')]
            stages.append(Stage(f'{run}_test_before', 'test', test, (f'{run}_vae', *judged)))
            last = folder / 'decoder'
            command = self._train(self.config(arm, seed, f'decoder{weighted}'), last)
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
            if split == 'train' and not self.is_synthetic():
                command += ['--clips-per-video', str(self.scale.clips_per_video)]
            elif split == 'train':
                command += ['--cfg-options', f'train_dataloader.dataset.length={self.scale.clips}']
            stages.append(Stage(f'{run}_latents_{split}', f'latents_{split}', command, (trained,), resumable=True))
        own = [*PREPARE_REFERENCES, str(generator_config)]
        own += ['--reconstruct', str(folder / RECONSTRUCTIONS)]
        stages.append(Stage(f'{run}_reconstructions', 'reconstructions', own, (trained, 'references')))
        encoded = (f'{run}_latents_train', f'{run}_latents_val')
        command = self._train(generator_config, folder / 'generator')
        measured = {step: folder / 'generator' / f'iter_{step}.pth' for step in self.checkpoints()}
        keeps = tuple(measured.values())
        stages.append(Stage(f'{run}_generator', 'generator', command, encoded, resumable=True, keeps=keeps))
        for step, checkpoint in measured.items():
            command = [*self._launch('test.py', str(generator_config), str(checkpoint))]
            command += ['--out', str(folder / f'generator_{step}.json'), '--work-dir', str(folder / 'test')]
            stages.append(Stage(f'{run}_at_{step}', 'at', command, (f'{run}_generator', f'{run}_reconstructions')))
        command = [*script('sample.py'), str(generator_config), str(folder / 'generator')]
        command += ['--out-dir', str(folder / 'samples'), *self._sampling()]
        stages.append(Stage(f'{run}_samples', 'samples', command, (f'{run}_generator',), resumable=True))
        return stages

    def _sampling(self) -> list[str]:
        """Return the sampling options of the measured clips, for the sample sheet."""
        sampling = self.generator_base['test_cfg']['sampling']
        steps = 2 if self.settings.smoke else sampling['num_inference_steps']
        return ['--num-inference-steps', str(steps), '--guidance-scale', str(sampling.get('guidance_scale', 1.0))]

    def _train(self, config: Path, work_dir: Path) -> list[str]:
        return [*self._launch('train.py', str(config)), '--work-dir', str(work_dir), '--resume']

    def _launch(self, tool: str, *arguments: str) -> list[str]:
        """Return a command that runs a tool with one process per GPU."""
        if self.settings.gpus == 1:
            return [*script(tool), *arguments]
        started = [*script('launch.py'), str(self.settings.gpus), str(TOOLS / tool)]
        return [*started, *arguments, '--launcher', 'pytorch']


def python_path() -> str:
    """Return the ``PYTHONPATH`` of all stages: this checkout, then the caller's entries."""
    given = os.environ.get('PYTHONPATH')
    return os.pathsep.join(dict.fromkeys([str(ROOT), *(given.split(os.pathsep) if given else [])]))


def script(name: str) -> list[str]:
    """Return the start of a command that runs a tool of this repository."""
    return [sys.executable, str(TOOLS / name)]

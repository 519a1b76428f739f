"""Test whether predictive latents are easier to generate from: one VAE, several objectives, one generator on each.

    python -m projects.predictive_study --scale tiny --out work_dirs/study             # on a CPU
    python -m projects.predictive_study --scale tiny --arms all --out work_dirs/study  # overnight
    python -m projects.predictive_study --scale tiny --videos VIDEOS --out work_dirs/study_videos
    python -m projects.predictive_study --scale gpu-small --arms all --minutes 8 --out work_dirs/study_gpu

Rerun the same command to resume after an interruption or after --minutes. More arms and seeds can be added to a folder.
All stages run the standard scripts in separate processes, with configs that are written to OUT/configs. The results so
far are in OUT/results.json, OUT/results.md and OUT/figures.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from pvvae_plugin.datasets.folders import scan_folder
from pvvae_plugin.datasets.synthetic.dataset import DIFFICULTIES
from pvvae_plugin.engine.stop_request import EXIT_CODE
from pvvae_plugin.files import lock_folder, read_json, write_json
from pvvae_plugin.models.checkpoints import check_checkpoint, resolve_checkpoint
from pvvae_plugin.registry import EXTRACTORS

from .arms import ARMS, GROUPS, SCALES, Settings
from .plan import Plan, python_path
from .report import write_report
from .run_configs import changed_contents
from .runner import Runner, say

LAST_SEED = 10**8  # stage seeds are ten times larger, and NumPy accepts seeds below 2**32


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m projects.predictive_study',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--scale', choices=list(SCALES), required=True)
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder of the study')
    names = [*GROUPS, *ARMS]
    parser.add_argument(
        '--arms',
        nargs='+',
        choices=names,
        default=['pair'],
        metavar='ARM',
        help=f'arms or groups: {", ".join(names)} (default: pair)',
    )
    parser.add_argument('--seeds', type=int, metavar='N', help='number of seeds per arm (default: 2 for tiny, else 3)')
    parser.add_argument('--first-seed', type=int, default=0, metavar='S', help='seeds S..S+N-1 (default: 0)')
    parser.add_argument(
        '--difficulty', choices=list(DIFFICULTIES), default='plain', help='difficulty of procedural clips'
    )
    parser.add_argument(
        '--still', type=float, default=0.0, metavar='SHARE', help='share of training clips without motion'
    )
    parser.add_argument('--videos', metavar='DIR', help='folder with train/ and val/; replaces procedural clips')
    parser.add_argument('--i3d', metavar='FILE', help='i3d_torchscript.pt, to measure FVD and KVD instead of proxies')
    parser.add_argument(
        '--from-scratch', action='store_true', help='skip pretraining and train every arm for as many more steps'
    )
    parser.add_argument(
        '--vae-init', metavar='CKPT', help='checkpoint to initialize every VAE from, e.g. trained on images'
    )
    parser.add_argument('--vaes-alone', action='store_true', help='skip the generators; runs take a third of the time')
    parser.add_argument('--longer', type=int, default=1, metavar='N', help='generators train 2, 4, 8 ... times as long')
    parser.add_argument('--jobs', type=int, metavar='N', help='concurrent processes (default: 2 for tiny, else 1)')
    parser.add_argument('--gpus', type=int, default=1, metavar='N', help='GPUs per run (default: 1)')
    parser.add_argument('--minutes', type=float, metavar='M', help='time limit: save and exit after M minutes')
    parser.add_argument('--smoke', action='store_true', help='smoke test with only a few steps')
    parser.add_argument('--list', action='store_true', help='print the commands and exit')
    parser.add_argument('--report-only', action='store_true', help='write the results so far and exit')
    parser.add_argument(
        '--add',
        nargs='+',
        type=Path,
        default=[],
        metavar='RESULTS.json',
        help='with --report-only: add results of the same study from other folders, e.g. from other machines',
    )
    args = parser.parse_args(argv)
    for name in ('seeds', 'jobs', 'gpus', 'minutes'):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f'--{name} must be positive, got {value}')
    for name in ('videos', 'i3d', 'vae_init'):
        value = getattr(args, name)
        if value == '':
            parser.error(f'--{name.replace("_", "-")} is empty: pass a path, or remove it')
    for path in (args.out, args.videos, args.i3d, args.vae_init):
        if path and '{{' in str(path):
            parser.error(f'{path}: MMEngine reads {{{{ as a config variable: choose a path without it')
    if args.longer < 1 or args.longer & (args.longer - 1):
        parser.error(f'--longer must be 1, 2, 4, 8 ..., got {args.longer}')
    if args.first_seed < 0:
        parser.error(f'--first-seed must be at least 0, got {args.first_seed}')
    if args.first_seed + (args.seeds or 0) > LAST_SEED:
        parser.error(f'--first-seed plus --seeds must be at most {LAST_SEED}, got {args.first_seed} and {args.seeds}')
    if args.add and not args.report_only:
        parser.error('--add requires --report-only')
    return args


def settings_of(args: argparse.Namespace) -> Settings:
    """Check the arguments and return the settings.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If arguments cannot be combined.
    """
    scale = SCALES[args.scale]
    if args.videos and scale.on_videos is None:
        raise ValueError(f'--scale {args.scale} uses UCF101, whose path is set in its configs: remove --videos')
    if args.videos:
        folders = {split: Path(args.videos) / split for split in ('train', 'val')}
        for split, folder in folders.items():
            if not folder.is_dir():
                raise FileNotFoundError(f'--videos {args.videos}: folder {split} not found; train and val are required')
        for folder in folders.values():
            scan_folder(str(folder), None, images=False)  # raises if it contains no videos
    if args.from_scratch and (args.vae_init or not scale.pretraining_steps):
        raise ValueError('--from-scratch needs a scale with pretraining and no --vae-init: remove it')
    if not 0.0 <= args.still <= 1.0:
        raise ValueError(f'--still must be in [0, 1], got {args.still}')
    if (args.videos or args.scale == 'paper') and (args.difficulty != 'plain' or args.still):
        raise ValueError('--difficulty and --still apply to procedural clips only: remove them')
    if args.i3d and not Path(args.i3d).is_file():
        raise FileNotFoundError(f'--i3d {args.i3d}: file not found')
    if args.i3d:
        EXTRACTORS.build({'type': 'I3DTorchScript', 'weights': args.i3d})  # raises if it cannot be loaded
    if args.vae_init and not Path(args.vae_init).exists():
        raise FileNotFoundError(f'--vae-init {args.vae_init}: file not found')
    if args.vae_init:
        check_checkpoint(resolve_checkpoint(args.vae_init))
    whole = {
        name: str(Path(value).resolve()) if value else None
        for name, value in (('videos', args.videos), ('i3d', args.i3d), ('vae_init', args.vae_init))
    }
    return Settings(
        scale=args.scale,
        difficulty=args.difficulty,
        from_scratch=args.from_scratch,
        still_share=args.still,
        smoke=args.smoke,
        gpus=args.gpus,
        longer=args.longer,
        **whole,
    )


def claim_folder(plan: Plan, to_run: bool) -> None:
    """Lock the folder of the study, and check that it does not belong to another study.

    Args:
        plan: The study.
        to_run: Whether stages will run. A report needs no lock: it can be written while another process runs the study.

    Raises:
        BlockingIOError: If another process uses the folder.
        NotADirectoryError: If the path is a file.
        ValueError: If the folder holds results of other settings, or other files.
    """
    path, settings, contents = plan.out / 'study.json', plan.settings._asdict(), plan.contents()
    if plan.out.exists() and not plan.out.is_dir():
        raise NotADirectoryError(f'--out {plan.out} is not a folder; pass a folder, which is created if needed')
    if path.is_file():
        there = read_json(path, 'the settings of a study')
    else:
        there = {}
        _refuse_files_of_others(plan.out)
    if to_run:
        plan.out.mkdir(parents=True, exist_ok=True)
        lock_folder(plan.out)
    if not there or not any((plan.out / 'stages').glob('*')):  # no stage has been started yet
        if to_run:
            write_json(path, {**settings, 'sha256': contents})
        return
    if not isinstance(there.get('sha256'), dict):
        raise ValueError(f'{path} is damaged: choose another --out')
    if differing := [f'{k}={there.get(k)!r}' for k, v in settings.items() if there.get(k) != v]:
        raise ValueError(
            f'{plan.out} is of a study with {", ".join(differing)}: choose another --out, or use these settings'
        )
    if changed := changed_contents(there['sha256'], contents):
        raise ValueError(
            f'{plan.out} holds runs from before {", ".join(changed)} changed, which cannot be compared with new '
            'runs: choose another --out, or revert the change'
        )
    if to_run and there['sha256'].keys() != contents.keys():  # arms that are new since
        write_json(path, {**settings, 'sha256': contents})


def _refuse_files_of_others(out: Path) -> None:
    """Check that a folder without a study has no files that would be overwritten, except those of a report."""
    there = [name for name in ('results.json', 'results.md', 'figures', 'configs') if (out / name).exists()]
    if there and not (out / 'results.json').is_file():
        raise ValueError(f'{out} has {", ".join(there)} that no study wrote: choose another --out')
    if there and not {'settings', 'arms'} <= read_json(out / 'results.json', 'results of a study').keys():
        raise ValueError(f'{out}/results.json was not written by a study: choose another --out')


def chosen_arms(names: list[str]) -> list[str]:
    """Return the arms of these names and groups, in the order of :data:`ARMS`."""
    asked = {arm for name in names for arm in GROUPS.get(name, [name])}
    return [arm for arm in ARMS if arm in asked]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    init_default_scope('pvvae_plugin')
    scale = SCALES[args.scale]
    jobs = args.jobs or scale.jobs
    seeds = range(args.first_seed, args.first_seed + (args.seeds or scale.seeds))
    try:
        settings = settings_of(args)
        plan = Plan(settings, chosen_arms(args.arms), seeds, args.out, args.vaes_alone)
        for arm, first in plan.same.items():
            say(
                f'{arm} is replaced by {first}: with {plan.num_groups()} groups per clip, both drop the same number',
                sys.stderr,
            )
        if args.scale == 'paper' and not args.vae_init:
            say('every VAE starts from random weights; the paper uses image pretraining, see --vae-init', sys.stderr)
        stages = plan.stages()
        if args.list:
            path = shlex.quote(python_path())
            say('\n'.join(f'# {one.name}\nPYTHONPATH={path} {shlex.join(one.command)}' for one in stages))
            return 0
        plan.check()
        claim_folder(plan, to_run=not args.report_only)
        if args.report_only:
            if not args.add and not (args.out / 'study.json').is_file():
                raise ValueError(f'{args.out} is not the folder of a study: pass the --out of a study, or use --add')
            say(f'written: {write_report(plan, args.add)}')
            return 0
        plan.write_configs()
        threads = None if torch.cuda.is_available() else max(1, (os.cpu_count() or 1) // jobs)
        runner = Runner(stages, args.out.resolve(), jobs, threads, args.minutes, scale.grace)
        done = sum(map(runner.is_done, stages))
        say(f'{len(stages)} stages, {done} done, {jobs} at a time; logs in {args.out}/logs')
        outcome = runner.run()
        if outcome.failed:
            say(f'failed: {", ".join(outcome.failed)}; rerun the same command to retry', sys.stderr)
        if outcome.stopped:
            say(f'{outcome.done} of {len(stages)} stages done: rerun the same command to resume', sys.stderr)
        say(f'written: {write_report(plan)}')
    except (ValueError, OSError) as error:  # user errors: no traceback
        sys.exit(f'error: {error}')
    if outcome.stopped:
        return EXIT_CODE
    return 1 if outcome.failed else 0

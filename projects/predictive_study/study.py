"""Are latents that predict easier to generate from? The same VAE under several objectives, the same generator on each.

    python -m projects.predictive_study --scale tiny --out work_dirs/study             # on a CPU
    python -m projects.predictive_study --scale tiny --arms all --out work_dirs/study  # overnight
    python -m projects.predictive_study --scale tiny --videos VIDEOS --out work_dirs/study_videos
    python -m projects.predictive_study --scale gpu-small --arms all --minutes 8 --out work_dirs/study_gpu

The same command after an interruption, or after its --minutes, goes on where it stopped; more arms and seeds can be
added to a folder. Arms train, test, encode and generate by our ordinary scripts, each in a process of its own, on
configs that are written to OUT/configs. OUT/results.json, OUT/results.md and OUT/figures hold what there is so far.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from pvvae_plugin.datasets.annotations import scan_folder
from pvvae_plugin.datasets.synthetic.dataset import DIFFICULTIES
from pvvae_plugin.engine.stop_request import EXIT_CODE
from pvvae_plugin.files import lock_folder, read_json, write_atomically
from pvvae_plugin.models.checkpoints import check_checkpoint, resolve_checkpoint
from pvvae_plugin.registry import EXTRACTORS

from .arms import ARMS, GROUPS, SCALES, Settings
from .plan import Plan, python_path
from .report import write_report
from .runner import Runner, say

LAST_SEED = 10**8  # trainings have ten times as much, and NumPy takes 2**32


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
        help=f'of {", ".join(names)} (default: pair)',
    )
    parser.add_argument('--seeds', type=int, metavar='N', help='how many of every arm (default: 2 for tiny, else 3)')
    parser.add_argument('--first-seed', type=int, default=0, metavar='S', help='seeds S..S+N-1 (default: 0)')
    parser.add_argument('--difficulty', choices=list(DIFFICULTIES), default='plain', help='of procedural clips')
    parser.add_argument('--still', type=float, default=0.0, metavar='SHARE', help='of training clips without motion')
    parser.add_argument('--videos', metavar='DIR', help='folder with train/ and val/ in place of procedural clips')
    parser.add_argument('--i3d', metavar='FILE', help='i3d_torchscript.pt: measure FVD and KVD in place of proxies')
    parser.add_argument('--from-scratch', action='store_true', help='no pretraining: as many steps more of each arm')
    parser.add_argument('--vae-init', metavar='CKPT', help='what every VAE starts from, such as one trained on images')
    parser.add_argument('--vaes-alone', action='store_true', help='no generators: a third of the time')
    parser.add_argument('--longer', type=int, default=1, metavar='N', help='generators train 2, 4, 8 ... times as long')
    parser.add_argument('--jobs', type=int, metavar='N', help='processes at once (default: 2 for tiny, else 1)')
    parser.add_argument('--gpus', type=int, default=1, metavar='N', help='GPUs of every run (default: 1)')
    parser.add_argument('--minutes', type=float, metavar='M', help='save everything and leave after so many')
    parser.add_argument('--smoke', action='store_true', help='next to no steps: whether it runs, nothing else')
    parser.add_argument('--list', action='store_true', help='print the commands and leave')
    parser.add_argument('--report-only', action='store_true', help='write results of what is there and leave')
    parser.add_argument(
        '--add',
        nargs='+',
        type=Path,
        default=[],
        metavar='RESULTS.json',
        help='with --report-only: results of the same study in other folders, such as those of other machines',
    )
    args = parser.parse_args(argv)
    for name in ('seeds', 'jobs', 'gpus', 'minutes'):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f'--{name} must be positive, got {value}')
    for name in ('videos', 'i3d', 'vae_init'):
        value = getattr(args, name)
        if value == '':
            parser.error(f'--{name.replace("_", "-")} is empty: give a path, or leave it out')
    for path in (args.out, args.videos, args.i3d, args.vae_init):
        if path and '{{' in str(path):
            parser.error(f'{path}: MMEngine reads {{{{ as a variable of a config: choose a path without it')
    if args.longer < 1 or args.longer & (args.longer - 1):
        parser.error(f'--longer must be 1, 2, 4, 8 ..., got {args.longer}')
    if args.first_seed < 0:
        parser.error(f'--first-seed must not be negative, got {args.first_seed}')
    if args.first_seed + (args.seeds or 0) > LAST_SEED:
        parser.error(f'--first-seed and --seeds may go to {LAST_SEED}, got {args.first_seed} and {args.seeds}')
    if args.add and not args.report_only:
        parser.error('--add is of reports: give --report-only as well')
    return args


def settings_of(args: argparse.Namespace) -> Settings:
    """What the arguments ask for, checked.

    Raises:
        FileNotFoundError: If a file or folder is not there.
        ValueError: If arguments do not go together.
    """
    scale = SCALES[args.scale]
    if args.videos and scale.on_videos is None:
        raise ValueError(f'--scale {args.scale} is on UCF101, whose place its configs name: leave --videos out')
    if args.videos:
        folders = {split: Path(args.videos) / split for split in ('train', 'val')}
        for split, folder in folders.items():
            if not folder.is_dir():
                raise FileNotFoundError(
                    f'--videos {args.videos}: there is no folder {split} in it; it takes train and val'
                )
        for folder in folders.values():
            scan_folder(str(folder), None, images=False)  # raises where there is no video
    if args.from_scratch and (args.vae_init or not scale.pretraining_steps):
        raise ValueError('--from-scratch is for scales that pretrain, without --vae-init: leave it out here')
    if not 0.0 <= args.still <= 1.0:
        raise ValueError(f'--still is a share and must lie in [0, 1], got {args.still}')
    if (args.videos or args.scale == 'paper') and (args.difficulty != 'plain' or args.still):
        raise ValueError('--difficulty and --still are of procedural clips: leave them out here')
    if args.i3d and not Path(args.i3d).is_file():
        raise FileNotFoundError(f'--i3d {args.i3d}: there is no such file')
    if args.i3d:
        EXTRACTORS.build({'type': 'I3DTorchScript', 'weights': args.i3d})  # raises where it cannot be loaded
    if args.vae_init and not Path(args.vae_init).exists():
        raise FileNotFoundError(f'--vae-init {args.vae_init}: there is no such file')
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
    """Take the study's folder, or refuse one of another study.

    Args:
        plan: The study.
        to_run: Whether stages are to run; a report of what there is can be written beside a process that works, and
            leaves the folder to whatever study is run in it.

    Raises:
        BlockingIOError: If another process works in it.
        NotADirectoryError: If it is a file.
        ValueError: If it holds results of other settings, or of no study.
    """
    path, settings, contents = plan.out / 'study.json', plan.settings._asdict(), plan.contents()
    if plan.out.exists() and not plan.out.is_dir():
        raise NotADirectoryError(f'--out {plan.out} is no folder: name one, which is made where it is not there')
    if path.is_file():
        there = read_json(path, 'the settings of a study')
    else:
        there = {}
        _refuse_files_of_others(plan.out)
    if to_run:
        plan.out.mkdir(parents=True, exist_ok=True)
        lock_folder(plan.out)
    if not there or not any((plan.out / 'stages').glob('*')):  # nothing of an earlier call's was begun
        if to_run:
            write_atomically(path, (json.dumps({**settings, 'sha256': contents}, indent=2) + '\n').encode())
        return
    if not isinstance(there.get('sha256'), dict):
        raise ValueError(f'{path} is damaged: give another --out')
    if differing := [f'{k}={there.get(k)!r}' for k, v in settings.items() if there.get(k) != v]:
        raise ValueError(
            f'{plan.out} is of a study with {", ".join(differing)}: give another --out, or those arguments'
        )
    if changed := [what for what, digest in contents.items() if there['sha256'].get(what) != digest]:
        raise ValueError(
            f'{plan.out} holds runs of before {", ".join(changed)} changed, which cannot be compared with those to '
            'come: give another --out, or change that back'
        )


def _refuse_files_of_others(out: Path) -> None:
    """Refuse a folder without a study in which other files have the names of ours, unless a report wrote them."""
    there = [name for name in ('results.json', 'results.md', 'figures', 'configs') if (out / name).exists()]
    if there and not (out / 'results.json').is_file():
        raise ValueError(f'{out} has {", ".join(there)}, of no study: give another --out')
    if there and not {'settings', 'arms'} <= read_json(out / 'results.json', 'results of a study').keys():
        raise ValueError(f'{out}/results.json is of no study: give another --out')


def chosen_arms(names: list[str]) -> list[str]:
    """Arms in the order of :data:`ARMS`."""
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
            say(f'{arm} is {first} here: of clips of {plan.num_groups()} groups both drop as many', sys.stderr)
        if args.scale == 'paper' and not args.vae_init:
            say('every VAE starts from random weights; the paper starts from images: --vae-init', sys.stderr)
        stages = plan.stages()
        if args.list:
            path = shlex.quote(python_path())
            say('\n'.join(f'# {one.name}\nPYTHONPATH={path} {shlex.join(one.command)}' for one in stages))
            return 0
        plan.check()
        claim_folder(plan, to_run=not args.report_only)
        if args.report_only:
            if not args.add and not (args.out / 'study.json').is_file():
                raise ValueError(f'{args.out} holds no study to report on: give the --out of one, or --add')
            say(f'written: {write_report(plan, args.add)}')
            return 0
        plan.write_configs()
        threads = None if torch.cuda.is_available() else max(1, (os.cpu_count() or 1) // jobs)
        runner = Runner(stages, args.out.resolve(), jobs, threads, args.minutes, scale.grace)
        done = sum(map(runner.is_done, stages))
        say(f'{len(stages)} stages, {done} of them done, {jobs} at once; logs in {args.out}/logs')
        outcome = runner.run()
        if outcome.failed:
            say(f'failed: {", ".join(outcome.failed)}; the same command tries them again', sys.stderr)
        if outcome.stopped:
            say(f'{outcome.done} of {len(stages)} stages done: the same command goes on', sys.stderr)
        say(f'written: {write_report(plan)}')
    except (ValueError, OSError) as error:  # the user's to mend: no trace of ours needed
        sys.exit(f'error: {error}')
    if outcome.stopped:
        return EXIT_CODE
    return 1 if outcome.failed else 0

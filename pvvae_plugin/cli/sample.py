"""Make videos with a trained generator.

pvvae sample dit_demo work_dirs/dit_demo --num 14 --out-dir samples
python tools/sample.py configs/dit_demo.py work_dirs/quickstart_generator --num 14 --out-dir samples --labels orbit zoom
python tools/sample.py CONFIG CHECKPOINT --first-frames photo.jpg --out-dir animated
torchrun --nproc-per-node 8 --no-python pvvae sample CONFIG CHECKPOINT --num-videos 2048 --launcher pytorch

Into OUT_DIR go one file a video, such as 00003_orbit.webm, sheet.png, grid.webm, grid.gif, and samples.json, which says
how they were made. The same command after an interruption goes on where it stopped.

A video follows from seed and index. Its noise is the same bit for bit on any device; processes take whole batches in
turn, so that the files are the same bytes however many processes share the work, as long as device, batch size and
threads of each process (OMP_NUM_THREADS, which torchrun sets to 1) are. Other batch sizes and threads round otherwise:
on a CPU values differed by 2e-6 of the range -1 to 1, and 3 in 100,000 of 8-bit values by 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_dist_info
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar

from pvvae_plugin import __version__
from pvvae_plugin.cli.launching import end_processes, start_processes
from pvvae_plugin.config import add_override_argument, class_names, clip_geometry, read_config
from pvvae_plugin.datasets.latent_shards import config_sha256
from pvvae_plugin.files import file_sha256
from pvvae_plugin.functional.rectified_flow import SOLVERS
from pvvae_plugin.models import LatentVideoGenerator
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.models.latent_video_generator import steps_of_calls
from pvvae_plugin.renaming import add_old_option
from pvvae_plugin.sampling import (
    SampleFolder,
    default_num_given,
    find_sources,
    load_generator,
    read_first_frames,
    resolve_labels,
)
from pvvae_plugin.sampling.sheets import GRID_PANELS, SHEETS, choose_shown, write_sheets
from pvvae_plugin.visualization import to_uint8


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the generator')
    parser.add_argument('checkpoint', help='its checkpoint, or the work directory of its run')
    # torchrun on some versions of Python takes --num for its own --numa-binding, wherever it stands.
    parser.add_argument(
        '--num', '--num-videos', type=int, default=8, help='number of videos (default: 8); under torchrun --num-videos'
    )
    parser.add_argument('--out-dir', type=Path, default=Path('samples'), help='default: samples')
    parser.add_argument('--labels', nargs='+', metavar='CLASS', help='names or numbers, used in turn (default: all)')
    parser.add_argument(
        '--num-inference-steps',
        type=int,
        default=100,
        metavar='N',
        help='steps of the solver (default: 100); Euler calls the network once per step, Heun twice',
    )
    parser.add_argument(
        '--guidance-scale', type=float, default=1.0, metavar='S', help='classifier-free guidance (default: 1, none)'
    )
    parser.add_argument(
        '--guidance-interval',
        type=float,
        nargs=2,
        metavar=('LO', 'HI'),
        default=(0.0, 1.0),
        help='times of guidance in [0, 1] (default: 0 1)',
    )
    parser.add_argument('--steps', type=int, help=argparse.SUPPRESS)  # old: network calls
    add_old_option(parser, '--guidance', '--guidance-scale', type=float)
    add_old_option(parser, '--interval', '--guidance-interval', type=float, nargs=2)
    parser.add_argument('--shift', type=float, default=1.0, help='above 1: shorter steps near noise (default: 1)')
    parser.add_argument('--solver', choices=list(SOLVERS), default='euler')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch-size', type=int, default=8, help='videos made at once (default: 8)')
    parser.add_argument('--fps', type=float, default=8, help='frames a second of the files (default: 8)')
    parser.add_argument('--num-frames', type=int, metavar='T', help="frames of a video (default: the config's)")
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help="pixels (default: the config's)")
    parser.add_argument('--first-frames', metavar='PATH', help='video or image to continue, or a folder of them')
    parser.add_argument(
        '--num-given', type=int, metavar='F', help='frames of it to give (default: 1 of an image, else half)'
    )
    parser.add_argument('--raw-weights', action='store_true', help='not the averages, which look bad early in a run')
    add_override_argument(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='how processes were started'
    )
    args = parser.parse_args(argv)
    for name in ('num', 'steps', 'num_inference_steps', 'batch_size', 'num_frames', 'num_given'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be a positive integer, got {getattr(args, name)}')
    if not 0.1 <= args.fps <= 50:
        parser.error(f'--fps must lie in [0.1, 50], the most that a GIF plays, got {args.fps}')
    if args.size and min(args.size) < 1:
        parser.error(f'--size must be positive, got {args.size[0]} {args.size[1]}')
    if args.num_given and not args.first_frames:
        parser.error('--num-given needs --first-frames')
    if args.steps is not None:
        args.num_inference_steps = steps_of_calls(args.steps, args.solver)
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    start_processes(args.launcher)
    sample(args, cfg)
    end_processes()


def sample(args: argparse.Namespace, cfg: Config) -> None:
    """Make and write the videos, unless they are already there."""
    num_frames, size = clip_geometry(cfg, args.num_frames, args.size)
    if any(side % 2 for side in size):
        raise ValueError(f'videos need an even height and width to be encoded, got {size[0]} x {size[1]}')
    model = load_generator(cfg, args.checkpoint, args.raw_weights)
    names = class_names(cfg, model.head.null_label)
    cycle = resolve_labels(args.labels, names, model.head.null_label)
    labels = None if cycle is None else [cycle[i % len(cycle)] for i in range(args.num)]
    sampling = ('num_inference_steps', 'guidance_scale', 'guidance_interval', 'shift', 'solver', 'seed')
    options = {name: getattr(args, name) for name in sampling}
    request = {'num': args.num, 'num_frames': num_frames, 'size': size, **options, 'batch_size': args.batch_size}
    sources, first_frames = given_frames(args, cfg, model, num_frames, size)
    make = {**request, 'labels': labels, 'first_frames': first_frames}
    model.generate(**make)  # makes nothing yet, but refuses what cannot be made

    num_given = None if first_frames is None else first_frames.shape[2]
    run = {
        **identity(args, cfg, model),
        **request,
        'labels': cycle,
        'fps': args.fps,
        'first_frames': [file_sha256(source) for source in sources] or None,
        'num_given': num_given,
    }
    entries = [
        {
            'index': i,
            'label': None if labels is None else labels[i],
            'class': None if names is None or labels is None else names[labels[i]],
            **({'first_frames': sources[i % len(sources)]} if sources else {}),
        }
        for i in range(args.num)
    ]
    about = {
        'config': args.config,
        'overrides': {name: str(value) for name, value in (args.cfg_options or {}).items()},
        'checkpoint': resolve_checkpoint(args.checkpoint),
        'nfe': args.num_inference_steps * SOLVERS[args.solver].calls_per_step,  # network calls per video
        'vae': (model.backbone_source or {}).get('path'),
        'classes': names,
    }
    folder = SampleFolder(args.out_dir, run, about, entries, choose_shown(labels, args.num, GRID_PANELS))
    if folder.check():
        print(f'{args.out_dir} holds these {args.num} videos already')
        return
    write_videos(folder, model, make, args.fps)
    if get_dist_info()[0] == 0:
        write_sheets(args.out_dir, folder.shown_clips(), captions(entries), labels, num_given, args.fps)
        folder.finish()
        print(f'\n{args.num} videos, {", ".join(SHEETS)} are in {args.out_dir}')


def given_frames(
    args: argparse.Namespace, cfg: Config, model: LatentVideoGenerator, num_frames: int, size: tuple[int, int]
) -> tuple[list[str], torch.Tensor | None]:
    """Files to continue, as many as are used, and their first frames; none where none are asked for."""
    if not args.first_frames:
        return [], None
    sources = find_sources(args.first_frames)[: args.num]
    if not model.condition_prob:
        raise ValueError(
            '--first-frames needs a generator trained with model.condition_prob above 0, such as '
            'configs/dit_pvvae_i2v.py; this one was trained without given frames'
        )
    num_given = args.num_given or default_num_given(sources, num_frames, model.backbone.temporal_ratio)
    return sources, read_first_frames(cfg, sources, num_given, size)


def identity(args: argparse.Namespace, cfg: Config, model: LatentVideoGenerator) -> dict[str, Any]:
    """Digests of all that videos follow from beside what is asked for, wherever its files lie."""
    network = {key: value for key, value in cfg.model.to_dict().items() if key != 'backbone_checkpoint'}
    return {
        'checkpoint_sha256': file_sha256(resolve_checkpoint(args.checkpoint)),
        'raw_weights': args.raw_weights,
        'vae_sha256': (model.backbone_source or {}).get('sha256'),
        'model_sha256': config_sha256(network),
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }


def write_videos(folder: SampleFolder, model: LatentVideoGenerator, make: dict[str, Any], fps: float) -> None:
    """Make and write this process's share, but for what is there already, and wait for the other processes."""
    rank, world_size = get_dist_info()
    if rank == 0:
        folder.start()
    barrier()
    num, size = make['num'], make['batch_size']
    batches = [range(start, min(start + size, num)) for start in range(0, num, size)]
    if rank == 0 and len(batches) < world_size:
        print(f'{len(batches)} batches for {world_size} processes: a smaller --batch-size would occupy them all')
    # Whole batches, even of one missing video: which videos share a batch decides how each is rounded.
    pending = [batch for batch in batches[rank::world_size] if not all(map(folder.is_done, batch))]
    indices = [index for batch in pending for index in batch]
    # Of process 0 alone: the others' shares are as large.
    progress = ProgressBar(len(indices)) if rank == 0 and indices else None
    for index, video in model.generate(**make, indices=indices):
        if not folder.is_done(index):
            folder.add(index, to_uint8(video), fps)
        if progress:
            progress.update()
    barrier()


def captions(entries: Sequence[dict[str, Any]]) -> list[str]:
    """What stands beside a video in the pictures: its class, the file it continues, and its number."""
    texts = []
    for entry in entries:
        label = None if entry['label'] is None else entry['class'] or f'class {entry["label"]}'
        source = Path(entry['first_frames']).stem if 'first_frames' in entry else None
        texts.append(' '.join([*filter(None, (label, source)), f'#{entry["index"]}']))
    return texts

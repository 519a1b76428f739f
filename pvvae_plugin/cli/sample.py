"""Generate videos with a trained generator.

pvvae sample dit_demo work_dirs/dit_demo --num 14 --out-dir samples
python tools/sample.py configs/dit_demo.py work_dirs/quickstart_generator --num 14 --out-dir samples --labels orbit zoom
python tools/sample.py CONFIG CHECKPOINT --first-frames photo.jpg --out-dir animated
torchrun --nproc-per-node 8 --no-python pvvae sample CONFIG CHECKPOINT --num-videos 2048 --launcher pytorch

OUT_DIR receives one file per video (such as 00003_orbit.webm), sheet.png, grid.webm, grid.gif, and samples.json, which
records the settings. After an interruption, run the same command to resume.

Seed and index determine a video. Its noise is bit-identical on every device. Whole batches are sharded across the
processes, so the files are byte-identical for any number of processes. This requires the same device, batch size and
number of threads per process (OMP_NUM_THREADS, which torchrun sets to 1); other batch sizes and threads change the
rounding. On a CPU, values in [-1, 1] differed by up to 2e-6, and 3 in 100,000 of the 8-bit values by 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_dist_info
from mmengine.registry import init_default_scope

from pvvae_plugin import __version__
from pvvae_plugin.cli.launching import end_processes, find_missing, start_processes
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, class_names, clip_geometry, read_config
from pvvae_plugin.datasets.latent_shards import config_sha256
from pvvae_plugin.files import file_sha256
from pvvae_plugin.functional.rectified_flow import SOLVERS
from pvvae_plugin.models import LatentVideoGenerator
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.models.generator_checks import steps_of_calls
from pvvae_plugin.progress import ProgressBar
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
from pvvae_plugin.visualization.video_files import MAX_GIF_FPS


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config of the generator')
    parser.add_argument('checkpoint', help='checkpoint of the generator, or work directory of its run')
    # On some Python versions torchrun parses --num, at any position, as its own --numa-binding.
    parser.add_argument(
        '--num',
        '--num-videos',
        type=int,
        default=8,
        help='number of videos (default: 8); under torchrun use --num-videos',
    )
    parser.add_argument('--out-dir', type=Path, default=Path('samples'), help='default: samples')
    parser.add_argument(
        '--labels', nargs='+', metavar='CLASS', help='class names or numbers to cycle through (default: all)'
    )
    parser.add_argument(
        '--num-inference-steps',
        type=int,
        default=100,
        metavar='N',
        help='steps of the solver (default: 100); Euler calls the network once per step, Heun twice',
    )
    parser.add_argument(
        '--guidance-scale',
        type=float,
        default=1.0,
        metavar='S',
        help='classifier-free guidance scale (default: 1, no guidance)',
    )
    parser.add_argument(
        '--guidance-interval',
        type=float,
        nargs=2,
        metavar=('LO', 'HI'),
        default=(0.0, 1.0),
        help='interval of times in [0, 1] that use guidance (default: 0 1)',
    )
    parser.add_argument('--steps', type=int, help=argparse.SUPPRESS)  # old: network calls
    add_old_option(parser, '--guidance', '--guidance-scale', type=float)
    add_old_option(parser, '--interval', '--guidance-interval', type=float, nargs=2)
    parser.add_argument(
        '--shift',
        type=float,
        default=1.0,
        help='timestep shift; values above 1 take shorter steps near noise (default: 1)',
    )
    parser.add_argument('--solver', choices=list(SOLVERS), default='euler')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch-size', type=int, default=8, help='videos per batch (default: 8)')
    parser.add_argument('--fps', type=float, default=8, help='frames per second of the files (default: 8)')
    parser.add_argument('--num-frames', type=int, metavar='T', help="frames per video (default: the config's)")
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help="height and width in pixels (default: the config's)"
    )
    parser.add_argument('--first-frames', metavar='PATH', help='video or image to continue, or a folder of such files')
    parser.add_argument(
        '--num-given',
        type=int,
        metavar='F',
        help='number of frames given to the generator (default: 1 for an image, else half)',
    )
    parser.add_argument(
        '--raw-weights',
        action='store_true',
        help='use the raw instead of the averaged weights, which lag early in a run',
    )
    add_override_argument(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='launcher that started the processes',
    )
    args = parser.parse_args(argv)
    for name in ('num', 'steps', 'num_inference_steps', 'batch_size', 'num_frames', 'num_given'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be a positive integer, got {getattr(args, name)}')
    if not 0.1 <= args.fps <= MAX_GIF_FPS:
        parser.error(f'--fps must be in [0.1, {MAX_GIF_FPS}] (GIF plays at most 50), got {args.fps}')
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
    """Generate and write the videos that do not exist yet."""
    num_frames, size = clip_geometry(cfg, args.num_frames, args.size)
    if any(side % 2 for side in size):
        raise ValueError(f'height and width must be even to encode videos, got {size[0]} x {size[1]}')
    if 'head' in cfg.get('model', ()):  # load_generator rejects other configs
        missing = find_missing(cfg)
        missing.collect(resolve_checkpoint, args.checkpoint)
        missing.report()
    model = load_generator(cfg, args.checkpoint, args.raw_weights)
    names = class_names(cfg, model.head.null_label)
    cycle = resolve_labels(args.labels, names, model.head.null_label)
    labels = None if cycle is None else [cycle[i % len(cycle)] for i in range(args.num)]
    sampling = ('num_inference_steps', 'guidance_scale', 'guidance_interval', 'shift', 'solver', 'seed')
    options = {name: getattr(args, name) for name in sampling}
    request = {'num': args.num, 'num_frames': num_frames, 'size': size, **options, 'batch_size': args.batch_size}
    sources, first_frames = given_frames(args, cfg, model, num_frames, size)
    make = {**request, 'labels': labels, 'first_frames': first_frames}
    model.generate(**make)  # validates the request; generates nothing yet

    num_given = None if first_frames is None else first_frames.shape[2]
    run = {
        **identity(args, cfg, model),
        **request,
        'labels': cycle,
        'fps': args.fps,
        'first_frames': [file_sha256(source) for source in sources] or None,
        'num_given': num_given,
        # The files, the frame interval and the pipeline determine the frames.
        'first_frames_sha256': None if first_frames is None else sha256(first_frames.numpy().tobytes()).hexdigest(),
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
        print(f'{args.out_dir} already has these {args.num} videos')
        return
    write_videos(folder, model, make, args.fps)
    if get_dist_info()[0] == 0:
        write_sheets(args.out_dir, folder.shown_clips(), captions(entries), labels, num_given, args.fps)
        folder.finish()
        print(f'\n{args.num} videos, {", ".join(SHEETS)} are in {args.out_dir}')


def given_frames(
    args: argparse.Namespace, cfg: Config, model: LatentVideoGenerator, num_frames: int, size: tuple[int, int]
) -> tuple[list[str], torch.Tensor | None]:
    """Return the files to continue and their first frames, or ``([], None)`` without ``--first-frames``."""
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
    """Return digests of the weights, the model and the versions that determine the videos, independent of paths."""
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
    """Generate and write the missing videos of this rank, then wait for the other ranks."""
    rank, world_size = get_dist_info()
    if rank == 0:
        folder.start()
    barrier()
    num, size = make['num'], make['batch_size']
    batches = [range(start, min(start + size, num)) for start in range(0, num, size)]
    if rank == 0 and len(batches) < world_size:
        print(f'{len(batches)} batches for {world_size} processes; reduce --batch-size to use all processes')
    # Generate whole batches, even for one missing video: the batch affects the rounding.
    pending = [batch for batch in batches[rank::world_size] if not all(map(folder.is_done, batch))]
    indices = [index for batch in pending for index in batch]
    # Only rank 0 shows progress; the other ranks have as much work.
    progress = ProgressBar(len(indices)) if rank == 0 and indices else None
    for index, video in model.generate(**make, indices=indices):
        if not folder.is_done(index):
            folder.add(index, to_uint8(video), fps)
        if progress:
            progress.update()
    barrier()


def captions(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Return the caption of each video: its class, the file it continues, and its number."""
    texts = []
    for entry in entries:
        label = None if entry['label'] is None else entry['class'] or f'class {entry["label"]}'
        source = Path(entry['first_frames']).stem if 'first_frames' in entry else None
        texts.append(' '.join([*filter(None, (label, source)), f'#{entry["index"]}']))
    return texts

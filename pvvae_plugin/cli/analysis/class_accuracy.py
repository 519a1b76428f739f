"""How often a class-conditional generator makes the class it was asked for, judged by a classifier of real clips.

    pvvae class-accuracy dit_demo work_dirs/dit_demo --out accuracy.json
    python tools/analysis/class_accuracy.py configs/dit_demo.py work_dirs/quickstart_generator --guidance-scale 2 \
        --out work_dirs/accuracy/demo.json

The classifier is trained on the config's clips and on the VAE's reconstructions of them, in a minute or two, and kept
beside the result: the next call with the same data and VAE reuses it. Its accuracy on held-out clips shows how far the
classes can be told apart, that on their reconstructions what a generator with this VAE can hope for, chance what one
reaches that knows no classes. Beside FILE.json lies FILE.png, with what was taken for what.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from pvvae_plugin import __version__
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.evaluation import class_accuracy as accuracy
from pvvae_plugin.evaluation.motion_classifier import (
    classifier_digest,
    load_classifier,
    save_classifier,
    train_classifier,
)
from pvvae_plugin.files import file_sha256
from pvvae_plugin.models import LatentVideoGenerator
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.renaming import add_old_option
from pvvae_plugin.sampling import load_generator
from pvvae_plugin.visualization.confusion import draw_confusions

CLASSIFIER_SEED = 0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the generator')
    parser.add_argument('checkpoint', help='its checkpoint, or the work directory of its run')
    parser.add_argument('--num', type=int, default=350, help='clips of each kind that are judged (default: 350)')
    parser.add_argument('--num-inference-steps', type=int, default=50, metavar='N', help='Euler steps (default: 50)')
    parser.add_argument(
        '--guidance-scale', type=float, default=1.0, metavar='S', help='classifier-free guidance (default: 1, none)'
    )
    add_old_option(parser, '--steps', '--num-inference-steps', type=int)
    add_old_option(parser, '--guidance', '--guidance-scale', type=float)
    parser.add_argument('--seed', type=int, default=0, help='seed of the noise that videos are made from')
    parser.add_argument('--batch-size', type=int, default=32, help='videos made at once (default: 32)')
    parser.add_argument('--raw-weights', action='store_true', help='not the averages, which look bad early in a run')
    parser.add_argument('--classifier', type=Path, metavar='FILE.pth', help='its weights (default: beside FILE.json)')
    parser.add_argument('--classifier-steps', type=int, default=1200, help='its training steps (default: 1200)')
    parser.add_argument('--out', type=Path, default=Path('class_accuracy.json'), metavar='FILE.json')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    for name in ('num', 'num_inference_steps', 'batch_size', 'classifier_steps'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be a positive integer, got {getattr(args, name)}')
    if args.out.suffix != '.json':
        parser.error(f'--out must end in .json, got {args.out}')
    if args.classifier and args.classifier.is_dir():
        parser.error(f'--classifier {args.classifier} is a folder: name a file')
    return args


def get_classifier(
    args: argparse.Namespace, model: LatentVideoGenerator, data: accuracy.LabelledData
) -> tuple[nn.Module, Path]:
    """The classifier of the data set and the VAE: that of an earlier call, or a new one; and its file."""
    k, device = len(data.classes), next(model.parameters()).device
    vae_sha256 = (model.backbone_source or {}).get('sha256')
    digest = classifier_digest(data.train_config, k, args.classifier_steps, CLASSIFIER_SEED, vae_sha256)
    path = args.classifier or args.out.with_name(f'classifier-{digest[:12]}.pth')
    if path.is_file():
        print(f'classifier of an earlier call: {path}')
        return load_classifier(path, digest).to(device), path
    print(f'training the classifier on {k} classes: {", ".join(data.classes[:10])}')
    start = time.time()
    reconstruct = functools.partial(accuracy.reconstruct, model.backbone)
    classifier = train_classifier(data.train, k, args.classifier_steps, CLASSIFIER_SEED, reconstruct, device)
    save_classifier(classifier, path, digest)
    print(f'trained in {time.time() - start:.0f} s, kept as {path}')
    return classifier, path


def measure(
    args: argparse.Namespace, model: LatentVideoGenerator, data: accuracy.LabelledData, classifier: nn.Module
) -> dict[str, np.ndarray]:
    """Confusion counts of held-out clips, of their reconstructions and of generated clips."""
    k = len(data.classes)
    options = {name: getattr(args, name) for name in ('num_inference_steps', 'guidance_scale', 'seed', 'batch_size')}
    shape = data.held_out[0]['inputs'].shape[1:]
    real = accuracy.real_clips(data, args.num, args.batch_size)
    counts = {'held-out clips': accuracy.judge(classifier, real, k)}
    real = accuracy.real_clips(data, args.num, args.batch_size)
    counts['reconstructions'] = accuracy.judge(classifier, accuracy.reconstructions(model.backbone, real), k)
    print(f'making {args.num} videos')
    made = accuracy.generated_clips(model, args.num, shape, **options)
    counts['generated'] = accuracy.judge(classifier, made, k)
    return counts


def provenance(args: argparse.Namespace, model: LatentVideoGenerator, data: accuracy.LabelledData) -> dict[str, Any]:
    """What a number needs beside it to be compared later."""
    checkpoint = resolve_checkpoint(args.checkpoint)
    return {
        'config': args.config,
        'overrides': {name: str(value) for name, value in (args.cfg_options or {}).items()},
        'checkpoint': checkpoint,
        'checkpoint_sha256': file_sha256(checkpoint),
        'raw_weights': args.raw_weights,
        'vae': model.backbone_source,
        'sampling': {name: getattr(args, name) for name in ('num', 'num_inference_steps', 'guidance_scale', 'seed')},
        'train_data': data.train_config,
        'held_out_data': data.held_out_config,
        'classes': data.classes,
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    resolve_checkpoint(args.checkpoint)
    data = accuracy.build_labelled_data(cfg, args.num)
    model = load_generator(cfg, args.checkpoint, args.raw_weights)
    accuracy.check_generator(model, data.classes)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.open('a').close()  # what cannot be written fails now, and not after the work
    facts = provenance(args, model, data)  # before a run that goes on deletes this checkpoint

    classifier, path = get_classifier(args, model, data)
    judged_by = {
        'file': str(path),
        'sha256': file_sha256(path),
        'steps': args.classifier_steps,
        'seed': CLASSIFIER_SEED,
    }
    counts = measure(args, model, data, classifier)
    results = {name: accuracy.summarize(table, data.classes) for name, table in counts.items()}
    chance = 1 / len(data.classes)
    for name, result in results.items():
        low, high = result['interval_95']
        interval = f'95 %: {100 * low:.1f} to {100 * high:.1f}, {result["num"]} clips'
        print(f'{name:<16}{100 * result["accuracy"]:6.1f} %  ({interval})')
    print(f'{"chance":<16}{100 * chance:6.1f} %')
    if results['held-out clips']['interval_95'][0] <= chance:
        print('The classifier does not tell the classes apart: these numbers say nothing. Use more --classifier-steps')
    record = {'accuracy': {**results, 'chance': chance}, 'classifier': judged_by, **facts}
    args.out.write_text(json.dumps(record, indent=2, default=str) + '\n')
    figure = args.out.with_suffix('.png')
    titles = [f'{name}: {100 * result["accuracy"]:.1f} %' for name, result in results.items()]
    Image.fromarray(draw_confusions(list(counts.values()), titles, data.classes)).save(figure)
    print(f'written: {args.out}, {figure}')

"""Measure how often a class-conditional generator produces the requested class, according to a classifier.

    pvvae class-accuracy dit_demo work_dirs/dit_demo --out accuracy.json
    python tools/analysis/class_accuracy.py configs/dit_demo.py work_dirs/quickstart_generator --guidance-scale 2 \
        --out work_dirs/accuracy/demo.json

The classifier is trained on the config's clips and their VAE reconstructions, which takes a minute or two. It is saved
next to the result and reused by calls with the same data and VAE. Its accuracy on held-out clips shows how separable
the classes are. Its accuracy on their reconstructions is the upper limit for a generator with this VAE. Chance is the
accuracy without class information. FILE.png shows the confusion matrices.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from pvvae_plugin import __version__
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.evaluation import class_accuracy as accuracy
from pvvae_plugin.evaluation.motion_classifier import (
    classifier_digest,
    load_classifier,
    save_classifier,
    train_classifier,
)
from pvvae_plugin.files import check_writable, file_sha256, write_json
from pvvae_plugin.functional.rectified_flow import check_sampler
from pvvae_plugin.models import LatentVideoGenerator
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.models.generator_checks import check_guidance
from pvvae_plugin.renaming import add_old_option
from pvvae_plugin.sampling import load_generator
from pvvae_plugin.visualization.confusion import draw_confusions

CLASSIFIER_SEED = 0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config of the generator')
    parser.add_argument('checkpoint', help='checkpoint of the generator, or work directory of its run')
    parser.add_argument('--num', type=int, default=350, help='clips to classify per kind (default: 350)')
    parser.add_argument('--num-inference-steps', type=int, default=50, metavar='N', help='Euler steps (default: 50)')
    parser.add_argument(
        '--guidance-scale',
        type=float,
        default=1.0,
        metavar='S',
        help='classifier-free guidance scale (default: 1, no guidance)',
    )
    add_old_option(parser, '--steps', '--num-inference-steps', type=int)
    add_old_option(parser, '--guidance', '--guidance-scale', type=float)
    parser.add_argument('--seed', type=int, default=0, help='seed of the noise (default: 0)')
    parser.add_argument('--batch-size', type=int, default=32, help='videos per batch (default: 32)')
    parser.add_argument(
        '--raw-weights',
        action='store_true',
        help='use the raw instead of the averaged weights, which lag early in a run',
    )
    parser.add_argument(
        '--classifier',
        type=Path,
        metavar='FILE.pth',
        help='weights of the classifier (default: in the folder of FILE.json)',
    )
    parser.add_argument(
        '--classifier-steps', type=int, default=1200, help='training steps of the classifier (default: 1200)'
    )
    parser.add_argument('--out', type=Path, default=Path('class_accuracy.json'), metavar='FILE.json')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    for name in ('num', 'num_inference_steps', 'batch_size', 'classifier_steps'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be a positive integer, got {getattr(args, name)}')
    if args.out.suffix != '.json':
        parser.error(f'--out must end in .json, got {args.out}')
    if args.classifier and args.classifier.is_dir():
        parser.error(f'--classifier {args.classifier} is a folder; give a file')
    return args


def get_classifier(
    args: argparse.Namespace, model: LatentVideoGenerator, data: accuracy.LabeledData
) -> tuple[nn.Module, Path]:
    """Load or train the classifier for the dataset and the VAE; return it with its file."""
    k, device = len(data.classes), next(model.parameters()).device
    vae_sha256 = (model.backbone_source or {}).get('sha256')
    digest = classifier_digest(
        data.train_config, k, args.classifier_steps, CLASSIFIER_SEED, vae_sha256, data.train_files
    )
    path = args.classifier or args.out.with_name(f'classifier-{digest[:12]}.pth')
    if path.is_file():
        print(f'reusing the classifier {path}')
        return load_classifier(path, digest).to(device), path
    print(f'training the classifier on {k} classes: {", ".join(data.classes[:10])}')
    start = time.time()
    reconstruct = functools.partial(accuracy.reconstruct, model.backbone)
    classifier = train_classifier(data.train, k, args.classifier_steps, CLASSIFIER_SEED, reconstruct, device)
    save_classifier(classifier, path, digest)
    print(f'trained in {time.time() - start:.0f} s, saved to {path}')
    return classifier, path


def measure(
    args: argparse.Namespace, model: LatentVideoGenerator, data: accuracy.LabeledData, classifier: nn.Module
) -> dict[str, np.ndarray]:
    """Return the confusion counts of held-out clips, their reconstructions and generated clips."""
    k = len(data.classes)
    options = {name: getattr(args, name) for name in ('num_inference_steps', 'guidance_scale', 'seed', 'batch_size')}
    shape = data.held_out[0]['inputs'].shape[1:]
    real = accuracy.real_clips(data, args.num, args.batch_size)
    counts = {'held-out clips': accuracy.judge(classifier, real, k)}
    real = accuracy.real_clips(data, args.num, args.batch_size)
    counts['reconstructions'] = accuracy.judge(classifier, accuracy.reconstructions(model.backbone, real), k)
    print(f'generating {args.num} videos')
    made = accuracy.generated_clips(model, args.num, shape, **options)
    counts['generated'] = accuracy.judge(classifier, made, k)
    return counts


def provenance(args: argparse.Namespace, model: LatentVideoGenerator, data: accuracy.LabeledData) -> dict[str, Any]:
    """Return the config, data, weights and versions behind the accuracies."""
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
    data = accuracy.build_labeled_data(cfg, args.num)
    model = load_generator(cfg, args.checkpoint, args.raw_weights)
    accuracy.check_generator(model, data.classes)
    check_sampler(args.num_inference_steps, args.guidance_scale)  # before the classifier is trained
    check_guidance(args.guidance_scale, model.head.null_label, model.class_dropout)
    check_writable(args.out)
    facts = provenance(args, model, data)  # before a run in progress deletes this checkpoint

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
        print('The classifier is not better than chance, so these numbers are meaningless. Increase --classifier-steps')
    record = {'accuracy': {**results, 'chance': chance}, 'classifier': judged_by, **facts}
    write_json(args.out, record)
    figure = args.out.with_suffix('.png')
    titles = [f'{name}: {100 * result["accuracy"]:.1f} %' for name, result in results.items()]
    Image.fromarray(draw_confusions(list(counts.values()), titles, data.classes)).save(figure)
    print(f'written: {args.out}, {figure}')

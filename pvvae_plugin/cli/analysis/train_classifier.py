"""Train a small classifier on the labeled clips of a config, for the metrics ClassAccuracy and ProxyFVD.

    pvvae train-classifier dit_demo --out work_dirs/classifier.pth
    python tools/analysis/train_classifier.py configs/dit_demo.py --out work_dirs/classifier.pth

The classifier is trained on training clips with slight blur and noise, not on VAE reconstructions, so one file serves
for all VAEs and generators. An existing file is reused; it is rejected if it was trained with other data or steps.
(class_accuracy.py trains a separate classifier per VAE, which tolerates the artifacts of that VAE.)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from mmengine.registry import init_default_scope

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.evaluation import class_accuracy as accuracy
from pvvae_plugin.evaluation.motion_classifier import (
    classifier_digest,
    load_classifier,
    save_classifier,
    train_classifier,
)

HELD_OUT = 700  # clips


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config whose train_dataloader.dataset has labeled clips')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.pth', help='file for the weights')
    parser.add_argument('--steps', type=int, default=1200, help='training steps of 32 clips (default: 1200)')
    parser.add_argument('--seed', type=int, default=0, help='seed of weights and clip order (default: 0)')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f'--steps must be a positive integer, got {args.steps}')
    if args.out.is_dir():
        parser.error(f'--out {args.out} is a folder; give a file')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    data = accuracy.build_labeled_data(cfg, HELD_OUT)
    digest = classifier_digest(data.train_config, len(data.classes), args.steps, args.seed, files=data.train_files)
    if args.out.is_file():
        classifier = load_classifier(args.out, digest)
        print(f'reusing the classifier {args.out}')
    else:
        print(f'training on {len(data.classes)} classes: {", ".join(data.classes[:10])}')
        start = time.time()
        classifier = train_classifier(data.train, len(data.classes), args.steps, args.seed)
        save_classifier(classifier, args.out, digest)
        print(f'trained in {time.time() - start:.0f} s, saved to {args.out}')
    counts = accuracy.judge(classifier, accuracy.real_clips(data, HELD_OUT, batch_size=32), len(data.classes))
    found = accuracy.summarize(counts, data.classes)
    low, high = found['interval_95']
    print(f'held-out clips recognized: {found["accuracy"]:.1%} of {found["num"]} ({low:.1%} to {high:.1%})')

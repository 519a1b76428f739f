"""Print a config as a run sees it: inheritance resolved, overrides applied.

    pvvae print-config dit_demo
    python tools/analysis/print_config.py configs/pvvae_ucf101_decoder.py
    python tools/analysis/print_config.py dit_demo --cfg-options model.head.depth=6 --out my_dit.py

A config is a path, or one of ours by name: dit_demo, dit_demo.py or pvvae_plugin::dit_demo.py. What is printed, and
what --out writes, is a config without inheritance that any script here takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmengine.config import Config

from pvvae_plugin.config import add_override_argument, read_config


def resolved(config: str, overrides: dict | None = None) -> Config:
    """A config with everything applied.

    Args:
        config: Path, name, or ``'pvvae_plugin::NAME.py'``.
        overrides: Values by dotted key, as ``--cfg-options`` gives them.

    Raises:
        FileNotFoundError: If there is no such config, naming ours.
        ValueError: If an override would change nothing.
    """
    return read_config(config, overrides)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of a config, or one of ours by name')
    add_override_argument(parser)
    parser.add_argument('--out', type=Path, metavar='FILE', help='write it to this .py file instead of printing it')
    args = parser.parse_args(argv)
    if args.out and args.out.suffix != '.py':
        parser.error(f'--out takes the name of a .py file, got {args.out}')
    try:
        text = resolved(args.config, args.cfg_options).pretty_text
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)
        print(f'{args.config} written to {args.out}')
    else:
        print(text, end='')

"""Print a config with inheritance resolved and overrides applied.

    pvvae print-config dit_demo
    python tools/analysis/print_config.py configs/pvvae_ucf101_decoder.py
    python tools/analysis/print_config.py dit_demo --cfg-options model.head.depth=6 --out my_dit.py

CONFIG is a path, or the name of a config of this package: dit_demo, dit_demo.py or pvvae_plugin::dit_demo.py. The
output is a complete config without inheritance, which every command accepts.
"""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config


def resolved(config: str, overrides: dict | None = None) -> Config:
    """Return a config with inheritance and overrides applied.

    Args:
        config: Path, name, or ``'pvvae_plugin::NAME.py'``.
        overrides: Values by dotted key, as ``--cfg-options`` gives them.

    Raises:
        FileNotFoundError: If the config does not exist; the message suggests names.
        ValueError: If an override would change nothing.
    """
    return read_config(config, overrides)


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='path of a config, or name of a config of this package')
    add_override_argument(parser)
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='write the config to this .py file instead of printing it'
    )
    args = parser.parse_args(argv)
    if args.out and args.out.suffix != '.py':
        parser.error(f'--out must end in .py, got {args.out}')
    text = resolved(args.config, args.cfg_options).pretty_text
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)
        print(f'{args.config} written to {args.out}')
    else:
        print(text, end='')

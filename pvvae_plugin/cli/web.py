"""Serve a local web page to try a trained VAE and a generator.

pip install -e ".[web]"
pvvae web --vae pvvae_demo work_dirs/pvvae_demo
python tools/web_demo.py --vae configs/pvvae_demo.py work_dirs/quickstart \
    --generator configs/dit_demo.py work_dirs/quickstart_generator

Only this machine can reach the page, unless --host is set. Configs are code: load only configs you trust.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import suppress

from pvvae_plugin.apis import VideoAutoencoderInferencer, VideoGeneratorInferencer
from pvvae_plugin.apis.web_page import MAX_UPLOAD, WebPage, build_page
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import clip_geometry
from pvvae_plugin.config.config_file import read_config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        '--vae',
        nargs='+',
        metavar='MODEL',
        help='config and checkpoint (or work directory), or folder of an exported VAE',
    )
    parser.add_argument(
        '--generator', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='config and checkpoint of a generator'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help="size of uploads (default: the config's, or 256)"
    )
    parser.add_argument('--num-frames', type=int, metavar='T', help="frames per upload (default: the config's, or 17)")
    parser.add_argument('--host', default='127.0.0.1', help='address to bind (default: 127.0.0.1, only this machine)')
    parser.add_argument('--port', type=int, default=7860, help='port (default: 7860)')
    args = parser.parse_args(argv)
    if not (args.vae or args.generator):
        parser.error('give --vae, --generator, or both')
    if args.vae and len(args.vae) > 2:
        parser.error(f'--vae takes a folder, or a config and a checkpoint, got {len(args.vae)} values')
    return args


def geometry(args: argparse.Namespace) -> tuple[int, tuple[int, int]]:
    """Return the number of frames and the size (height, width) of uploads."""
    num_frames, size = args.num_frames, args.size
    if args.vae and len(args.vae) == 2:
        with suppress(ValueError):  # the config does not define a clip size
            num_frames, size = clip_geometry(read_config(args.vae[0]), num_frames, size)
    return num_frames or 17, tuple(size or (256, 256))


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an orderly exit removes temporary files
    num_frames, size = geometry(args)
    page = WebPage(
        VideoAutoencoderInferencer(*args.vae) if args.vae else None,
        VideoGeneratorInferencer(*args.generator) if args.generator else None,
        size,
        num_frames,
    )
    blocks = build_page(page)
    try:
        blocks.launch(
            server_name=args.host, server_port=args.port, share=False, max_file_size=MAX_UPLOAD, show_error=True
        )
    except OSError as error:
        sys.exit(f'error: cannot serve on --host {args.host} --port {args.port} ({error}); choose another port')

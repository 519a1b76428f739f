"""Command ``pvvae benchmark NAME``: benchmarks of speed and memory."""

from __future__ import annotations

from pvvae_plugin.cli.console import Command, run_command

BENCHMARKS = {
    'all': Command('all', 'every benchmark on one device, in one table'),
    'vae': Command('vae', "encoding and decoding, compared with diffusers' AutoencoderKLWan"),
    'train-step': Command('train_step', 'a training step with and without dropped groups'),
    'stream': Command('stream', 'encoding and decoding in chunks, by length of the video'),
    'dit': Command('dit', "LatentDiT, compared with diffusers' LatteTransformer3DModel"),
    'data': Command('data', 'the training loader, compared with decord alone'),
    'video-metrics': Command('video_metrics', 'the arithmetic of FVD and KVD'),
}


def main(argv: list[str]) -> int | None:
    """Run a benchmark and return the exit code."""
    return run_command('pvvae benchmark', __name__, {'benchmarks': BENCHMARKS}, argv)

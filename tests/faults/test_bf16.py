"""A run in bfloat16 follows the one in float32."""

from __future__ import annotations

import numpy as np
import pytest
from runs import VAE, last, run, train_command, write_config

pytestmark = pytest.mark.long
STEPS, WINDOW = 120, 20
BAND = 0.02  # of means over WINDOW iterations; the largest that was measured is in docs/reliability.md


def test_bf16_stays_within_the_band_of_float32(tmp_path):
    config = write_config(tmp_path / 'config.py', VAE)
    options = (f'train_cfg.max_iters={STEPS}', f'train_cfg.val_interval={STEPS}', 'train_dataloader.batch_size=4')
    curves = {}
    for name, flags in (('float32', ()), ('bfloat16', ('--amp',))):
        run(train_command(config, tmp_path / name, *flags, '--cfg-options', *options))
        scalars = last(tmp_path / name, STEPS)['message_hub']['log_scalars']
        curves[name] = {key: scalars[f'train/{key}'].data[0] for key in ('loss_mse', 'loss_diff', 'kl')}
    for key, exact in curves['float32'].items():
        means = [curve.reshape(-1, WINDOW).mean(1) for curve in (exact, curves['bfloat16'][key])]
        deviation = np.abs(means[1] / means[0] - 1)
        print(f'{key}: {means[0][0]:.4g} to {means[0][-1]:.4g}, bfloat16 deviates by {deviation.max():.2%} at most')
        assert means[0][-1] < 0.9 * means[0][0] or key == 'kl', 'it learns nothing, so the comparison says nothing'
        assert 0 < deviation.max() < BAND, key

import math

import numpy as np
import pytest
import torch

from pvvae_plugin.functional.image_quality import mse_per_frame, psnr, ssim


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 3, 13, 15, generator=generator)
    b = (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    return a, b


def brute_force_ssim(x, y, data_range):
    """Compute SSIM of one channel (H, W) from its definition, window by window."""
    ax = np.arange(11) - 5
    window = np.exp(-(ax[:, None] ** 2 + ax[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


def test_mse_and_psnr_match_loops(pair):
    a, b = pair
    for n in range(2):
        for t in range(3):
            x, y = a[n, :, t].double().flatten().tolist(), b[n, :, t].double().flatten().tolist()
            mse = math.fsum((p - q) ** 2 for p, q in zip(x, y, strict=True)) / len(x)
            assert mse_per_frame(a, b)[n, t].item() == pytest.approx(mse, rel=1e-12)
            assert psnr(a, b, 1.0)[n, t].item() == pytest.approx(10 * math.log10(1 / mse), rel=1e-12)


def test_ssim_matches_windows_by_hand(pair):
    a, b = pair
    ours = ssim(a, b, 1.0)
    for n in range(2):
        for t in range(3):
            per_channel = [
                brute_force_ssim(a[n, c, t].double().numpy(), b[n, c, t].double().numpy(), 1.0) for c in range(3)
            ]
            assert ours[n, t].item() == pytest.approx(np.mean(per_channel), rel=1e-10)


def test_zeros_against_ones():
    zeros, ones = torch.zeros(8, 3, 3, 16, 16), torch.ones(8, 3, 3, 16, 16)
    assert psnr(zeros, ones, 1.0).abs().max() < 1e-12
    expected = 1e-4 / (1 + 1e-4)  # luminance C1 / (1 + C1); contrast and structure are 1
    torch.testing.assert_close(ssim(zeros, ones, 1.0), torch.full((8, 3), expected, dtype=torch.float64))
    assert expected == pytest.approx(9.999e-5, rel=1e-4)


def test_nearly_constant_float32_frames_keep_their_accuracy():
    noise = torch.randn(1, 1, 1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a = (0.9 + 1e-4 * noise).float()
    b = (0.9 - 1e-4 * noise).float()
    exact = brute_force_ssim(a[0, 0, 0].double().numpy(), b[0, 0, 0].double().numpy(), 1.0)
    assert ssim(a, b, 1.0).item() == pytest.approx(exact, abs=1e-12)


def test_psnr_does_not_depend_on_the_scale_and_identical_frames_give_100_db(pair):
    a, b = pair
    torch.testing.assert_close(psnr(a.double() * 2 - 1, b.double() * 2 - 1, 2.0), psnr(a, b, 1.0))
    assert psnr(a, a, 1.0).unique().tolist() == [100.0]
    assert psnr(a, a, 2.0).unique().tolist() == [100.0]
    torch.testing.assert_close(ssim(a, a, 1.0), torch.ones(2, 3, dtype=torch.float64))


def test_errors_name_the_value():
    small = torch.zeros(1, 3, 1, 10, 32)
    with pytest.raises(ValueError, match='10 x 32'):
        ssim(small, small, 1.0)
    with pytest.raises(ValueError, match=r'\(1, 3, 1, 10, 32\) and \(1, 3, 10, 32\)'):
        psnr(small, small[:, :, 0], 1.0)
    with pytest.raises(ValueError, match='got 0'):
        psnr(small, small, 0)

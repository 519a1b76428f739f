"""The web page: what its buttons do, and that a browser can press them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.apis import VideoAutoencoderInferencer, VideoGeneratorInferencer
from pvvae_plugin.apis.web_page import WebPage, build_page
from pvvae_plugin.cli import web
from pvvae_plugin.datasets import open_video
from pvvae_plugin.registry import MODELS


@pytest.fixture
def page(tmp_path):
    """Of the demo's VAE and generator, not trained."""
    cfg = Config.fromfile(config_path('dit_demo.py'))
    cfg.model.backbone_checkpoint = None
    model = MODELS.build(cfg.model)
    state = {f'head.{key}': tensor for key, tensor in model.head.state_dict().items()}
    state |= {f'backbone.latent_{key}': getattr(model.backbone, f'latent_{key}') for key in ('mean', 'std')}
    torch.save({'state_dict': state}, tmp_path / 'iter_1.pth')
    generator = VideoGeneratorInferencer(cfg, tmp_path, device='cpu')
    return WebPage(VideoAutoencoderInferencer(model.backbone, device='cpu'), generator, (32, 32), 9)


def test_an_upload_is_reconstructed_and_finished(page, tmp_path, write_video):
    path = write_video(tmp_path / 'a.mp4', num_frames=20)
    shown, strip, text = page.reconstruct(path)
    assert len(open_video(shown)) == 9
    assert strip.dtype == np.uint8 and strip.ndim == 3
    assert text.startswith('PSNR ') and float(text.split()[1]) > 0
    shown, _, text = page.predict(path, 2)
    assert len(open_video(shown)) == 9
    assert text.startswith('5 of 9 frames observed')
    assert len(open_video(page.reconstruct(write_video(tmp_path / 'b.mp4', num_frames=7))[0])) == 5


def test_videos_are_generated_and_come_again(page):
    first, second = (page.generate(['zoom', 'orbit'], 3, 2, 2.0, 5) for _ in range(2))
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[1], page.generate(['zoom', 'orbit'], 3, 2, 2.0, 6)[1])
    assert page.classes[:2] == ['linear', 'bounce']


def test_guidance_is_offered_only_if_it_was_trained(page):
    assert page.offers_guidance
    page.generator.model.class_dropout = 0.0
    assert not page.offers_guidance
    with pytest.raises(ValueError, match='guidance_scale=2.0 .* class_dropout=0'):
        page.generate(['zoom'], 1, 2, 2.0, 5)


def test_mistakes_are_said(page, tmp_path, write_video):
    with pytest.raises(ValueError, match='upload a video or an image first'):
        page.reconstruct(None)
    with pytest.raises(ValueError, match=r'all 1 groups \(3 frames\) are observed'):
        page.predict(write_video(tmp_path / 'a.mp4', num_frames=3), 1)
    with pytest.raises(ValueError, match='between 1 and 16, got 17'):
        page.generate([], 17, 2, 2.0, 0)
    with pytest.raises(ValueError, match='the page has no model'):
        WebPage(None, None)
    with pytest.raises(ValueError, match='size must be divisible by the spatial ratio 8, got 30'):
        WebPage(page.autoencoder, None, (32, 30), 9)
    with pytest.raises(ValueError, match='e.g. 5 or 9'):
        WebPage(page.autoencoder, None, (32, 32), 8)


def test_arguments_of_the_script(capsys):
    assert web.geometry(web.parse_args(['--vae', config_path('pvvae_demo.py'), 'x'])) == (9, (32, 32))
    assert web.geometry(web.parse_args(['--vae', 'folder', '--num-frames', '5'])) == (5, (256, 256))
    assert web.parse_args(['--vae', 'folder']).host == '127.0.0.1'
    with pytest.raises(SystemExit):
        web.parse_args([])
    assert 'give --vae, --generator, or both' in capsys.readouterr().err


def test_in_a_browser(page, tmp_path, write_video):
    """Where gradio, playwright and Chromium are installed."""
    pytest.importorskip('gradio')
    sync_api = pytest.importorskip('playwright.sync_api')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if chromium is None:
        pytest.skip('no Chromium')
    upload = write_video(tmp_path / 'a.mp4', num_frames=20)
    (tmp_path / 'text.mp4').write_text('no video')
    blocks = build_page(page)
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, share=False)
    try:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
            tab = browser.new_page()
            tab.goto(url)

            def press(name: str, file: str | None, expected: str) -> None:
                tab.get_by_role('tab', name=name).click()
                panel = tab.locator('[role=tabpanel]:visible')
                if file:
                    panel.locator('input[type=file]').first.set_input_files(file)
                    panel.get_by_text(Path(file).stem).first.wait_for()
                panel.get_by_role('button', name=name).click()
                tab.wait_for_function(
                    'text => [...document.querySelectorAll("textarea, .toast-body")]'
                    '.some(e => ((e.value || "") + e.innerText).includes(text))',
                    arg=expected,
                )

            press('Reconstruct', upload, 'PSNR')
            press('Predict', upload, '1 of 9 frames observed')
            assert tab.locator('[role=tabpanel]:visible video').count() == 1
            press('Generate', None, 'seed 0')
            tab.reload()
            press('Reconstruct', str(tmp_path / 'text.mp4'), 'text.mp4')  # the error names the file
            browser.close()
    finally:
        blocks.close()

"""The snippets of docs/sample.md run as pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import torch
from mmengine.config import Config
from PIL import Image

from pvvae_plugin import config_path
from pvvae_plugin.apis import write_clip
from pvvae_plugin.cli import export
from pvvae_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_runs_as_pasted(tmp_path, monkeypatch):
    """On runs that have not trained."""
    cfg = Config.fromfile(config_path('dit_demo.py'))
    cfg.model.backbone_checkpoint = None
    model = MODELS.build(cfg.model)
    states = {
        'quickstart': {f'backbone.{name}': tensor for name, tensor in model.backbone.state_dict().items()},
        'quickstart_generator': {
            **{f'head.{name}': tensor for name, tensor in model.head.state_dict().items()},
            **{f'backbone.latent_{name}': getattr(model.backbone, f'latent_{name}') for name in ('mean', 'std')},
        },
    }
    for name, state in states.items():
        (tmp_path / 'work_dirs' / name).mkdir(parents=True)
        torch.save({'state_dict': state}, tmp_path / 'work_dirs' / name / 'iter_1.pth')
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)

    text = (ROOT / 'docs' / 'sample.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', text, flags=re.DOTALL)
    variables: dict = {}
    for block in blocks[:2]:
        exec(block.replace('num_inference_steps=50', 'num_inference_steps=2'), variables)
    assert variables['latents'].shape == (1, 32, 3, 4, 4)
    assert Image.open('finished.png').size == (9 * 32, 32)
    assert [clip.shape for clip in variables['clips']] == [(9, 32, 32, 3)] * 2

    samples = tmp_path / 'work_dirs' / 'quickstart_generator' / 'samples'
    write_clip(samples / '00003_zoom.webm', variables['clips'][0], 8)
    (snippet,) = [
        s for s in re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S) if 'Inferencer' in s
    ]
    exec(snippet, scope := {})
    assert scope['finished'].shape == (9, 32, 32, 3)

    (command,) = re.findall(r'python tools/export_vae.py (.*)', text)
    export.main(shlex.split(command))
    exec(blocks[2], variables)
    assert (tmp_path / 'exported' / 'copy' / 'model.safetensors').is_file()

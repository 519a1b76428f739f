"""The VAE of docs/extend.md works as pasted, like the built-in ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper

from pvvae_plugin.apis import VideoAutoencoderInferencer
from pvvae_plugin.models import VideoVAE
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample

PAGE = Path(__file__).resolve().parents[3] / 'docs' / 'extend.md'


@pytest.fixture(scope='module')
def kind():
    (block,) = re.findall(r'```python\n(.*?)```', PAGE.read_text(), flags=re.DOTALL)
    exec(block, variables := {})
    yield variables['LastFrameVAE']
    for registry in (MODELS, MODELS.parent):
        registry._module_dict.pop('LastFrameVAE')


def test_it_trains_predictively(kind):
    loss = {'type': 'PredictiveReconLoss', 'lpips_weight': 0.0}
    algorithm = MODELS.build({'type': 'VideoAutoencoder', 'backbone': {'type': 'LastFrameVAE'}, 'loss': loss})
    token = algorithm.backbone.padding_token.detach().clone()
    optim = OptimWrapper(torch.optim.Adam(algorithm.parameters(), lr=1e-2))
    samples = [VideoDataSample(metainfo={'num_observed_groups': k, 'draw_key': k}) for k in (1, 3)]
    clips = [torch.full((3, 9, 16, 16), 200, dtype=torch.uint8)] * 2
    losses = [algorithm.train_step({'inputs': clips, 'data_samples': samples}, optim)['loss'].item() for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]
    assert (algorithm.backbone.padding_token - token).abs().min() > 0
    (sample,) = algorithm.eval()(torch.zeros(1, 3, 9, 16, 16), [VideoDataSample()], mode='predict')
    assert sorted(sample.predictions) == [1, 2]


@torch.no_grad()
def test_it_is_causal_exported_and_used(kind, tmp_path):
    vae, video = kind().eval(), torch.rand(1, 3, 9, 16, 24) * 2 - 1
    torch.testing.assert_close(vae.encode(video[:, :, :5]).mean, vae.encode(video).mean[:, :, :2])
    vae.save_pretrained(tmp_path)
    again = VideoVAE.from_pretrained(tmp_path)
    assert torch.equal(again.predict(video[:, :, :5], 9), vae.predict(video[:, :, :5], 9))
    assert VideoAutoencoderInferencer(again, device='cpu').reconstruct(video).shape == (9, 16, 24, 3)

"""The configuration of a test: which overrides count, and which hook draws."""

import pytest
import torch

from pvvae_plugin.cli import test

CONFIG = """
_base_ = 'pvvae_plugin::pvvae_demo.py'
test_evaluator = [dict(type='VideoReconstruction')]
custom_hooks = [dict(type='pvvae_plugin.PredictionVisualizationHook')]
"""


@pytest.fixture
def configure(tmp_path):
    def call(*arguments):
        (tmp_path / 'config.py').write_text(CONFIG)
        torch.save({'state_dict': {}, 'meta': {}}, tmp_path / 'vae.pth')
        paths = [str(tmp_path / 'config.py'), str(tmp_path / 'vae.pth'), '--work-dir', str(tmp_path)]
        return test.configure(test.parse_args([*paths, *arguments]))

    return call


def test_overrides_of_entries_that_are_not_used_are_rejected(configure):
    cfg = configure('--cfg-options', 'val_dataloader.dataset.length=3')
    assert cfg.test_dataloader.dataset.length == 3
    with pytest.raises(
        ValueError, match=r'defines test_evaluator, so val_evaluator.0.type .* give test_evaluator.0.type'
    ):
        configure('--cfg-options', 'val_evaluator.0.type=FlowLoss')


def test_drawing_hooks_are_found_by_scope(configure):
    assert configure('--show-dir', 'shown').custom_hooks[0].out_dir == 'shown'

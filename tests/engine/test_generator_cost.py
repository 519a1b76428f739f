"""Cost estimates of a generator, compared with a count by hand and with a real step."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from torch.autograd.graph import saved_tensors_hooks

from pvvae_plugin.cli.analysis import get_flops
from pvvae_plugin.engine.cost import backbone_cost, head_cost, peak_bytes
from pvvae_plugin.engine.hooks import cost_hook
from pvvae_plugin.registry import HOOKS, MODELS
from pvvae_plugin.structures import VideoDataSample

ROOT = Path(__file__).resolve().parents[2]
C, T, H, W = LATENTS = (4, 3, 4, 6)
D, DEPTH = 32, 4


def head_config(**options):
    sizes = {'latent_channels': C, 'num_classes': 3, 'depth': DEPTH, 'hidden_size': D, 'num_heads': 2}
    return {'type': 'LatentDiT', **sizes, **options}


@pytest.mark.parametrize('attention', ['factorized', 'joint'])
def test_operations_of_the_head_are_its_matrix_products_and_attention(attention):
    tokens, places = T * H * W, H * W
    within, across = 4 * T * places**2 * D, 4 * places * T**2 * D  # queries x keys, weights x values
    of_attention = DEPTH / 2 * (within + across) if attention == 'factorized' else DEPTH * 4 * tokens**2 * D
    of_block = 2 * tokens * D * (3 * D + D + 4 * D + 4 * D) + 2 * D * 6 * D  # qkv, proj, up, down; modulation
    ends = 2 * tokens * C * D * 2 + 2 * D * 2 * D + 2 * (256 * D + D * D)  # embed and out; modulation; time
    cost = head_cost(head_config(attention=attention), LATENTS)
    assert cost.flops == DEPTH * of_block + of_attention + ends
    assert cost.parameters == sum(p.numel() for p in MODELS.build(head_config()).parameters())


def test_an_unconditional_head_is_traced_without_labels():
    assert head_cost(head_config(num_classes=None), LATENTS).flops == head_cost(head_config(), LATENTS).flops


@pytest.mark.parametrize(('dtype', 'share'), [(torch.float32, 1.0), (torch.bfloat16, 0.6)])
def test_activations_are_those_that_a_real_step_keeps(dtype, share):
    head = MODELS.build(head_config(hidden_size=128, num_heads=4))
    own = {p.untyped_storage()._cdata for p in head.parameters()}
    # Autocast also keeps bfloat16 copies of the weights, once for all clips.
    layers = [m for m in head.modules() if isinstance(m, torch.nn.Linear)]
    copies = 2 * sum(m.weight.numel() for m in layers if m not in head.time_embedding.mlp.children())
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    context = nullcontext() if dtype == torch.float32 else torch.autocast('cpu', dtype)
    with saved_tensors_hooks(keep, lambda tensor: tensor), context:
        head(torch.randn(4, *LATENTS), torch.rand(4), torch.zeros(4, dtype=torch.long))
    total = sum(storage.nbytes() for storage in kept.values()) - (copies if dtype == torch.bfloat16 else 0)
    estimate = head_cost(head_config(hidden_size=128, num_heads=4), LATENTS).activation_bytes * share
    assert total / 4 == pytest.approx(estimate, rel=0.08)


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_peak_memory_counts_what_is_alive_at_once(device):
    layer = torch.nn.Linear(1000, 1000, device=device)
    x = torch.empty(1000, device=device)

    def call():
        y = x + layer.weight[0]  # views of weights are not counted either
        z = y.view(10, 100) + 1  # a view allocates nothing
        del y
        w = torch.nn.functional.rms_norm(z, (100,))  # counted as a fused kernel
        del z, w

    assert peak_bytes(layer, call) == 2 * 4000


def test_peak_of_encoding_lies_between_one_block_and_all_of_them(tiny_vae_config):
    cost = backbone_cost(tiny_vae_config, 5, 32, 32)
    largest = 4 * tiny_vae_config['encoder_widths'][0] * 5 * 32 * 32
    assert 2 * largest < cost.encode_peak_bytes < cost.encode_activation_bytes
    assert cost.latent_shape == (4, 2, 2, 2)


class Runner:
    """Minimal runner for the hook. The device reaches 1 TFLOP/s in matrix products and half in convolutions."""

    def __init__(self, tiny_vae_config, inputs, batch_size, monkeypatch):
        self.matmul_rates = {torch.float32: 1e12, torch.bfloat16: 2e12}
        monkeypatch.setattr(cost_hook, 'matmul_rate', lambda device, dtype: self.matmul_rates[dtype])
        monkeypatch.setattr(cost_hook, 'convolution_rate', lambda device, dtype: 0.5e12)
        config = {'type': 'LatentVideoGenerator', 'backbone': tiny_vae_config, 'backbone_checkpoint': None}
        self.cfg = ConfigDict(model={**config, 'head': head_config()}, optim_wrapper={'head': {'dtype': 'float32'}})
        self.model = MODELS.build(self.cfg.model)
        dataset = [{'inputs': inputs, 'data_samples': VideoDataSample()}]
        self.train_dataloader = SimpleNamespace(dataset=dataset, batch_size=batch_size)
        self.hooks, self.iter, self.max_iters, self.lines = [], 0, 10**9, []
        self.logger = SimpleNamespace(info=self.lines.append, warning=self.lines.append)

    def report(self):
        HOOKS.build({'type': 'CostEstimateHook'}).before_train(self)
        return self.lines[0]


def weights(runner):
    """Return the bytes of weights, gradients and two moments."""
    counts = [sum(p.numel() for p in part.parameters()) for part in (runner.model.backbone, runner.model.head)]
    return 4 * counts[0] + 16 * counts[1]


def test_the_estimate_of_a_generator_that_encodes_as_it_goes(tiny_vae_config, monkeypatch):
    runner = Runner(tiny_vae_config, torch.zeros(3, 5, 32, 32, dtype=torch.uint8), 1000, monkeypatch)
    vae, head = backbone_cost(tiny_vae_config, 5, 32, 32), head_cost(head_config(), (4, 2, 2, 2))
    report = runner.report()
    assert f'{3000 * head.flops / 1e9:.1f} GFLOP per step in the head; 1.0 TFLOP/s in a matrix product' in report
    assert f'{1000 * vae.encode_flops / 1e9:.1f} GFLOP per step in the encoder; 500.0 GFLOP/s' in report
    memory = weights(runner) + 1000 * vae.encode_peak_bytes
    assert f'about {memory / 2**20:.1f} MiB, including {1000 * vae.encode_peak_bytes / 2**20:.1f} MiB' in report
    assert 'activations of the encoder' in report
    seconds = 1e9 * 1000 * (3 * head.flops / 1e12 + vae.encode_flops / 0.5e12)
    assert f'about {seconds / 86400:.1f} days' in report


def test_the_estimate_of_a_generator_on_cached_latents(tiny_vae_config, monkeypatch):
    runner = Runner(tiny_vae_config, torch.zeros(2 * C, *LATENTS[1:]), 1000, monkeypatch)
    head = head_cost(head_config(), LATENTS)
    report = runner.report()
    assert 'latents of 4 x 3 x 4 x 6 from a cache' in report
    assert 'encoder' not in report
    kept = 1000 * head.activation_bytes
    assert (
        f'{(weights(runner) + kept) / 2**20:.1f} MiB, including {kept / 2**20:.1f} MiB for activations of the head'
        in report
    )
    assert f'about {1e9 * 3000 * head.flops / 1e12 / 86400:.1f} days' in report


def test_emulated_bfloat16_is_reported_and_not_timed(tiny_vae_config, monkeypatch):
    runner = Runner(tiny_vae_config, torch.zeros(2 * C, *LATENTS[1:]), 1000, monkeypatch)
    runner.cfg.optim_wrapper.head.dtype = 'bfloat16'
    assert 'days' in runner.report() and len(runner.lines) == 1
    runner.lines.clear()
    runner.matmul_rates[torch.bfloat16] = 2e8
    report = runner.report()
    assert '200.0 MFLOP/s in a matrix product' in report
    assert 'days' not in report and 'not estimated' in report
    assert 'bfloat16 is slower than float32' in runner.lines[1] and '1.0 TFLOP/s' in runner.lines[1]
    assert 'optim_wrapper.head.dtype=float32' in runner.lines[1] and '--amp' in runner.lines[1]


@pytest.mark.parametrize('saves_memory', [False, True])
def test_the_advice_on_memory_names_only_what_would_help(saves_memory, tiny_vae_config, monkeypatch):
    runner = Runner(tiny_vae_config, torch.zeros(2 * C, *LATENTS[1:]), 1000, monkeypatch)
    runner.cfg.model.head.gradient_checkpointing = saves_memory
    runner.cfg.optim_wrapper.head.dtype = 'bfloat16' if saves_memory else 'float32'
    monkeypatch.setattr(cost_hook, '_available_memory', lambda device: 0)
    runner.report()
    (warning,) = (line for line in runner.lines if 'are available' in line)
    assert 'train_dataloader.batch_size' in warning
    assert ('model.head.gradient_checkpointing=True' in warning) == (not saves_memory)
    assert ('--amp' in warning) == (not saves_memory)


@pytest.mark.parametrize(('config', 'clip'), [('pvvae_demo', '9 x 32 x 32'), ('pvvae_folder64', '17 x 64 x 64')])
def test_get_flops_counts_the_clips_of_the_config(config, clip, capsys):
    get_flops.main([config])
    assert f'one clip of {clip}:' in capsys.readouterr().out


def test_get_flops_needs_a_clip_that_the_config_does_not_set(tiny_vae_config, tmp_path):
    config = tmp_path / 'vae.py'
    config.write_text(f'model = dict(backbone={tiny_vae_config})')
    with pytest.raises(ValueError, match=r'vae\.py .* pass --clip T H W'):
        get_flops.main([str(config)])


def test_get_flops_prints_the_head_of_a_generator(tiny_vae_config, tmp_path, capsys):
    config = tmp_path / 'generator.py'
    config.write_text(f'model = dict(backbone={tiny_vae_config}, head={head_config(hidden_size=96)})')
    get_flops.main([str(config), '--clip', '9', '64', '96'])
    out = capsys.readouterr().out
    vae, head = out.index('PredictiveVAE of'), out.index('LatentDiT of')
    assert vae < head
    assert 'latents of 4 x 3 x 4 x 6 from one clip of 9 x 64 x 96' in out[head:]
    cost = head_cost(head_config(hidden_size=96), LATENTS)
    assert f'{cost.parameters / 1e6:.2f} M' in out[head:]
    assert f'{cost.flops / 1e9:.2f} GFLOP' in out[head:]

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop
from torch import nn

from pvvae_plugin.config import read_config
from pvvae_plugin.engine.clip_train_loop import to_numbers
from pvvae_plugin.engine.cost import backbone_cost
from pvvae_plugin.engine.hooks import run_record_hook
from pvvae_plugin.models.vae.layers import Upsample
from pvvae_plugin.registry import HOOKS, MODELS, OPTIM_WRAPPERS


class Runner:
    """Minimal runner for hooks."""

    def __init__(self, model, optim_wrapper=None):
        self.model = model
        self.optim_wrapper = optim_wrapper
        self.iter = 0
        self._resume = False


def make_model(tiny_vae_config, **options):
    return MODELS.build(
        {
            'type': 'VideoAutoencoder',
            'backbone': tiny_vae_config,
            'loss': {'type': 'PredictiveReconLoss'},
            **options,
        }
    )


def sgd(model, **options):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return OptimWrapper(torch.optim.SGD(parameters, lr=0.1), **options)


def perturb(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))


def test_ema_follows_the_recursion_and_only_what_is_trained(tiny_vae_config):
    model = make_model(tiny_vae_config, freeze_encoder=True)
    runner = Runner(model, sgd(model))
    hook = HOOKS.build({'type': 'TrainedWeightsEMAHook', 'decay': 0.9})
    hook.before_train(runner)
    name = 'backbone.decoder.out.weight'
    expected = model.backbone.last_layer.detach().double().clone()
    for step in range(30):
        perturb(model)
        runner.iter = step
        hook.after_train_iter(runner, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.backbone.last_layer.detach().double()
    torch.testing.assert_close(hook.averages[name].double(), expected, rtol=1e-5, atol=1e-5)
    assert all(key.startswith('backbone.decoder.') for key in hook.averages)


def test_ema_waits_for_accumulated_gradients(tiny_vae_config):
    model = make_model(tiny_vae_config)
    optim = sgd(model, accumulative_counts=2)
    runner = Runner(model, optim)
    hook = HOOKS.build({'type': 'TrainedWeightsEMAHook'})
    hook.before_train(runner)
    before = {k: v.clone() for k, v in hook.averages.items()}
    perturb(model)
    loss = model.backbone.last_layer.sum()
    optim.update_params(loss)
    hook.after_train_iter(runner, 0)
    assert all(torch.equal(hook.averages[k], v) for k, v in before.items())
    optim.update_params(model.backbone.last_layer.sum())
    hook.after_train_iter(runner, 1)
    assert not torch.equal(hook.averages['backbone.decoder.out.weight'], before['backbone.decoder.out.weight'])


def test_ema_is_validated_saved_and_resumed(tiny_vae_config):
    model = make_model(tiny_vae_config)
    runner = Runner(model, sgd(model))
    hook = HOOKS.build({'type': 'TrainedWeightsEMAHook'})
    hook.before_train(runner)
    average = model.backbone.last_layer.detach().clone()
    perturb(model)
    raw = model.backbone.last_layer.detach().clone()

    hook.before_val_epoch(runner)
    assert torch.equal(model.backbone.last_layer, average)
    hook.after_val_epoch(runner)
    assert torch.equal(model.backbone.last_layer, raw)

    checkpoint = {'state_dict': dict(model.state_dict())}
    hook.before_save_checkpoint(runner, checkpoint)
    checkpoint = copy.deepcopy(checkpoint)
    assert torch.equal(checkpoint['state_dict']['backbone.decoder.out.weight'], average)

    resumed = make_model(tiny_vae_config)
    other = Runner(resumed, sgd(resumed))
    other._resume = True
    again = HOOKS.build({'type': 'TrainedWeightsEMAHook'})
    again.after_load_checkpoint(other, checkpoint)
    resumed.load_state_dict(checkpoint['state_dict'])
    again.before_train(other)
    assert torch.equal(resumed.backbone.last_layer, raw)
    assert torch.equal(again.averages['backbone.decoder.out.weight'], average)


def test_checkpoint_of_another_network_is_refused(tiny_vae_config):
    runner = Runner(make_model(tiny_vae_config))
    hook = HOOKS.build({'type': 'StartCheckHook'})
    state = dict(runner.model.state_dict())
    hook.after_load_checkpoint(runner, {'state_dict': dict(state)})
    wrapped = {'state_dict': {f'_orig_mod.module.{name}': tensor for name, tensor in state.items()}}
    hook.after_load_checkpoint(runner, wrapped)  # of a compiled or data-parallel model
    assert wrapped['state_dict'].keys() == state.keys()
    del state['backbone.padding_token']
    state['backbone.decoder.out.bias'] = torch.zeros(7)
    state['backbone.surplus'] = torch.zeros(7)
    with pytest.raises(ValueError, match=r'1 weights missing \(backbone.padding_token\), 1 of another.*1 unknown'):
        hook.after_load_checkpoint(runner, {'state_dict': state})


class Loop(BaseLoop):
    """Training loop that has started."""

    def __init__(self):
        """Without a runner."""

    def run(self):
        raise NotImplementedError


def test_training_with_noise_for_padding_may_start_where_it_was_learned(tiny_vae_config):
    learned = {'state_dict': dict(make_model(tiny_vae_config).state_dict())}
    runner = Runner(make_model({**tiny_vae_config, 'padding': 'gaussian'}))
    hook = HOOKS.build({'type': 'StartCheckHook'})
    runner._resume, runner._train_loop, runner.logger = False, Loop(), MMLogger.get_current_instance()
    given = {'state_dict': dict(learned['state_dict'])}
    hook.after_load_checkpoint(runner, given)
    assert learned['state_dict'].keys() - given['state_dict'].keys() == {'backbone.padding_token'}
    # For resume and test, the checkpoint must match the network.
    for resume, loop in ((True, Loop()), (False, {'type': 'ClipTrainLoop'})):
        runner._resume, runner._train_loop = resume, loop
        with pytest.raises(ValueError, match=r'1 unknown \(backbone.padding_token\)'):
            hook.after_load_checkpoint(runner, {'state_dict': dict(learned['state_dict'])})


def test_mmengine_checkpoints_load_safely_and_strangers_pickles_do_not(tmp_path):
    buffer = HistoryBuffer([0.5, np.float64(0.25)], [1, 1])
    torch.save({'message_hub': {'log_scalars': {'train/loss': buffer}}}, tmp_path / 'good.pth')
    loaded = torch.load(tmp_path / 'good.pth', weights_only=True)
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == pytest.approx(0.375)

    class Malicious:
        def __reduce__(self):
            return (exec, (f'open({str(tmp_path / "owned")!r}, "w").close()',))

    class Prying:
        def __reduce__(self):
            return (getattr, (HistoryBuffer, '__init__'))

    for stranger in (Malicious(), Prying()):
        torch.save({'state_dict': stranger}, tmp_path / 'bad.pth')
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / 'bad.pth', weights_only=True)
    assert not (tmp_path / 'owned').exists()


def test_cost_of_a_convolution_only_network_against_counting_by_hand(tiny_vae_config):
    tiny_vae_config['attention'] = False
    cost = backbone_cost(tiny_vae_config, 5, 32, 32)
    vae = MODELS.build(tiny_vae_config)
    total = {'encoder': 0, 'decoder': 0}

    def count(part):
        def hook(module, inputs, output):
            taps = module.weight[0, 0].numel()
            if inputs[0].shape[2] == 1:  # a single frame uses one temporal tap
                taps //= module.kernel_size[0]
            total[part] += 2 * taps * module.in_channels * output.numel()

        return hook

    def count_upsampling(module, inputs, output):  # nine taps are merged into four
        total['decoder'] += 2 * 4 * module.conv.in_channels * output.numel()

    for part in total:
        for module in getattr(vae, part).modules():
            if isinstance(module, Upsample):
                module.register_forward_hook(count_upsampling)
            if isinstance(module, torch.nn.Conv3d):
                module.register_forward_hook(count(part))
    with torch.no_grad():
        vae.decode(vae.encode(torch.zeros(1, 3, 5, 32, 32)).mode())
    assert (cost.encode_flops, cost.decode_flops) == (total['encoder'], total['decoder'])
    assert cost.parameters == sum(p.numel() for p in vae.parameters())
    checkpointed = backbone_cost(dict(tiny_vae_config, gradient_checkpointing=True), 5, 32, 32)
    assert 0 < checkpointed.encode_activation_bytes < cost.encode_activation_bytes
    assert 0 < checkpointed.decode_activation_bytes < cost.decode_activation_bytes


def test_cost_agrees_with_fvcore_attention_included(tiny_vae_config):
    from fvcore.nn import FlopCountAnalysis

    def attention_macs(inputs, outputs):
        n, heads, queries, width = inputs[0].type().sizes()
        keys, value_width = inputs[1].type().sizes()[-2], inputs[2].type().sizes()[-1]
        return n * heads * queries * keys * (width + value_width)

    class Roundtrip(torch.nn.Module):
        def __init__(self, vae):
            super().__init__()
            self.vae = vae

        def forward(self, x):
            return self.vae.decode(self.vae.encode(x).mode())

    cost = backbone_cost(tiny_vae_config, 5, 64, 64)
    analysis = FlopCountAnalysis(Roundtrip(MODELS.build(tiny_vae_config).eval()), torch.zeros(1, 3, 5, 64, 64))
    analysis.set_op_handle('aten::scaled_dot_product_attention', attention_macs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analysis.by_operator()
    macs = by_operator['conv'] + by_operator['scaled_dot_product_attention']
    assert 2 * macs == cost.encode_flops + cost.decode_flops


def test_autocast_wrapper_refuses_what_it_does_not_do():
    with pytest.raises(ValueError, match='float16'):
        OPTIM_WRAPPERS.build(
            {
                'type': 'AutocastOptimWrapper',
                'dtype': 'float16',
                'optimizer': torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0),
            }
        )


def resumed_with(overrides):
    """Return the warnings of a run that resumes one of the unchanged config, as pairs of entry and change."""
    said = []
    logger = SimpleNamespace(warning=said.append)
    before, after = (
        SimpleNamespace(cfg=read_config('pvvae_folder64', changes), seed=0, logger=logger, _resume=True)
        for changes in ({}, overrides)
    )
    checkpoint = {'run_settings': run_record_hook.run_settings(before)}
    HOOKS.build({'type': 'RunRecordHook'}).after_load_checkpoint(after, checkpoint)
    return said


def test_resume_names_what_differs_from_the_checkpoint(monkeypatch):
    assert not resumed_with({})
    pipeline = [{'type': 'PackClip'}]
    said = resumed_with(
        {
            'train_dataloader.dataset.data_root': 'elsewhere',
            'train_dataloader.dataset.clip_len': 9,
            'val_dataloader.dataset.pipeline': pipeline,
            'model.loss.diff_weight': 0.5,
            'train_cfg.max_iters': 7,
            'train_dataloader.batch_size': 3,
            'optim_wrapper.vae.optimizer.weight_decay': 0.5,
        }
    )
    other = 'resumed with another setting (checkpoint -> config): '
    changes = {text.removeprefix(other) for text in said if text.startswith(other)}
    assert {
        "train_dataloader.dataset.data_root='data/videos/train' -> 'elsewhere'",
        'train_dataloader.dataset.clip_len=17 -> 9',
        'model.loss.diff_weight=not set -> 0.5',
    } < changes
    assert any(text.endswith("-> ['PackClip']") and "['ResizeClip', " in text for text in changes)
    assert len(changes) == 5 and len(said) == 7  # the batch size and the optimizer have their own messages
    monkeypatch.setattr(run_record_hook, 'MAX_LISTED', 1)
    said = resumed_with({'train_cfg.max_iters': 7, 'model.loss.diff_weight': 0.5, 'model.loss.kl_weight': 0.5})
    assert len(said) == 2 and said[-1] == 'resumed with 2 more settings that differ'


def test_logged_values_of_several_devices_reach_the_host():
    """A custom loss may log a value from the CPU beside those of the GPU; here, the other device cannot be read."""
    outputs = {
        'loss': torch.tensor(2.0),
        'mine': torch.tensor([3.0]),
        'text': 'x',
        'far': torch.tensor(1.0, device='meta'),
    }
    with pytest.raises((NotImplementedError, RuntimeError)) as error:  # not because tensors of two devices were stacked
        to_numbers(outputs)
    assert 'same device' not in str(error.value)
    del outputs['far']
    assert to_numbers(outputs) == {'loss': 2.0, 'mine': 3.0, 'text': 'x'}


@pytest.mark.parametrize(('module', 'frozen'), [('encoder', False), ('backbone', True)])
def test_averages_of_nothing_are_rejected_before_training(tiny_vae_config, module, frozen):
    model = nn.Module()
    model.backbone = MODELS.build(tiny_vae_config).requires_grad_(not frozen)
    with pytest.raises(ValueError, match=f"module='{module}' has no trained weights"):
        HOOKS.build({'type': 'TrainedWeightsEMAHook', 'module': module}).before_train(SimpleNamespace(model=model))

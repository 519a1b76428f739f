from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pvvae_plugin.engine import SubmoduleOptimWrapperConstructor
from pvvae_plugin.functional.keyed_random import randn_like, torch_rng
from pvvae_plugin.functional.rectified_flow import sample_times
from pvvae_plugin.models.generator_checks import warn_once
from pvvae_plugin.registry import HOOKS, MODELS
from pvvae_plugin.structures import VideoDataSample


@pytest.fixture
def config(tiny_vae_config):
    return {
        'type': 'LatentVideoGenerator',
        'backbone': tiny_vae_config,
        'backbone_checkpoint': None,
        'head': {
            'type': 'LatentDiT',
            'latent_channels': 4,
            'num_classes': 3,
            'depth': 2,
            'hidden_size': 32,
            'num_heads': 2,
        },
    }


def build(config, **options):
    model = MODELS.build({**config, **options})
    torch.nn.init.normal_(model.head.final.out.weight, std=0.1)  # a new head returns zeros
    for block in model.head.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    return model


def batch(labels=(0, 1, 2)):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, 256, (3, 9, 32, 32), generator=generator, dtype=torch.uint8) for _ in labels]
    samples = [VideoDataSample(metainfo={'draw_key': i, 'label': c, 'path': f'{i}'}) for i, c in enumerate(labels)]
    return {'inputs': inputs, 'data_samples': samples}


def videos(model, num=3, **options):
    options = {'labels': [0, 1, 2][:num], 'num_inference_steps': 4, **options}
    return dict(model.generate(num, 9, (32, 32), **options))


def test_loss_is_the_error_of_the_straight_paths_velocity(config):
    model = build(config, class_dropout=0.0).eval()
    data = model.data_preprocessor(batch())
    loss = model(**data, mode='loss')['loss_flow'].item()
    expected = []
    for i in range(3):  # each clip separately, with its key
        generator = [torch_rng(i, 'flow')]
        latents = model.backbone.encode(data['inputs'][i : i + 1]).sample(generator)
        noise = randn_like(latents, generator)
        t = sample_times(1, 'uniform', generator).item()
        velocity = model.head((1 - t) * noise + t * latents, torch.tensor([t]), torch.tensor([i]))
        expected.append((velocity - (latents - noise)).square().mean().item())
    assert loss == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_training_changes_the_head_and_never_the_backbone(config):
    model = build(config)
    model.train()
    assert not model.backbone.training
    before = {n: p.clone() for n, p in model.backbone.state_dict().items()}
    entry = {'type': 'AutocastOptimWrapper', 'optimizer': {'type': 'AdamW', 'lr': 3e-3}}
    optim = SubmoduleOptimWrapperConstructor({'head': entry})(model)
    losses = [model.train_step(batch(), optim)['loss'].item() for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(before[n], p) for n, p in model.backbone.state_dict().items())


def test_a_video_depends_on_its_seed_and_index_alone(config):
    model = build(config)
    together = videos(model, guidance_scale=2.0)
    one_by_one = videos(model, guidance_scale=2.0, batch_size=1)
    other_process = videos(model, guidance_scale=2.0, indices=[2])
    for i in range(3):
        torch.testing.assert_close(together[i], one_by_one[i], rtol=0, atol=1e-4)
    torch.testing.assert_close(together[2], other_process[2], rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], videos(model, seed=1)[0], atol=1e-3)


@pytest.mark.parametrize('solver', ['euler', 'heun'])
def test_the_network_is_called_as_often_as_asked(config, solver):
    model = build(config)
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    videos(model, num_inference_steps=3, solver=solver, guidance_scale=3.0)
    assert len(calls) == {'euler': 3, 'heun': 6}[solver]


@pytest.mark.parametrize('solver', ['euler', 'heun'])
def test_old_names_of_sampling_options_give_the_same_videos(config, solver):
    """``steps`` counted network calls."""
    model = build(config)
    made = videos(model, num_inference_steps=4, solver=solver, guidance_scale=3.0, guidance_interval=(0.0, 0.5))
    calls = {'euler': 4, 'heun': 8}[solver]
    with pytest.warns(FutureWarning, match='guidance_scale|guidance_interval|num_inference_steps=4'):
        old = videos(model, steps=calls, solver=solver, guidance=3.0, interval=(0.0, 0.5))
    assert all(torch.equal(made[i], old[i]) for i in made)
    if solver == 'heun':
        with pytest.raises(ValueError, match='use num_inference_steps=3 or 4'):
            videos(model, steps=7, solver=solver)


def test_guidance_one_is_conditional_and_zero_unconditional(config):
    model = build(config)
    labels = []
    model.head.register_forward_hook(lambda module, args, kwargs, out: labels.append(args[2]), with_kwargs=True)
    plain = videos(model, guidance_scale=1.0)
    assert torch.equal(labels[0], torch.tensor([0, 1, 2]))
    unguided = videos(model, guidance_scale=0.0)
    model.head.class_embedding.weight.data[:3] = model.head.class_embedding.weight.data[3]
    for i, clip in videos(model, guidance_scale=1.0).items():  # every class is now the null class
        torch.testing.assert_close(clip, unguided[i], rtol=0, atol=1e-4)
        assert not torch.allclose(clip, plain[i], atol=1e-4)


def test_given_frames_are_kept_and_continued(config):
    model = build(config, condition_prob=0.5)
    observed = torch.rand(3, 3, 5, 32, 32) * 2 - 1
    made = videos(model, first_frames=observed)
    expected = model.backbone.decode(model.backbone.encode(observed).mode()).clamp(-1, 1)
    for i, clip in made.items():
        assert clip.shape == (3, 9, 32, 32)
        torch.testing.assert_close(clip[:, :5], expected[i], rtol=0, atol=1e-4)


def test_given_frames_do_not_count_in_the_loss(config):
    model = build(config, condition_prob=1.0, class_dropout=0.0).eval()
    data = model.data_preprocessor(batch())
    expected = model(**data, mode='loss')['loss_flow']
    seen = []

    def spoil(module, args, output):
        given = args[1] == 1.0  # (N, t)
        seen.append(given)
        return output + 1e3 * given[:, None, :, None, None]

    model.head.register_forward_hook(spoil)
    torch.testing.assert_close(model(**data, mode='loss')['loss_flow'], expected)
    assert seen[0][:, 0].all()
    assert not seen[0][:, -1].any()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'labels': [0, 1, 3]}, r'0\.\.2'),
        ({'labels': None}, r'3 classes'),
        ({'solver': 'rk45'}, 'euler, heun'),
        ({'first_frames': torch.zeros(3, 3, 5, 32, 32)}, 'condition_prob'),
    ],
)
def test_wrong_requests_are_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        videos(build(config), **options)


def test_wrong_settings_and_data_are_refused(config):
    with pytest.raises(ValueError, match='latent_channels=4'):
        MODELS.build({**config, 'head': {**config['head'], 'latent_channels': 8}})
    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        MODELS.build({**config, 'backbone_checkpoint': '/no/such/run'})
    model = build(config)
    data = model.data_preprocessor(batch(labels=(0, None, 1)))
    with pytest.raises(ValueError, match='1 has no label'):
        model(**data, mode='loss')


def test_checkpoints_name_their_vae_and_do_not_hold_it(config, tiny_vae_config, tmp_path):
    vae = MODELS.build(tiny_vae_config)
    torch.save({'state_dict': {f'backbone.{n}': p for n, p in vae.state_dict().items()}}, tmp_path / 'vae.pth')
    other = MODELS.build(tiny_vae_config)
    torch.save({'state_dict': {f'backbone.{n}': p for n, p in other.state_dict().items()}}, tmp_path / 'other.pth')

    class Runner:
        _train_loop = _load_from = None

        def __init__(self, path, heads=2):
            self.model = build(config, backbone_checkpoint=str(tmp_path / path))
            self.cfg = SimpleNamespace(model={**config, 'head': {**config['head'], 'num_heads': heads}})

    hook = HOOKS.build({'type': 'FrozenBackboneHook'})
    runner = Runner('vae.pth')
    assert torch.equal(runner.model.backbone.last_layer, vae.last_layer)
    checkpoint = {'state_dict': dict(runner.model.state_dict())}
    hook.before_save_checkpoint(runner, checkpoint)
    kept = [name for name in checkpoint['state_dict'] if name.startswith('backbone.')]
    assert sorted(kept) == ['backbone.latent_mean', 'backbone.latent_std']

    again = Runner('vae.pth')
    hook.after_load_checkpoint(again, checkpoint)
    again.model.load_state_dict(checkpoint['state_dict'])
    checkpoint['generator_config']['class_dropout'] = 0.0
    hook.after_load_checkpoint(again, checkpoint)
    with pytest.raises(ValueError, match='guidance_scale=2.0'):  # a test: the config has the default class_dropout
        videos(again.model, guidance_scale=2.0)
    with pytest.raises(ValueError, match='other.pth'):
        hook.after_load_checkpoint(Runner('other.pth'), checkpoint)
    with pytest.raises(ValueError, match=r'model.head.num_heads=1 \(trained with 2\)'):
        hook.after_load_checkpoint(Runner('vae.pth', heads=1), checkpoint)


@pytest.fixture
def told(monkeypatch):
    texts = []
    monkeypatch.setattr('pvvae_plugin.models.generator_checks.print_log', lambda text, *_: texts.append(text))
    warn_once.cache_clear()
    return texts


def test_a_vae_that_is_not_finished_or_not_trained_is_told_at_the_start(config, tiny_vae_config, tmp_path, told):
    state = {f'backbone.{n}': p for n, p in MODELS.build(tiny_vae_config).state_dict().items()}
    hook = HOOKS.build({'type': 'FrozenBackboneHook'})

    def start(iteration):
        hub = {'runtime_info': {'max_iters': 2400}}
        path = tmp_path / f'iter_{iteration}.pth'
        torch.save({'state_dict': state, 'meta': {'iter': iteration}, 'message_hub': hub}, path)
        model = build(config, backbone_checkpoint=str(tmp_path))
        assert model.backbone_source['path'] == str(path)
        hook.before_train(SimpleNamespace(model=model))

    start(104)
    (text,) = told
    assert f'{tmp_path}/iter_104.pth is at iteration 104 of 2,400' in text
    start(2400)
    assert len(told) == 1
    hook.before_train(SimpleNamespace(model=build(config)))
    assert told[1:] == [text for text in told if text.startswith('model.backbone_checkpoint is None')]
    model = build(config)
    model.backbone_source = {'path': 'exported', 'sha256': 'a' * 64}  # of a backbone that loads its own weights
    hook.before_train(SimpleNamespace(model=model))
    assert len(told) == 2


def test_cached_moments_give_the_loss_of_their_clips(config):
    model = build(config).eval()
    data = model.data_preprocessor(batch())
    posterior = model.backbone.encode(data['inputs'])
    moments = torch.cat([posterior.mean, posterior.logvar], dim=1)
    cached = model.data_preprocessor({'inputs': list(moments), 'data_samples': data['data_samples']})
    expected = model(**data, mode='loss')['loss_flow']
    torch.testing.assert_close(model(**cached, mode='loss')['loss_flow'], expected)


def test_statistics_of_the_latents_are_measured_or_taken_along(config):
    model = build(config)
    clips = [{'inputs': i, 'data_samples': s} for i, s in zip(*batch().values(), strict=True)]

    class Runner:
        _resume = False

        def __init__(self, dataset):
            self.model = model
            self.logger = type('Logger', (), {'info': print})
            self.train_dataloader = type('Loader', (), {'dataset': dataset})

    hook = HOOKS.build({'type': 'LatentStatisticsHook'})
    hook.before_train(Runner(clips))
    with torch.no_grad():
        latents = torch.cat(
            [
                model.backbone.encode(model.data_preprocessor({'inputs': [c['inputs']], 'data_samples': []})['inputs'])
                .sample(torch_rng('latent statistics', i))
                .double()
                for i, c in enumerate(clips)
            ]
        )
    flat = latents.transpose(0, 1).flatten(1)
    torch.testing.assert_close(model.backbone.latent_mean.double(), flat.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(model.backbone.latent_std.double(), flat.std(1, correction=0), rtol=1e-5, atol=1e-6)

    class Cached(list):
        metainfo = {'latent_mean': [1.0, 2.0, 3.0, 4.0], 'latent_std': [0.5] * 4}

    hook.before_train(Runner(Cached()))
    assert model.backbone.latent_mean.tolist() == [1.0, 2.0, 3.0, 4.0]
    Cached.metainfo = {'latent_mean': [0.0] * 4, 'latent_std': [0.0] * 4}
    with pytest.raises(ValueError, match='does not vary'):
        hook.before_train(Runner(Cached()))

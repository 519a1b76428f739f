"""Configs and stages of the study: each arm differs from the others only as documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from projects.predictive_study.arms import ARMS, CONFIGS, same_as
from projects.predictive_study.plan import Plan

from .study_runs import ROOT, call, settings, written


def differences(first, second, path=()) -> set[str]:
    """Return the dotted keys in which two configs differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = first.keys() | second.keys()
        return set().union(*(differences(first.get(k), second.get(k), (*path, k)) for k in keys)) if keys else set()
    return set() if first == second else {'.'.join(path)}


@pytest.mark.parametrize('scale', ['tiny', 'gpu-small', 'paper'])
def test_arms_differ_in_their_objective_alone(tmp_path, scale):
    plan, read = written(tmp_path, scale=scale)
    baseline = read('baseline', 'vae').to_dict()
    for arm in plan.arms:
        vae = read(arm, 'vae').to_dict()
        allowed = {
            'model.loss.diff_weight',
            'model.loss.kl_weight',
            'model.backbone.padding',
            'train_dataloader.dataset.pipeline',
            'train_cfg.max_iters',
            'train_cfg.val_interval',
        }
        what = ARMS[arm]
        assert vae['model']['loss']['diff_weight'] == what.diff_weight
        assert vae['model']['loss']['kl_weight'] == what.kl_weight
        assert vae['model']['backbone']['padding'] == what.padding
        assert drop_ratio(read(arm, 'vae')) == what.max_drop_ratio
        assert differences(baseline, vae) <= allowed, arm
        seeds = [vae['randomness']['seed'], read(arm, 'generator').randomness.seed]
        # All arms share the start and the number of steps, including fine-tuning.
        start = str(tmp_path / 'pretrained' / 'seed3' / 'vae') if scale != 'paper' else None
        assert vae['load_from'] == start
        steps = vae['train_cfg']['max_iters']
        if plan.decoder_steps(arm):
            decoder = read(arm, 'decoder').to_dict()
            steps += decoder['train_cfg']['max_iters']
            seeds.append(decoder['randomness']['seed'])
            assert decoder['model']['freeze_encoder'] and decoder['load_from'] == str(tmp_path / arm / 'seed3' / 'vae')
            assert 'FutureDropSampler' not in [s['type'] for s in decoder['train_dataloader']['dataset']['pipeline']]
        assert steps == plan.scale.vae_steps
        # Each training stage uses its own clip order.
        if start:
            seeds.append(read('pretrained', 'vae').randomness.seed)
        assert len(set(seeds)) == len(seeds)
        # The generators are identical.
        generator = read(arm, 'generator').to_dict()
        trained = 'decoder' if plan.decoder_steps(arm) else 'vae'
        assert generator['model']['backbone_checkpoint'] == str(tmp_path / arm / 'seed3' / trained)
        commands = [stage.command for stage in plan.stages() if stage.kind.startswith('latents')]
        assert all(str(tmp_path / arm / 'seed3' / trained) in c for c in commands if f'/{arm}_seed3_vae.py' in c[2])
        own = {
            'test_evaluator',
            'model.backbone.padding',
            'model.backbone_checkpoint',
            'train_dataloader.dataset.data_root',
            'val_dataloader.dataset.data_root',
        }
        assert differences(read('baseline', 'generator').to_dict(), generator) <= own
        assert generator['train_cfg']['max_iters'] == plan.scale.generator_steps
        assert generator['train_cfg']['max_iters'] % generator['default_hooks']['checkpoint']['interval'] == 0


def drop_ratio(cfg: Config) -> float:
    steps = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'FutureDropSampler']
    return steps[0].get('max_drop_ratio', 1.0) if steps else 0.0


@pytest.mark.parametrize('scale', ['tiny', 'gpu-small'])
def test_all_go_on_from_reconstruction_of_their_seed(tmp_path, scale):
    plan, read = written(tmp_path, scale=scale)
    start, baseline = read('pretrained', 'vae').to_dict(), read('baseline', 'vae').to_dict()
    own = {'train_cfg.max_iters', 'train_cfg.val_interval', 'load_from', 'randomness.seed'}
    assert differences(start, baseline) <= own
    assert start['train_cfg']['max_iters'] == plan.scale.pretraining_steps and start['load_from'] is None


def test_at_the_papers_scale_arms_are_the_configs_of_its_ablations(tmp_path):
    _, read = written(tmp_path, scale='paper')
    shipped = {
        'baseline': 'pvvae_ucf101_no_prediction',
        'predictive': 'pvvae_ucf101_no_motion',
        'motion': 'pvvae_ucf101',
        'drop50': 'pvvae_ucf101_drop50',
        'drop75': 'pvvae_ucf101_drop75',
        'gaussian': 'pvvae_ucf101_gaussian_padding',
    }
    for arm, name in shipped.items():
        ours, theirs = read(arm, 'vae'), Config.fromfile(ROOT / 'configs' / f'{name}.py')
        assert ours.model.to_dict() == theirs.model.to_dict(), arm
        assert drop_ratio(ours) == drop_ratio(theirs)
        assert ours.optim_wrapper.to_dict() == theirs.optim_wrapper.to_dict()
    ours, theirs = read('full', 'decoder'), Config.fromfile(ROOT / 'configs' / 'pvvae_ucf101_decoder.py')
    assert ours.model.to_dict() == theirs.model.to_dict()
    assert drop_ratio(ours) == drop_ratio(theirs) == 0.0


def test_ratios_that_drop_as_many_groups_are_one_arm(tmp_path, capsys):
    # floor(2 * 0.5) = floor(2 * 0.75) = 1 of the three groups at tiny; 2 and 3 of the five elsewhere.
    assert Plan(settings(), ['baseline', 'drop75'], [0], tmp_path).arms == ['baseline', 'drop50']
    assert Plan(settings(), ['drop50', 'drop75'], [0], tmp_path).arms == ['drop50']
    assert Plan(settings(scale='gpu-small'), list(ARMS), [0], tmp_path).arms == list(ARMS)
    assert [same_as(arm, 2) for arm in ('drop50', 'drop75', 'full')] == ['drop50', 'drop50', 'full']
    with pytest.raises(SystemExit) as ended:
        call('--scale', 'tiny', '--out', str(tmp_path / 'study'), '--arms', 'ratio', '--list')
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert 'drop75 is replaced by drop50: with 3 groups per clip, both drop the same number' in printed.err
    assert 'drop75' not in printed.out and 'drop50' in printed.out


def test_processes_share_out_the_batch_that_the_rate_is_for(tmp_path):
    for scale, gpus, batches in (('paper', 8, (4, 8)), ('paper', 1, (32, 64)), ('tiny', 2, (4, 8))):
        plan, read = written(tmp_path / f'{scale}{gpus}', scale=scale, gpus=gpus)
        assert (
            read('full', 'vae').train_dataloader.batch_size,
            read('full', 'generator').train_dataloader.batch_size,
        ) == batches
        commands = {stage.name: stage.command for stage in plan.stages()}
        launched = commands['full_seed3_vae'][1].endswith('launch.py')
        assert launched == (gpus > 1) and (gpus == 1 or commands['full_seed3_vae'][2] == str(gpus))
    with pytest.raises(ValueError, match='--gpus 3 does not divide the batch size 8'):
        written(tmp_path / 'odd', gpus=3)


def test_longer_runs_are_measured_where_others_are_and_at_each_doubling(tmp_path):
    plan, read = written(tmp_path, longer=4)
    assert plan.checkpoints() == [500, 1000, 2000, 4000, 8000, 16000]
    generator = read('full', 'generator')
    assert generator.train_cfg.max_iters == 16000
    assert [step.get('end') for step in generator.param_scheduler] == [100]  # constant learning rate afterwards
    assert generator.default_hooks.checkpoint.interval == 500


def test_data_are_those_that_are_asked_for(tmp_path):
    videos = tmp_path / 'videos'
    _, read = written(tmp_path / 'hard', difficulty='hard')
    vae, generator = read('full', 'vae'), read('full', 'generator')
    for dataset in (vae.train_dataloader.dataset, vae.val_dataloader.dataset, vae.test_dataloader.dataset):
        assert dataset.difficulty == 'hard'
    proxies = [metric for metric in generator.test_evaluator if metric.type.startswith('Proxy')]
    references = [metric.reference.dataset for metric in proxies]
    assert [dataset.get('difficulty') for dataset in references] == ['hard', 'hard', None, None]
    assert all(metric.classifier == str(tmp_path / 'hard' / 'judge.pth') for metric in proxies)
    assert generator.test_evaluator[-1].type == vae.test_evaluator[-1].type == 'ClassAccuracy'
    assert [m.classifier for m in vae.test_evaluator if m.type == 'ProxyFVD'] == [str(tmp_path / 'hard' / 'judge.pth')]

    plan, read = written(tmp_path / 'videos_study', videos=str(videos))
    vae, generator = read('full', 'vae'), read('full', 'generator')
    assert vae.train_dataloader.dataset.data_root == str(videos / 'train')
    assert vae.val_dataloader.dataset.data_root == vae.test_dataloader.dataset.data_root == str(videos / 'val')
    assert generator.test_dataloader.dataset.data_root == str(videos / 'val')
    assert generator.model.head.num_classes is None
    assert {metric.reference.dataset.data_root for metric in generator.test_evaluator} == {
        str(videos / 'train'),
        str(plan.folder('full', 3) / 'reconstructions.npy'),
    }
    assert not [stage for stage in plan.stages() if stage.kind == 'judge']  # no classes to judge

    plan, read = written(tmp_path / 'start', vae_init='start.pth')
    assert read('full', 'vae').load_from == read('baseline', 'vae').load_from == 'start.pth'
    assert not [stage for stage in plan.stages() if stage.kind == 'pretraining']
    assert all(not stage.needs for stage in plan.stages() if stage.kind == 'vae')

    plan, read = written(tmp_path / 'scratch', from_scratch=True)
    assert read('baseline', 'vae').train_cfg.max_iters == 3500 and read('full', 'vae').train_cfg.max_iters == 3200
    assert read('full', 'vae').load_from is None

    plan, read = written(tmp_path / 'still', still_share=0.9)
    assert read('full', 'vae').train_dataloader.dataset.still_share == 0.9
    assert 'still_share' not in read('full', 'vae').val_dataloader.dataset  # evaluated on moving clips
    plain, weighted = read('weighted', 'vae'), read('weighted', 'vae_weighted')
    assert differences(plain.to_dict(), weighted.to_dict()) <= {
        f'train_dataloader.dataset.{key}' for key in ('type', 'dataset', 'candidates', *plain.train_dataloader.dataset)
    }
    assert weighted.train_dataloader.dataset.type == 'MotionWeightedDataset'
    assert weighted.train_dataloader.dataset.dataset.to_dict() == plain.train_dataloader.dataset.to_dict()
    commands = {stage.name: ' '.join(stage.command) for stage in plan.stages()}
    assert 'weighted_seed3_vae_weighted.py' in commands['weighted_seed3_vae']
    assert 'weighted_seed3_decoder_weighted.py' in commands['weighted_seed3_decoder']
    assert 'weighted_seed3_vae.py' in commands['weighted_seed3_test']

    _, read = written(tmp_path / 'i3d', i3d='i3d.pt')
    types = [m.type for m in read('full', 'generator').test_evaluator]
    assert types == ['FVD', 'KVD', 'FVD', 'KVD', 'ClassAccuracy']
    assert 'FVD' in [m.type for m in read('full', 'vae').test_evaluator]


def test_the_readme_says_what_each_config_inherits_from():
    readme = (ROOT / 'projects' / 'predictive_study' / 'README.md').read_text()
    for path in CONFIGS.glob('*.py'):
        (base,) = (Path(base) for base in Config._get_base_files(str(path)))
        inherited = (path.parent / base).resolve()
        shown = inherited.name if inherited.parent == CONFIGS else inherited.relative_to(ROOT)
        assert f'| `{path.name}` | `{shown}` |' in readme


def test_stages_come_after_what_they_need(tmp_path):
    stages = Plan(settings(), list(ARMS), [0, 1], tmp_path).stages()
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    for place, stage in enumerate(stages):
        assert set(stage.needs) <= set(names[:place]), stage.name
    starts = {stage.needs for stage in stages if stage.kind == 'vae'}
    assert starts == {('pretrained_seed0',), ('pretrained_seed1',)}
    alone = Plan(settings(), list(ARMS), [0, 1], tmp_path, vaes_alone=True).stages()
    assert {stage.kind for stage in alone} == {'judge', 'pretraining', 'vae', 'decoder', 'test', 'probes'}
    assert [stage for stage in stages if stage.kind in ('vae', 'test')] == [
        s for s in alone if s.kind in ('vae', 'test')
    ]

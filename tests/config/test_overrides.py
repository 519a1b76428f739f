"""Overrides that --cfg-options accepts and rejects, in addition to the mistakes in tests/faults."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.config.overrides import apply_overrides, check_numbers, check_settings_are_read, settle_workers
from pvvae_plugin.config.schema import RUNNER_KEYS
from pvvae_plugin.registry import HOOKS

ROOT = Path(__file__).resolve().parents[2]
NAMES = '|'.join(path.stem for path in sorted((ROOT / 'configs').glob('*.py')))
# Placeholders for paths and numbers in the commands of the docs.
PLACEHOLDER = re.compile(r'\bN\b')
# Configs that the study writes do not exist yet; map them to their base configs.
OF_THE_STUDY = re.compile(r'work_dirs/study\w*/configs/\w+_generator\.py')


def documented() -> list[tuple[str, str]]:
    """Return the config and overrides of all commands in the docs and in config comments."""
    found = []
    pages = (path for folder in ('docs', 'projects') for path in sorted((ROOT / folder).rglob('*.md')))
    for path in (ROOT / 'README.md', *pages, *sorted((ROOT / 'configs').rglob('*.py'))):
        text = path.read_text().replace('\\\n#', ' ').replace('\\\n', ' ')
        for command, given in re.findall(r'([^\n`]*)--cfg-options ([^\n`]*)', text):
            command = OF_THE_STUDY.sub('configs/dit_demo.py', command)
            named = re.search(rf'configs/([\w/]+)\.py|\b({NAMES})\b', command)
            config = named[1] or named[2] if named else path.stem if path.suffix == '.py' else None
            if config and '=' in given and 'Error: ' not in command:  # skip quoted error messages
                found.append((config, PLACEHOLDER.sub('7', given)))
    return found


def parse(text: str) -> dict:
    parser = argparse.ArgumentParser()
    add_override_argument(parser)
    words = [word for word in shlex.split(text.split('  #')[0]) if '=' in word]
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (
            'find_unused_parameters = True',
            r'no effect.*model_wrapper_cfg\.find_unused_parameters=True',
        ),
        ('env_cfg = dict(cudnn_bench=True)', "nothing reads 'cudnn_bench' in env_cfg: did you mean cudnn_benchmark"),
        ('auto_scale_lr = dict(base_batchsize=4)', "nothing reads 'base_batchsize' in auto_scale_lr: did you mean"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused_in_a_config_file_too(setting, message, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = __import__('pvvae_plugin').config_path('pvvae_demo.py')\n{setting}\n")
    with pytest.raises(ValueError, match=message):
        check_settings_are_read(read_config(config))


def test_a_setting_that_mmengine_reads_is_taken():
    cfg = read_config('pvvae_demo', {'find_unused_parameters': True})
    with pytest.raises(ValueError, match='find_unused_parameters'):
        check_settings_are_read(cfg)
    cfg.model_wrapper_cfg = None  # MMEngine's own wrapper, which reads it
    check_settings_are_read(cfg)


@pytest.mark.parametrize('name', NAMES.split('|'))
def test_all_settings_of_our_configs_are_read(name):
    check_settings_are_read(read_config(name))


@pytest.mark.parametrize(('config', 'overrides'), documented())
def test_what_the_documents_say_is_taken(config, overrides):
    values = parse(overrides.split(' makes ')[0])
    cfg = read_config(config, values)
    check_numbers(cfg)
    for key, value in values.items():
        node = cfg
        for part in key.split('.'):
            node = node[int(part)] if isinstance(node, list) else node[part]
        assert node == value


def test_there_are_documented_ones():
    assert len(documented()) >= 8


@pytest.mark.parametrize(
    'overrides',
    [
        {'randomness.deterministic': True, 'randomness.diff_rank_seed': True},
        {'env_cfg.dist_cfg.timeout': 5, 'env_cfg.mp_cfg.mp_start_method': 'spawn'},
        {'auto_scale_lr.base_batch_size': 4, 'auto_scale_lr.enable': True},
        {'optim_wrapper.vae.accumulative_counts': 2, 'optim_wrapper.vae.dtype': 'bfloat16'},
        {'optim_wrapper.vae.paramwise_cfg.norm_decay_mult': 0.0},
        {'optim_wrapper.vae.optimizer.weight_decay': 0},
        {'default_hooks.checkpoint.save_best': 'recon/psnr', 'default_hooks.checkpoint.rule': 'greater'},
        {'custom_hooks.0.priority': 'LOW', 'model_wrapper_cfg.find_unused_parameters': True},
        {'train_dataloader.pin_memory': True, 'train_dataloader.prefetch_factor': 3},
        {'train_dataloader.dataset.max_substitutes': 3, 'train_dataloader.dataset.metainfo.classes': ['a']},
        {'val_cfg.fp16': True, 'experiment_name': 'mine', 'compile': True, 'val_evaluator.0.prefix': 'x'},
        {'model.discriminator.type': 'PatchDiscriminator3D', 'model.discriminator.base_width': 8},
        {'model.backbone._delete_': True, 'model.backbone.type': 'PretrainedVAE', 'model.backbone.pretrained': 'x'},
        {'model.loss': None, 'param_scheduler': None, 'model.backbone.encoder_widths': (8, 8, 8)},
        {'default_hooks.mine.type': 'IterTimerHook'},
        {'optim_wrapper._delete_': True, 'optim_wrapper.type': 'OptimWrapper', 'optim_wrapper.optimizer.type': 'SGD'},
        {
            'optim_wrapper.discriminator.type': 'AutocastOptimWrapper',
            'optim_wrapper.discriminator.optimizer.type': 'AdamW',
            'optim_wrapper.discriminator.optimizer.lr': 1e-4,
        },
        {'val_evaluator.0.lpips.type': 'LPIPS', 'val_evaluator.0.lpips.net': 'alex'},
        {'train_dataloader.dataset.pipeline.0.max_drop_ratio': 0.5, 'param_scheduler.0.end': 20},
        {'optim_wrapper.vae.optimizer.type': 'SGD', 'optim_wrapper.vae.optimizer.momentum': 0.9},
        {'log_processor.window_size': 5, 'visualizer.vis_backends.0.save_dir': 'x', 'log_level': 'DEBUG'},
    ],
    ids=lambda overrides: next(iter(overrides)),
)
def test_what_something_reads_is_taken(overrides):
    cfg = read_config('pvvae_demo', overrides)
    key, value = list(overrides.items())[-1]
    node = cfg
    for part in key.split('.'):
        node = node[int(part)] if isinstance(node, list) else node[part]
    assert node == value


@pytest.mark.parametrize(
    ('config', 'key', 'message'),
    [
        ('pvvae_demo', 'max_iters', r'did you mean train_cfg\.max_iters\?$'),
        ('pvvae_demo', 'max_iter', r'did you mean train_cfg\.max_iters\?$'),
        ('pvvae_demo', 'lr', r'did you mean optim_wrapper\.vae\.optimizer\.lr\?$'),
        ('pvvae_demo', 'lpips_weight', r'did you mean model\.loss\.lpips_weight\?$'),
        ('pvvae_demo', 'model.latent_channels', r'did you mean model\.backbone\.latent_channels\?'),
        (
            'pvvae_folder64',
            'data_root',
            r'did you mean train_dataloader\.dataset\.data_root or val_dataloader',
        ),
        ('pvvae_demo', 'nonsense', 'valid are .*val_dataloader'),
        ('pvvae_demo', 'randomness.sed', 'did you mean seed'),
        ('pvvae_demo', 'env_cfg.cudnn_bench', 'did you mean cudnn_benchmark'),
        ('pvvae_demo', 'default_hooks.checkpoint.intervall', 'did you mean interval'),  # its hook takes **kwargs
        ('pvvae_demo', 'model.backbone.strides.0.1', 'is the tuple'),
        ('pvvae_images', 'model.discriminator.base_width', 'is None, which has no entries'),
        ('pvvae_demo', 'train_cfg.max_iters.x', 'is 2400, which has no entries'),
        ('pvvae_demo', 'val_evaluator.0.lpip', r'VideoReconstruction.*did you mean lpips'),
        ('pvvae_demo', 'optim_wrapper.discriminator.optimizer.lr', 'valid are constructor, vae'),
        ('dit_demo', 'model.head.dept', 'did you mean depth'),
        ('dit_demo', 'test_evaluator.0.protocl', 'did you mean protocol'),
        ('pvvae_ucf101', 'ann_dir', r'train_dataloader\.dataset\.ann_file \(data/ucf101/ucfTrainTestlist/trainlist01'),
        ('pvvae_ucf101', 'test_pipeline.0.size', r'val_dataloader\.dataset\.pipeline\.0\.size'),
        ('dit_pvvae', 'real_clips.data_root', r'test_evaluator\.0\.reference\.dataset\.data_root'),
    ],
)
def test_what_nothing_reads_is_refused(config, key, message):
    with pytest.raises(ValueError, match=f'^{re.escape(key)}.*{message}'):
        read_config(config, {key: 7})


@HOOKS.register_module(force=True)
class Closed(Hook):
    def __init__(self, speed: int = 1) -> None:
        self.speed = speed


@HOOKS.register_module(force=True)
class Open(Hook):
    """A hook whose keyword arguments cannot be listed."""

    def __init__(self, **kwargs) -> None:
        self.options = kwargs


def of_hook(kind: str, **entries) -> Config:
    return Config({'custom_hooks': [{'type': kind, **entries}], 'mine': 5})


def test_classes_of_others_are_judged_by_what_they_take():
    apply_overrides(of_hook('Closed'), {'custom_hooks.0.speed': 3})
    with pytest.raises(ValueError, match=r'Closed.*did you mean speed'):
        apply_overrides(of_hook('Closed'), {'custom_hooks.0.sped': 3})
    apply_overrides(of_hook('Open'), {'custom_hooks.0.anything': 3})
    for name in ('OfNoRegistry', '', '.', 'no.such.module', 'two words'):  # left to the registry's own error
        apply_overrides(of_hook(name), {'custom_hooks.0.anything': 3})
    apply_overrides(of_hook('Closed'), {'custom_hooks.0.type': 'OfNoRegistry', 'custom_hooks.0.anything': 3})


def test_an_entry_that_only_its_owner_reads_is_taken():
    cfg = of_hook('Closed')
    apply_overrides(cfg, {'mine': 6})
    assert cfg.mine == 6


@pytest.mark.parametrize('name', ['falling_bars', 'falling_bars_pure_python'])
def test_a_project_of_others(name):
    project = ROOT / 'docs' / 'example_project'
    import_module('example_project')
    config = project / 'configs' / f'{name}.py'
    cfg = read_config(config, {'model.loss.abs_weight': 2.0, 'train_dataloader.dataset.length': 3})
    assert cfg.model.loss.abs_weight == 2.0
    with pytest.raises(ValueError, match=r'WithAbsoluteError.*did you mean abs_weight'):
        read_config(config, {'model.loss.abs_wieght': 2.0})


def test_no_config_of_ours_has_a_name_that_mmengine_reads_by_accident():
    """No helper variable shares a name with a runner setting, so top-level overrides always take effect."""
    assert {'train_dataloader', 'model_wrapper_cfg', 'randomness', 'custom_imports'} <= RUNNER_KEYS
    assert not {'data_root', 'train_pipeline', 'self', 'cfg'} & RUNNER_KEYS


def test_no_workers_need_no_further_options():
    cfg = read_config('pvvae_demo', {'train_dataloader.num_workers': 0, 'train_dataloader.prefetch_factor': 2})
    settle_workers(cfg)
    assert not {'persistent_workers', 'prefetch_factor'} & set(cfg.train_dataloader)
    assert cfg.val_dataloader.persistent_workers is True


@pytest.mark.parametrize('value', [2.5, '8', True, None])
def test_numbers_of_a_file_are_checked_as_well(value):
    cfg = read_config('pvvae_demo')
    cfg.train_dataloader.batch_size = value
    if value is None:  # as with a batch sampler
        check_numbers(cfg)
    else:
        with pytest.raises(ValueError, match=r'train_dataloader\.batch_size must be an integer of at least 1'):
            check_numbers(cfg)


def test_old_names_in_configs_and_overrides_warn_and_take_effect(tmp_path):
    (tmp_path / 'vae.py').write_text(
        "_base_ = 'pvvae_plugin::pvvae_demo.py'\noptim_wrapper = dict(generator=dict(optimizer=dict(lr=0.5)))\n"
    )
    with pytest.warns(FutureWarning, match="'optim_wrapper.generator' is now 'optim_wrapper.vae'"):
        cfg = read_config(tmp_path / 'vae.py', {'optim_wrapper.generator.clip_grad.max_norm': 3.0})
    assert set(cfg.optim_wrapper) == {'constructor', 'vae'}
    assert cfg.optim_wrapper.vae.optimizer == {'type': 'AdamW', 'lr': 0.5, 'betas': (0.9, 0.99), 'weight_decay': 0.01}
    assert cfg.optim_wrapper.vae.clip_grad.max_norm == 3.0
    (tmp_path / 'dit.py').write_text(
        "_base_ = 'pvvae_plugin::dit_demo.py'\nmodel = dict(times='logit-normal', head=dict(width=64))\n"
        'test_cfg = dict(sampling=dict(guidance=3.0))\n'
    )
    with pytest.warns(FutureWarning):
        cfg = read_config(tmp_path / 'dit.py', {'model.head.heads': 2})
    assert cfg.model.time_sampling == 'logit-normal' and 'times' not in cfg.model
    assert (cfg.model.head.hidden_size, cfg.model.head.num_heads) == (64, 2)
    assert cfg.test_cfg.sampling == {'num_inference_steps': 50, 'guidance_scale': 3.0}


LPIPS = {'type': 'LPIPS', 'net': 'alex'}


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ("dict(type='LPIPS', net='alex')", LPIPS),
        ("{'type': 'LPIPS', 'net': 'alex'}", LPIPS),
        ("[dict(type='LPIPS', net='alex'), dict(end=-1)]", [LPIPS, {'end': -1}]),
        ('dict(a=dict(b=(1, 2)), c=None)', {'a': {'b': (1, 2)}, 'c': None}),
        ('[(1,2),[a,b]]', [(1, 2), ['a', 'b']]),
        ('data/{name}.mp4', 'data/{name}.mp4'),
    ],
)
def test_dicts_are_read_as_in_a_config_file(text, value):
    parser = argparse.ArgumentParser()
    add_override_argument(parser)
    assert parser.parse_args(['--cfg-options', f'a.b={text}']).cfg_options == {'a.b': value}


@pytest.mark.parametrize(
    'text', ['dict(type=LPIPS)', "dict(type='LPIPS'", 'dict(a=open("x"))', 'f(1,2)', '[1,2', '{1:}']
)
def test_what_cannot_be_read_shows_the_right_syntax(text, capsys):
    parser = argparse.ArgumentParser()
    add_override_argument(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', f'model.loss.lpips={text}'])
    said = capsys.readouterr().err.splitlines()[-1]
    assert f'cannot read {text!r}' in said and "model.loss.lpips=dict(type='NAME', size=8)" in said


def test_dicts_are_merged_and_checked():
    overrides = {'model.loss.lpips': LPIPS, 'optim_wrapper.vae.optimizer': {'lr': 1e-5}, 'param_scheduler': None}
    cfg = read_config('pvvae_demo', overrides)
    assert cfg.model.loss.lpips == LPIPS
    assert cfg.optim_wrapper.vae.optimizer.type == 'AdamW' and cfg.optim_wrapper.vae.optimizer.lr == 1e-5
    discriminator = {'type': 'PatchDiscriminator3D', 'base_width': 8}  # it is None in the config
    assert read_config('pvvae_demo', {'default_hooks.mine': {'type': 'IterTimerHook'}}).default_hooks.mine
    assert read_config('pvvae_images', {'model.discriminator': discriminator}).model.discriminator == discriminator
    for key, value, message in [
        ('model.loss.lpips', {'type': 'LPIPS', 'nets': 'alex'}, 'model.loss.lpips.nets: .*did you mean net'),
        ('model.loss.lpips', {'type': 'LPIP'}, 'model.loss.lpips.type=LPIP.*did you mean LPIPS'),
        ('model', {'loss': {'dif_weight': 1}}, 'model.loss.dif_weight: .*did you mean diff_weight'),
        ('model.loss', 'LPIPS', 'model.loss=LPIPS is not a dict'),
    ]:
        with pytest.raises(ValueError, match=message):
            read_config('pvvae_demo', {key: value})

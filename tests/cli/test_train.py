"""Training and tests on the demo config at a few iterations, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from commands import pvvae
from mmengine.config import Config
from mmengine.runner import Runner

from pvvae_plugin.cli import train as train_command
from pvvae_plugin.cli.console import main
from pvvae_plugin.missing import Missing

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    'train_cfg.max_iters=6',
    'train_cfg.val_interval=6',
    'param_scheduler.0.end=2',
    'param_scheduler.1.begin=2',
    'default_hooks.checkpoint.interval=3',
    'default_hooks.checkpoint.max_keep_ckpts=-1',
    'default_hooks.logger.interval=2',
    'train_dataloader.batch_size=2',
    'val_dataloader.dataset.length=5',
    'val_dataloader.batch_size=2',
    'model.backbone.encoder_widths=(8,8,8)',
    'model.backbone.decoder_widths=(8,8,8)',
]


def run(*arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def train(work_dir: Path, *arguments: str, options: tuple[str, ...] = (), config: str = 'pvvae_demo') -> str:
    return pvvae('train', config, '--work-dir', work_dir, *arguments, '--cfg-options', *SMALL, *options)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('finished')
    command = (sys.executable, 'tools/train.py', 'configs/pvvae_demo.py', '--work-dir', str(work_dir))
    return work_dir, run(*command, '--cfg-options', *SMALL).stdout


def load(path: Path) -> dict:
    return torch.load(path, map_location='cpu', weights_only=True)


def test_a_run_says_what_it_needs_and_draws_what_it_predicts(finished):
    work_dir, log = finished
    assert 'time        about' in log
    assert (work_dir / 'vis' / 'latest.png').is_file()
    assert 'Failed to search registry' not in log


def test_a_log_names_the_data_and_the_results_and_has_one_line_per_validation(finished):
    work_dir, log = finished
    assert 'train_dataloader: 100000 clips of 9 x 32 x 32' in log
    assert 'val_dataloader: 5 clips of 9 x 32 x 32' in log
    assert log.count('iteration 1 of 6 took') == 1 and 'iteration 2 of 6' not in log
    (validation,) = (line for line in log.splitlines() if 'recon/psnr' in line)
    assert 'predict/k1_vs_repeat' in validation and 'predict/k2_vs_repeat' in validation
    assert len(validation) < 300
    assert 'dropped groups' not in log  # the table is for tests
    assert 'will be deprecated' not in log and 'SyncBN' not in log
    end = log[log.index('trained 6 iterations') :]
    assert str(work_dir / 'iter_6.pth') in end and str(work_dir / 'vis' / 'latest.png') in end
    assert f'pvvae test configs/pvvae_demo.py {work_dir}' in end and 'val_dataloader.dataset.length=5' in end


def test_a_resumed_run_ends_bit_equal(finished, tmp_path):
    work_dir, _ = finished
    assert 'resumed with' not in train(tmp_path, '--resume', str(work_dir / 'iter_3.pth'))
    whole, resumed = load(work_dir / 'iter_6.pth'), load(tmp_path / 'iter_6.pth')
    for key in ('state_dict', 'raw_weights'):
        assert whole[key].keys() == resumed[key].keys()
        for name, tensor in whole[key].items():
            assert torch.equal(tensor, resumed[key][name]), (key, name)
    moments = [checkpoint['optimizer']['vae']['state'] for checkpoint in (whole, resumed)]
    for index, state in moments[0].items():
        assert torch.equal(state['exp_avg_sq'], moments[1][index]['exp_avg_sq'])


def test_resume_without_a_path_takes_the_latest(finished, tmp_path):
    work_dir, _ = finished
    shutil.copy(work_dir / 'iter_3.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_3.pth'))
    log = train(tmp_path, '--resume', options=('model.loss.diff_weight=0.5',))
    assert 'resumed epoch: 0, iter: 3' in log
    assert 'with another setting (checkpoint -> config): model.loss.diff_weight=not set -> 0.5' in log


def test_flags_take_effect(tmp_path):
    options = ('train_cfg.max_iters=3', 'auto_scale_lr.base_batch_size=4', 'auto_scale_lr.enable=False')
    log = train(tmp_path, '--amp', '--seed', '7', '--deterministic', '--auto-scale-lr', options=options)
    saved = load(tmp_path / 'iter_3.pth')
    assert saved['meta']['seed'] == 7
    assert "dtype='bfloat16'" in saved['meta']['cfg']
    assert 'deterministic=True' in saved['meta']['cfg']
    assert 'Scaling the original LR by 0.5' in log


def test_test_script_writes_metrics_with_their_provenance(finished, tmp_path):
    work_dir, _ = finished
    out = tmp_path / 'metrics.json'
    options = ('--out', out, '--show-dir', tmp_path / 'show', '--cfg-options', *SMALL)
    log = pvvae('test', 'pvvae_demo', work_dir, '--work-dir', tmp_path, *options)
    assert 'dropped groups' in log
    assert not any('recon/psnr' in line and 'k1_mse' in line for line in log.splitlines())  # the table has it
    record = json.loads(out.read_text())
    assert record['checkpoint'].endswith('iter_6.pth')
    assert len(record['checkpoint_sha256']) == 64
    assert {'recon/psnr', 'predict/k1_vs_repeat', 'predict/k2_moving_vs_mean'} <= set(record['metrics'])
    assert len(record['metrics']['recon/psnr_per_frame']) == 9
    assert list((tmp_path / 'show').rglob('*.gif'))
    assert 'MSE/repeat' in pvvae('report', out)


@pytest.mark.long
def test_two_cpu_processes_train_and_test(tmp_path):
    command = ('bash', 'tools/dist_train.sh', 'configs/pvvae_demo.py', '2', '--work-dir', str(tmp_path))
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    env = {**os.environ, 'PORT': '29617', 'PATH': path}
    done = subprocess.run([*command, '--cfg-options', *SMALL], cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert 'Warning' not in done.stderr
    command = ('bash', 'tools/dist_test.sh', 'configs/pvvae_demo.py', str(tmp_path), '2', '--work-dir', str(tmp_path))
    done = subprocess.run(
        [*command, '--out', str(tmp_path / 'two.json'), '--cfg-options', *SMALL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run(
        *(sys.executable, 'tools/test.py', 'configs/pvvae_demo.py', str(tmp_path), '--work-dir', str(tmp_path)),
        *('--out', str(tmp_path / 'one.json'), '--cfg-options', *SMALL),
    )
    one, two = (json.loads((tmp_path / name).read_text())['metrics'] for name in ('one.json', 'two.json'))
    for name, value in one.items():  # 5 clips do not divide by 2 processes
        assert two[name] == pytest.approx(value, rel=1e-5), name


def build_config(name: str, work_dir: Path, options: dict, checkpoint: Path | None = None) -> Config:
    """What the training script makes of a config; with ``checkpoint``, of a first launch with --resume."""
    arguments = [str(ROOT / 'configs' / f'{name}.py'), '--work-dir', str(work_dir)]
    if checkpoint is not None:
        torch.save({'state_dict': {}}, checkpoint / 'iter_1.pth')
        arguments.append('--resume')
    args = train_command.parse_args(arguments)
    short = {key: int(value) for key, value in (option.split('=') for option in SMALL[:4])}
    args.cfg_options = {**short, **options}
    with pytest.MonkeyPatch.context() as patch:  # UCF101 and LPIPS are not needed
        patch.setattr(train_command, 'find_missing', lambda *_: Missing())
        return train_command.configure(args)


@pytest.mark.parametrize(('options', 'timeout'), [({'env_cfg.dist_cfg.timeout': 5}, timedelta(seconds=5)), ({}, None)])
def test_the_timeout_of_processes_counts_on_cpus_too(options, timeout, tmp_path, monkeypatch):
    for name, value in {'RANK': '0', 'WORLD_SIZE': '2', 'MASTER_ADDR': 'localhost', 'MASTER_PORT': '29618'}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    started = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *args, **kwargs: started.append((args, kwargs)))
    args = train_command.parse_args(['pvvae_demo', '--work-dir', str(tmp_path), '--launcher', 'pytorch'])
    args.cfg_options = options
    train_command.configure(args)
    assert started == [(('gloo',), {'timeout': timeout})]


def build(name: str, work_dir: Path, options: dict) -> Runner:
    cfg = build_config(name, work_dir, options)
    cfg.experiment_name = f'{work_dir.name}_{name}'
    return Runner.from_cfg(cfg)


def test_a_diverged_run_stops_and_pushes_no_checkpoint_out(tmp_path):
    options = {
        'optim_wrapper.vae.optimizer.lr': 1e30,
        'default_hooks.checkpoint.interval': 1,
        'train_dataloader.batch_size': 1,
        'custom_hooks.1.max_in_a_row': 3,
    }
    with pytest.raises(FloatingPointError, match=r'skipped the last 3 steps.*loss_mse=nan.*diverged_iter_4.*--resume'):
        build('pvvae_demo', tmp_path, options).train()
    # One good step was made; the state in which the run stopped lies beside it.
    assert sorted(path.name for path in tmp_path.rglob('*.pth')) == ['diverged_iter_4.pth', 'iter_1.pth']


def test_resume_on_a_first_launch_keeps_the_earlier_stage(tmp_path):
    cfg = build_config('pvvae_ucf101_decoder', tmp_path / 'new', {'load_from': str(tmp_path)}, checkpoint=tmp_path)
    assert (cfg.resume, cfg.load_from) == (False, str(tmp_path / 'iter_1.pth'))
    (tmp_path / 'new').mkdir(exist_ok=True)
    state = dict.fromkeys(('state_dict', 'meta', 'message_hub', 'param_schedulers'), {})
    torch.save({**state, 'optimizer': {'vae': {}, 'discriminator': {}}}, tmp_path / 'new' / 'iter_2.pth')
    cfg = build_config('pvvae_ucf101_decoder', tmp_path / 'new', {'load_from': str(tmp_path)}, checkpoint=tmp_path)
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / 'new' / 'iter_2.pth'))


@pytest.mark.parametrize(('value', 'holds'), [(0.5, True), (0.96, False), (None, False)])
def test_report_judges_every_ratio(value, holds, tmp_path):
    metrics = {'recon/psnr': 20.0, 'predict/k1_vs_repeat': 0.5, 'predict/k2_vs_repeat': value, 'predict/k2_mse': 0.1}
    path = tmp_path / 'metrics.json'
    path.write_text(json.dumps({'metrics': metrics, 'checkpoint': 'x', 'checkpoint_sha256': 'y' * 64}))
    with nullcontext() if holds else pytest.raises(SystemExit) as ended:
        pvvae('report', path, '--max-ratio', 0.95)
    assert holds or ended.value.code == 1


@pytest.mark.parametrize(
    ('config', 'options', 'error', 'message'),
    [
        ('pvvae_demo', {'train_dataloader.dataset.pipeline.0.max_drop_ratio': 1.5}, ValueError, '1.5'),
        ('pvvae_demo', {'train_dataloader.dataset.clip_len': 16}, ValueError, '16 frames.*13 or 17'),
        ('pvvae_demo', {'val_dataloader.dataset.size': 250}, ValueError, 'val_dataloader.*250'),
        ('pvvae_demo', {'train_dataloader.dataset.pipeline.0.type': 'NoSuchStep'}, KeyError, 'NoSuchStep'),
        ('pvvae_demo', {'model.backbone.type': 'NoSuchVAE'}, KeyError, 'NoSuchVAE'),
        ('pvvae_folder64', {'train_dataloader.dataset.data_root': '/no/such/dir'}, Exception, '/no/such/dir'),
        ('pvvae_demo', {'param_scheduler.1.begin': 6}, ValueError, r'param_scheduler\.1\.begin'),
        ('pvvae_demo', {'train_dataloader.dataset.pipeline.0.temporal_ratio': 8}, ValueError, 'temporal_ratio=8'),
        ('pvvae_demo', {'model.loss.rec_weight': float('inf')}, ValueError, 'rec_weight.*inf'),
        ('pvvae_demo', {'env_cfg.dist_cfg.timeout': 'long'}, ValueError, r'env_cfg\.dist_cfg\.timeout must be.*long'),
        ('pvvae_demo', {'train_cfg.max_iters': 0}, ValueError, 'max_iters'),
        ('pvvae_ucf101_decoder', {}, FileNotFoundError, 'train it first'),
        ('pvvae_ucf101', {'model.backbone.padding': 'zeros'}, ValueError, 'zeros'),
    ],
)
def test_wrong_settings_stop_a_run_before_its_first_iteration(config, options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        build(config, tmp_path, options).train()
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize(
    ('scheduler', 'message'),
    [
        ({'type': 'LinearLR', 'begin': 1, 'by_epoch': False}, None),
        ({'type': 'LinearLR', 'begin': 1, 'end': 2, 'by_epoch': False}, r'^param_scheduler\.{} warms up from 1 to 2'),
        (
            {'type': 'CosineAnnealingLR', 'begin': 4, 'by_epoch': False},
            r'^param_scheduler\.{}\.begin=4 is past',
        ),
    ],
)
@pytest.mark.parametrize('key', ['0', 'vae.0', 'vae'])
def test_schedulers_are_checked_in_all_their_forms(scheduler, message, key):
    forms = {'0': [scheduler], 'vae.0': {'vae': [scheduler]}, 'vae': {'vae': scheduler}}
    cfg = Config({'train_cfg': {'max_iters': 4, 'val_interval': 2}, 'param_scheduler': forms[key]})
    if message is None:
        train_command.check_schedule(cfg)
    else:
        with pytest.raises(ValueError, match=message.format(key.replace('.', r'\.'))):
            train_command.check_schedule(cfg)


OF_UCF101 = ("data_root 'data/ucf101/videos' is not a folder", 'trainlist01.txt', 'testlist01.txt', 'classInd.txt')
EXTRAS = ('diffusers', 'huggingface_hub', 'lpips', 'torchvision')


@pytest.mark.parametrize(
    ('command', 'said'),
    [
        (('train', 'pvvae_ucf101'), ('[lpips]"', 'vgg16-397923af.pth', *OF_UCF101)),
        (
            ('train', 'pvvae_ucf101_decoder'),
            ('[lpips]"', 'vgg16', "no checkpoint at 'work_dirs/pvvae_ucf101'", *OF_UCF101),
        ),
        (('test', 'pvvae_ucf101', 'none.pth'), ('alexnet', 'i3d_torchscript.pt', "'none.pth'", *OF_UCF101[2:])),
        (('train', 'dit_pvvae'), ("no checkpoint at 'work_dirs/pvvae_ucf101_decoder'", *OF_UCF101)),
        (('sample', 'dit_wan22', 'none.pth'), ('[diffusers]"', 'hf download', "no checkpoint at 'none.pth'")),
    ],
)
def test_what_is_missing_is_told_at_once(command, said, tmp_path, monkeypatch, capsys):
    """Without the extras, weights and data, as after installing with [mmcv] only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.delenv('PVVAE_WEIGHTS', raising=False)
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    assert main([*command]) == 1
    out, err = capsys.readouterr()
    assert re.match(r'error: \d things are missing:\n', err) and not [text for text in said if text not in err], err
    assert out.count('\n') < 3 and not list(tmp_path.glob('work_dirs/*/*/*.log'))  # nothing was built


def test_a_process_without_the_extras_needs_none_of_them_to_tell(tmp_path):
    block = f'import sys; sys.modules.update(dict.fromkeys({EXTRAS}))'
    code = f'{block}; from pvvae_plugin.cli.console import main; sys.exit(main(["train", "dit_wan22"]))'
    env = {**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith('error: 6 things are missing:'), done.stderr
    assert all(text in done.stderr for text in ('[diffusers]"', "no folder 'weights/wan22'", *OF_UCF101))

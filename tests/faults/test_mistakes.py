"""The likeliest mistakes of a user: each is told at the start, with the value, what is valid and what to do."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mistakes import MISTAKES, train
from tiny_runs import ROOT, make_runs, script

from pvvae_plugin.apis import VideoAutoencoderInferencer
from pvvae_plugin.cli.console import message_for_users
from pvvae_plugin.config import read_config
from pvvae_plugin.files import file_sha256
from pvvae_plugin.registry import MODELS


@pytest.fixture(scope='module')
def things(tmp_path_factory, request):
    """Runs, files and folders for all mistakes."""
    folder = tmp_path_factory.mktemp('things')
    t = make_runs(folder)
    t.latents = folder / 'latents'
    torch.manual_seed(1)
    t.other_vae = folder / 'other.pth'
    state = torch.load(t.checkpoint, weights_only=True)['state_dict']
    torch.save({'state_dict': {name: tensor + 1 for name, tensor in state.items()}}, t.other_vae)
    t.half = folder / 'half.pth'
    t.half.write_bytes(t.checkpoint.read_bytes()[:-2000])
    t.head = save_generator(t, folder / 'head.pth')
    t.exported = folder / 'exported'
    script('export_vae.py', t.vae, t.checkpoint, t.exported)
    backbone = MODELS.build(read_config('pvvae_folder64').model.backbone)
    t.folder64 = folder / 'folder64.pth'
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in backbone.state_dict().items()}}, t.folder64)
    for name in ('videos', 'one', 'images', 'empty'):
        (folder / name).mkdir()
        setattr(t, name, folder / name)
    for i in range(3):
        write_video(t.videos / f'{i}.mp4')
        cv2.imwrite(str(t.images / f'{i}.png'), np.full((64, 64, 3), 40 * i, np.uint8))
    shutil.copy(t.videos / '0.mp4', t.one)
    t.with_weights = folder / 'with_weights.py'
    t.with_weights.write_text(f"""
_base_ = '{t.vae}'
test_dataloader = _base_.val_dataloader
test_cfg = dict()
test_evaluator = [
    dict(type='VideoReconstruction', lpips=dict(type='LPIPS', net='alex')),
    dict(type='FVD', extractor=dict(type='I3DTorchScript', weights='nowhere/i3d_torchscript.pt')),
    dict(type='FVD', extractor=dict(type='C3D', weights='nowhere/conv3d_deepnetA_ucf.npz')),
]
""")
    t.inferencer = VideoAutoencoderInferencer(t.vae, t.checkpoint)
    return t


def write_video(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 25, (64, 64))
    for i in range(20):
        writer.write(np.full((64, 64, 3), 10 * i, np.uint8))
    writer.release()


def save_generator(t: SimpleNamespace, path: Path) -> Path:
    model = MODELS.build({**read_config(t.generator).model, '_scope_': 'pvvae_plugin'})
    kept = {n: p for n, p in model.state_dict().items() if n.startswith(('head.', 'backbone.latent_'))}
    source = {'path': str(t.checkpoint), 'sha256': file_sha256(t.checkpoint)}
    torch.save({'state_dict': kept, 'backbone_source': source}, path)
    return path


@pytest.fixture
def t(things, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('PVVAE_WEIGHTS', raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))  # where torch keeps weights that were fetched
    for variable in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'LOCAL_RANK'):
        monkeypatch.delenv(variable, raising=False)

    def list_of(line: str) -> Path:
        path = tmp_path / 'list.txt'
        path.write_text(f'{line}\n')
        return path

    def run_of(part: str) -> Path:
        path = tmp_path / 'run.pth'
        rest = {'meta': {}, 'message_hub': {}, 'param_schedulers': {}, 'optimizer': {part: {}}}
        torch.save({**torch.load(things.checkpoint, weights_only=True), **rest}, path)
        return path

    return SimpleNamespace(**vars(things), tmp=tmp_path, list_of=list_of, run_of=run_of)


@pytest.mark.parametrize('mistake', MISTAKES, ids=lambda mistake: mistake.what)
def test_a_mistake_is_told_at_the_start(mistake, t, capsys):
    with pytest.raises(mistake.error) as caught:
        mistake.do(t)
    message = f'{caught.value}\n{capsys.readouterr().err if mistake.error is SystemExit else ""}'
    missing = [words for words in mistake.words if not re.search(words, message, re.DOTALL)]
    assert not missing, f'{mistake.what}: {missing} not in: {message}'
    assert mistake.faq in ' '.join(message.split()), message
    assert not list(t.tmp.rglob('iter_*.pth'))  # before any work
    assert mistake.error is SystemExit or message_for_users(caught.value)  # printed without its traceback


# Messages that docs/faq.md quotes and that are made elsewhere: packages that are missing, other VAEs, a run's end.
MADE_ELSEWHERE = (
    'pvvae_plugin needs mmcv',
    'DiffusersVAE needs diffusers',
    'LPIPS needs the packages',
    'things are missing:',  # test_train.py
    'Please run "pip install wandb"',
    '`_get_package_and_cfg_path` is used',
    'AutoencoderKLCogVideoX of diffusers does not decode',
    'conv3d_deepnetA_ucf.npz not found, looked at',
    'train_dataloader and val_dataloader differ in their classes',
    'the training clips have the classes',  # test_class_accuracy.py
    'LPIPS with net=',  # test_lpips.py
    'but the generator is trained on 9 x 32 x 32',  # test_generator_checks.py
    'but this one is unconditional',  # test_generate_checks.py
    'but this one was trained with class_dropout=0',
    'Metrics that work there',  # test_generator_checks.py
    'which pairs a video with its source',  # test_evaluate.py
    'holds only a variant of the weights',  # test_diffusers_vae.py
    'which did not record the network of',  # test_diffusers_commands.py
    'is not the network that was exported to',  # test_save_pretrained.py
    "no folder 'Wan-AI",
    'holds no config.json of a VAE',
    'skipped the last 10 steps, not finite',  # test_train.py; those below in test_stops.py
    'cannot be resumed with seed 5',
    'is in use by process',
    'timed out after 600 seconds',
    'it asks for posix.system',  # test_security.py
    "it contains meta['config']",  # test_security_of_names.py
)


def test_the_questions_quote_what_is_said():
    text = (ROOT / 'docs' / 'faq.md').read_text()
    spaced = ' '.join(text.split())
    absent = [mistake.faq for mistake in MISTAKES if mistake.faq and mistake.faq not in spaced]
    assert not absent
    known = (*(mistake.faq for mistake in MISTAKES if mistake.faq), *MADE_ELSEWHERE)
    blocks = re.findall(r'^```\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    quoted = [line for block in blocks for line in block.split('\n') if re.search(r'^(\S+: )?\w*[Ee]rror: ', line)]
    assert len(quoted) > 40
    assert not [line for line in quoted if not any(phrase in line for phrase in known)]


def test_the_table_covers_forty_and_names_none_twice():
    assert len({mistake.what for mistake in MISTAKES}) == len(MISTAKES) >= 40


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """What is logged of configs."""
    lines: list[str] = []
    monkeypatch.setattr('pvvae_plugin.config.overrides.print_log', lambda text, *_: lines.append(text))
    return lines


def test_a_misspelled_entry_of_a_users_file_is_told(t, told):
    """It is no error: a file may have variables of its own."""
    config = t.tmp / 'mine.py'
    config.write_text(f"_base_ = '{t.vae}'\ntrain_dataloadr = dict(batch_size=2)\nbatch = 3\ndefault_hook = dict()\n")
    read_config(config)
    assert [text for text in told if "'train_dataloadr'" in text and 'did you mean train_dataloader' in text]
    assert [text for text in told if "'default_hook'" in text]
    assert not [text for text in told if "'batch'" in text]


def test_our_configs_have_no_misspelled_entries(told):
    for path in sorted([*(ROOT / 'configs').rglob('*.py'), *(ROOT / 'projects').glob('*/configs/*.py')]):
        if path.parent.name != '_base_':
            read_config(path)
    assert not told


def test_a_process_without_a_gpu_beside_others_that_have_one(t, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for name, value in {'RANK': 2, 'WORLD_SIZE': 3, 'MASTER_ADDR': 'x', 'MASTER_PORT': 1, 'LOCAL_RANK': 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match=r'process 2 .* has no GPU \(GPUs: 2\); start 2 processes here'):
        train(t, flags=('--launcher', 'pytorch'))

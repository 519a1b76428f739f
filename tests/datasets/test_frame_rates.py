"""Videos of different frame rates are named: the same motion has another speed in each."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset

from pvvae_plugin.cli import verify
from pvvae_plugin.datasets import MotionWeightedDataset, SyntheticVideoDataset, VideoDataset
from pvvae_plugin.datasets.frame_rates import clip_rates, rates_differ, rates_within
from pvvae_plugin.engine.hooks import check_hook
from pvvae_plugin.registry import HOOKS


def write(folder, name, fps):
    folder.mkdir(exist_ok=True)
    writer = cv2.VideoWriter(str(folder / f'{name}.avi'), cv2.VideoWriter_fourcc(*'MJPG'), fps, (32, 32))
    for _ in range(5):
        writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.release()


def dataset(folder, **rates):
    for name, fps in rates.items():
        write(folder, name, fps)
    return VideoDataset(str(folder), clip_len=5, pipeline=[{'type': 'PackClip'}])


def test_mixed_rates_are_named_with_their_files(tmp_path):
    text = rates_within(clip_rates(dataset(tmp_path / 'mixed', a=10, b=60, c=60)))
    assert '10 (e.g.' in text and 'a.avi' in text and '60 (e.g.' in text and '6.0 times' in text
    assert 'ffmpeg' in text and 'fps=10' in text


def test_verify_notes_mixed_rates(tmp_path, capsys):
    dataset(tmp_path / 'mixed', a=10, b=60)
    assert verify.main([str(tmp_path / 'mixed'), '--clip-len', '5', '--workers', '1']) == 0
    assert 'note: frames per second range from 10 ' in capsys.readouterr().out


def test_rates_of_film_and_television_are_not_named(tmp_path):
    assert rates_within(clip_rates(dataset(tmp_path / 'film', a=24, b=25, c=30))) is None
    assert rates_within(clip_rates(SyntheticVideoDataset(length=4, clip_len=5, size=32))) is None


def test_broken_files_do_not_matter_and_few_are_opened(tmp_path, monkeypatch):
    found = dataset(tmp_path / 'many', **{f'v{i:02d}': 25 for i in range(40)})
    (tmp_path / 'many' / 'v00.avi').write_bytes(b'no video')
    rates = clip_rates(found)
    assert set(rates.values()) == {25} and len(rates) == 15


def test_the_interval_and_wrappers_count(tmp_path):
    slow, fast = dataset(tmp_path / 'slow', a=10), dataset(tmp_path / 'fast', a=60)
    assert rates_within(clip_rates(ConcatDataset([slow, fast]))) is not None
    assert list(clip_rates(MotionWeightedDataset(fast)).values()) == [60]
    every_sixth = VideoDataset(str(tmp_path / 'fast'), clip_len=1, frame_interval=6)
    assert list(clip_rates(every_sixth).values()) == [10]
    assert rates_within(clip_rates(ConcatDataset([slow, every_sixth]))) is None


def test_real_and_fake_are_compared(tmp_path):
    real, fake = dataset(tmp_path / 'real', a=25, b=25), dataset(tmp_path / 'fake', a=8)
    text = rates_differ(clip_rates(real), clip_rates(fake), 'real', 'fake')
    assert 'real 25' in text and 'fake 8' in text
    assert rates_differ(clip_rates(real), clip_rates(real), 'real', 'fake') is None
    assert rates_differ({}, clip_rates(real), 'real', 'fake') is None


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(
        check_hook, 'print_log', lambda text, *_, **__: texts.append(text) if 'per second' in text else None
    )
    return texts


def test_training_warns_at_its_start(tmp_path, said):
    train, val = dataset(tmp_path / 'train', a=10, b=60), dataset(tmp_path / 'val', a=25)
    backbone = SimpleNamespace(temporal_ratio=4, check_video=lambda video: None)
    reference = SimpleNamespace(dataset=dataset(tmp_path / 'real', a=250))
    evaluator = SimpleNamespace(metrics=[SimpleNamespace(reference=reference)])
    runner = SimpleNamespace(
        model=SimpleNamespace(backbone=backbone),
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=SimpleNamespace(dataset=val),
        val_loop=SimpleNamespace(evaluator=evaluator),
    )
    HOOKS.build({'type': 'StartCheckHook'}).before_train(runner)
    assert len(said) == 2
    assert 'train_dataloader' in said[0] and '6.0 times' in said[0]
    assert 'train_dataloader 35' in said[1] and 'reference 250' in said[1]

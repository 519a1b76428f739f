"""Class accuracy of a class-conditional generator: arithmetic, classifier, and rejected inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from pvvae_plugin import config_path
from pvvae_plugin.evaluation import class_accuracy as accuracy
from pvvae_plugin.evaluation.motion_classifier import (
    NEW_RECONSTRUCTIONS,
    MotionClassifier,
    classifier_digest,
    degrade,
    load_classifier,
    save_classifier,
    train_classifier,
)
from pvvae_plugin.functional.classification import confusion_counts, wilson_interval
from pvvae_plugin.registry import DATASETS, MODELS
from pvvae_plugin.structures import VideoDataSample
from pvvae_plugin.visualization.confusion import RIGHT, WRONG, draw_confusions


class MovingBars:
    """Clips of a bar that moves right (class 0) or down (class 1); frame 0 does not reveal the class."""

    metainfo = {'classes': ('right', 'down')}

    def __init__(self, seed: int, labels: tuple[int | None, ...] = (0, 1)) -> None:
        self.seed, self.labels = seed, labels

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> dict:
        rng, label = np.random.default_rng([self.seed, int(index)]), self.labels[int(index) % len(self.labels)]
        clip = np.tile(rng.integers(0, 120, (3, 1, 16, 16), dtype=np.uint8), (1, 5, 1, 1))
        start = rng.integers(0, 5, 2)
        for t in range(5):
            x, y = start + 2 * t * np.array([label != 1, label == 1])
            clip[:, t, y : y + 3, x : x + 3] = 255
        sample = VideoDataSample(metainfo={'label': label, 'path': str(index)})
        return {'inputs': torch.from_numpy(clip), 'data_samples': sample}


def batches(dataset: MovingBars) -> list:
    clips = [dataset[i] for i in range(len(dataset))]
    video = torch.stack([clip['inputs'] for clip in clips]) / 127.5 - 1
    return [(video, [clip['data_samples'].metainfo['label'] for clip in clips])]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(('hits', 'num'), [(0, 10), (10, 10), (3, 7), (50, 350), (349, 350)])
def test_wilson_interval_ends_where_the_score_test_turns(hits, num):
    # The ends are the proportions p with |hits / n - p| = z sqrt(p (1 - p) / n): roots of a quadratic.
    z = 1.959964
    a, b, c = 1 + z * z / num, -(2 * hits / num + z * z / num), (hits / num) ** 2
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    assert wilson_interval(hits, num) == pytest.approx(((-b - root) / (2 * a), (-b + root) / (2 * a)), abs=1e-9)


def test_wilson_interval_has_its_known_forms_at_the_ends():
    z = 1.959964
    assert wilson_interval(0, 20) == pytest.approx((0, z * z / (20 + z * z)))
    assert wilson_interval(20, 20) == pytest.approx((20 / (20 + z * z), 1))
    for hits, num in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match='hits in 0..num'):
            wilson_interval(hits, num)


def test_confusion_counts_agree_with_counting():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 5, (2, 200)).tolist()
    expected = np.zeros((6, 6), dtype=int)
    for label, guess in zip(labels, guesses, strict=True):
        expected[label, guess] += 1
    counts = confusion_counts(labels, guesses, 6)
    assert np.array_equal(counts, expected)
    result = accuracy.summarize(counts, 'abcdef')
    assert result['accuracy'] == np.mean(np.array(labels) == np.array(guesses))
    assert result['per_class'].keys() == set('abcde')  # nobody asked for f
    assert result['per_class']['c'] == expected[2, 2] / labels.count(2)
    with pytest.raises(ValueError, match='labels and guesses differ'):
        confusion_counts([0, 1], [0], 2)
    with pytest.raises(ValueError, match=r'0\.\.1'):
        confusion_counts([0, 1], [0, 2], 2)


def test_classifier_recognises_motion_on_unseen_clips_blurred_ones_too(one_thread):
    model = train_classifier(MovingBars(seed=0), 2, steps=25, seed=0, num_workers=0)
    clips = batches(MovingBars(seed=1))
    counts = accuracy.judge(model, clips, 2)
    assert counts.sum() == 96 and counts.trace() >= 92
    degraded = degrade(clips[0][0], torch.Generator().manual_seed(0))
    assert not torch.equal(degraded, clips[0][0])
    assert accuracy.judge(model, [(degraded, clips[0][1])], 2).trace() >= 90
    # Without motion, accuracy is at chance level: the classifier uses motion.
    still = clips[0][0][:, :, :1].expand(-1, -1, 5, -1, -1)
    assert abs(accuracy.judge(model, [(still, clips[0][1])], 2).trace() - 48) <= 20


def test_classifier_learns_what_the_vae_makes_of_a_motion(one_thread):
    def reconstruct(video):  # a VAE that shows motion by brightness alone
        seen.extend(video)
        moved = (video[:, :, -1] - video[:, :, 0]).abs().mean(dim=1)  # (N, H, W)
        right = moved.sum(dim=1).gt(0.5).sum(dim=1) > moved.sum(dim=2).gt(0.5).sum(dim=1)
        return torch.where(right, 0.9, -0.9)[:, None, None, None, None].expand_as(video)

    seen: list = []
    clips = batches(MovingBars(seed=1))
    shown = [(reconstruct(clips[0][0]), clips[0][1])]
    seen.clear()
    model = train_classifier(MovingBars(seed=0), 2, steps=25, seed=0, reconstruct=reconstruct, num_workers=0)
    assert accuracy.judge(model, clips, 2).trace() >= 88
    assert accuracy.judge(model, shown, 2).trace() >= 88
    assert len(seen) == 25 * NEW_RECONSTRUCTIONS


def test_training_is_the_same_again_and_follows_its_seed(one_thread):
    torch.manual_seed(1)
    first = train_classifier(MovingBars(seed=0), 2, steps=2, seed=0, num_workers=0).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = train_classifier(MovingBars(seed=0), 2, steps=2, seed=0, num_workers=0).state_dict()
    other = train_classifier(MovingBars(seed=0), 2, steps=2, seed=1, num_workers=0).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first['logits.weight'], other['logits.weight'])


def test_classifier_takes_bytes_and_any_size():
    model = MotionClassifier(7).eval()
    assert sum(p.numel() for p in model.parameters()) < 300_000
    for shape in ((2, 3, 9, 32, 32), (1, 3, 17, 128, 96), (1, 3, 1, 8, 8), (1, 3, 5, 33, 47)):
        clip = torch.randint(0, 256, shape, dtype=torch.uint8)
        logits = model(clip)
        assert logits.shape == (shape[0], 7) and logits.isfinite().all()
        torch.testing.assert_close(logits, model(clip / 127.5 - 1))
    # Frames of twice the size are the same clip, once shrunk.
    clip = torch.rand(1, 3, 5, 17, 20) * 2 - 1
    torch.testing.assert_close(model(clip.repeat_interleave(2, 3).repeat_interleave(2, 4)), model(clip))


def test_saved_weights_are_reused_and_foreign_ones_refused(tmp_path):
    torch.manual_seed(0)
    model = MotionClassifier(3).eval()
    data = {'type': 'SyntheticVideoDataset', 'seed': 0, 'pipeline': [{'type': 'PackClip'}]}
    digest = classifier_digest(data, 3, 10, 0)
    path = tmp_path / 'folder' / 'classifier.pth'
    save_classifier(model, path, digest)
    other_process = path.with_name('classifier.pth.part')
    other_process.write_bytes(b'another process is writing here')
    save_classifier(model, path, digest)
    assert other_process.read_bytes() == b'another process is writing here'
    clip = torch.rand(1, 3, 5, 16, 16)
    assert torch.equal(load_classifier(path, digest)(clip), model(clip))
    record = torch.load(path, weights_only=True)
    wrapped = {f'module.{name}': tensor for name, tensor in record['state_dict'].items()}
    torch.save({**record, 'state_dict': wrapped}, tmp_path / 'wrapped.pth')
    assert torch.equal(load_classifier(tmp_path / 'wrapped.pth', digest)(clip), model(clip))
    others = [classifier_digest({**data, 'seed': 1}, 3, 10, 0), classifier_digest(data, 3, 11, 0)]
    others += [classifier_digest(data, 3, 10, 1), classifier_digest(data, 4, 10, 0)]
    others += [classifier_digest(data, 3, 10, 0, vae_sha256='0f')]
    assert len({digest, *others}) == 6
    (tmp_path / 'damaged.pth').write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match='damaged'):
        load_classifier(tmp_path / 'damaged.pth', digest)
    for other in others:
        with pytest.raises(ValueError, match='is a classifier trained with another dataset'):
            load_classifier(path, other)


def test_a_replaced_video_makes_another_classifier(tmp_path, write_video):
    paths = [write_video(tmp_path / name / 'a.mp4', num_frames=5) for name in ('run', 'jump')]
    dataset = {'type': 'VideoDataset', 'data_root': str(tmp_path), 'clip_len': 5, 'pipeline': [{'type': 'PackClip'}]}
    cfg = Config({'train_dataloader': {'dataset': dataset}, 'val_dataloader': {'dataset': dataset}})

    def digest():
        data = accuracy.build_labeled_data(cfg, 2)
        return classifier_digest(data.train_config, 2, 10, 0, files=data.train_files)

    before = digest()
    assert digest() == before
    write_video(Path(paths[0]), num_frames=6)
    assert digest() != before


def test_held_out_clips_with_other_classes_are_rejected(tmp_path, write_video):
    folders = [('train', 'abc'), ('val', 'ac')]
    for split, names in folders:
        for name in names:
            write_video(tmp_path / split / name / 'clip.mp4', num_frames=5)
    common = {'type': 'VideoDataset', 'clip_len': 5, 'pipeline': [{'type': 'PackClip'}]}
    datasets = {
        f'{split}_dataloader': {'dataset': {**common, 'data_root': str(tmp_path / split)}} for split, _ in folders
    }
    with pytest.raises(ValueError, match='classes a, b, c, but the held-out clips have a, c,.*set class_file'):
        accuracy.build_labeled_data(Config(datasets), 2)
    for entry in datasets.values():
        entry['dataset']['metainfo'] = {'classes': ('a', 'b', 'c')}
    assert accuracy.build_labeled_data(Config(datasets), 2).held_out[1]['data_samples'].label == 2


def test_replacements_of_unreadable_held_out_clips_are_not_counted(tmp_path, write_video):
    for name in ('run/a', 'run/b', 'jump/a'):
        write_video(tmp_path / f'{name}.mp4', num_frames=5)
    dataset = {'type': 'VideoDataset', 'data_root': str(tmp_path), 'clip_len': 5, 'test_mode': True}
    dataset['pipeline'] = [{'type': 'PackClip'}]
    data = accuracy.build_labeled_data(Config({f'{n}_dataloader': {'dataset': dataset} for n in ('train', 'val')}), 3)
    (tmp_path / 'run' / 'a.mp4').write_bytes(b'no video')
    labels = [label for _, labels in accuracy.real_clips(data, num=3, batch_size=2) for label in labels]
    assert sorted(labels) == [0, 1]


def demo_config(**dataset) -> Config:
    cfg = Config.fromfile(config_path('dit_demo.py'))
    cfg.train_dataloader.dataset.update(dataset)
    return cfg


def test_held_out_clips_are_others_of_the_same_kind():
    cfg = demo_config(length=50, pipeline=[{'type': 'RandomTimeReverse', 'prob': 1.0}, {'type': 'PackClip'}])
    data = accuracy.build_labeled_data(cfg, 21)
    assert len(data.held_out) == 21 and data.classes == data.train.metainfo['classes']
    cfg.train_dataloader.dataset.pipeline.pop(0)
    plain = DATASETS.build(cfg.train_dataloader.dataset)
    assert torch.equal(data.train[3]['inputs'], plain[3]['inputs'])  # forwards
    held_out = [data.held_out[i]['inputs'] for i in range(21)]
    trained_on = [plain[i]['inputs'] for i in range(21)]
    (video, labels), *more = accuracy.real_clips(data, 14, batch_size=14)
    assert not more and len(labels) == 14
    for clip, label in zip(((video + 1) * 127.5).round().byte(), labels, strict=True):
        assert [i % 7 for i, other in enumerate(held_out) if torch.equal(clip, other)] == [label]
        assert not any(torch.equal(clip, other) for other in trained_on)


def test_data_without_clips_or_labels_is_refused(tmp_path):
    cfg = demo_config()
    cfg.train_dataloader.dataset = {'type': 'UnlabeledClips', 'pipeline': []}
    with_name = {'UnlabeledClips': lambda pipeline: MovingBars(0, labels=(None,))}
    cfg.val_dataloader = {'dataset': cfg.train_dataloader.dataset}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DATASETS, 'build', lambda config: with_name[config['type']](config['pipeline']))
        with pytest.raises(ValueError, match='has no labels'):
            accuracy.build_labeled_data(cfg, 10)
        cfg.val_dataloader = None
        with pytest.raises(ValueError, match='no val_dataloader'):
            accuracy.build_labeled_data(cfg, 10)
    with pytest.raises(ValueError, match=r'needs a label in 0\.\.1, got None'):
        train_classifier(MovingBars(0, labels=(0, None)), 2, steps=1, seed=0, num_workers=0)


@pytest.mark.parametrize(('num_classes', 'reason'), [(None, 'unconditional'), (5, 'has 5 classes'), (2, None)])
def test_generator_must_make_the_classes_of_the_data(num_classes, reason):
    model = Config.fromfile(config_path('dit_demo.py')).model
    model.backbone_checkpoint = None
    model.head.update(num_classes=num_classes, depth=2, hidden_size=16, num_heads=2)
    generator = MODELS.build(model)
    if reason is None:
        accuracy.check_generator(generator, ('right', 'down'))
    else:
        with pytest.raises(ValueError, match=reason):
            accuracy.check_generator(generator, ('right', 'down'))


def test_generated_clips_bear_the_class_that_was_asked_for():
    class Generator(nn.Module):
        head = nn.Module()
        head.null_label = 3

        def generate(self, num, num_frames, size, labels, **options):
            assert options == {'steps': 4}
            for i, label in enumerate(labels):
                yield i, torch.full((3, num_frames, *size), float(label))

    class Judge(nn.Linear):
        def forward(self, video):  # takes class 2 for 0
            return nn.functional.one_hot(video.mean(dim=(1, 2, 3, 4)).long() % 2, 3)

    clips = list(accuracy.generated_clips(Generator(), 7, (5, 8, 8), steps=4))
    assert all(clip.shape == (1, 3, 5, 8, 8) for clip, _ in clips)
    assert accuracy.judge(Judge(1, 1), clips, 3).tolist() == [[3, 0, 0], [0, 2, 0], [2, 0, 0]]


def test_picture_shows_where_the_counts_lie():
    counts = np.array([[8, 0], [5, 0]])
    picture = draw_confusions([counts, counts.T], ['one', 'two'], ['right', 'downwards'])
    assert picture.dtype == np.uint8 and picture.ndim == 3
    full_blue = (picture == RIGHT).all(2).sum(0).nonzero()[0]
    full_orange = (picture == WRONG).all(2).sum(0).nonzero()[0]
    assert full_blue.min() == full_orange.min()  # left panel: both rows guessed as the first class
    with pytest.raises(ValueError, match='do not match matrices'):
        draw_confusions([counts], ['one', 'two'], ['a', 'b'])

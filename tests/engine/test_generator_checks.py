"""Invalid generator setups are rejected before the first step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from tiny_extractors import Statistics
from torch.utils.data import ConcatDataset

from pvvae_plugin.engine import GenerationLoop
from pvvae_plugin.engine.hooks import check_hook
from pvvae_plugin.models.checkpoints import load_backbone
from pvvae_plugin.registry import DATASETS, HOOKS, METRICS, MODELS
from pvvae_plugin.structures import VideoDataSample

CLASSES = ('bounce', 'fall', 'turn')


class Clips(list):
    """Minimal dataset of clips or moments for the hook."""

    def __init__(self, inputs, labels, **metainfo):
        samples = [VideoDataSample(metainfo={'label': label, 'path': f'{i}'}) for i, label in enumerate(labels)]
        super().__init__({'inputs': inputs, 'data_samples': sample} for sample in samples)
        self.labels, self.metainfo = labels, metainfo

    def get_data_info(self, index):
        return {'label': self.labels[index]}


def clips(labels=(0, 1, 2), frames=5, size=32, **metainfo):
    return Clips(torch.zeros(3, frames, size, size, dtype=torch.uint8), labels, **metainfo)


def moments(channels=4, sha256='a' * 64, groups=2):
    dataset = Clips(torch.zeros(2 * channels, groups, 2, 2), (0, 1, 2), classes=list(CLASSES))
    dataset.manifest = {'source': {'checkpoint_sha256': sha256}, 'checkpoint': 'their.pth'}
    return dataset


@pytest.fixture
def model(tiny_vae_config):
    head = {'type': 'LatentDiT', 'latent_channels': 4, 'num_classes': 3, 'depth': 2, 'hidden_size': 32, 'num_heads': 2}
    model = MODELS.build(
        {'type': 'LatentVideoGenerator', 'backbone': tiny_vae_config, 'backbone_checkpoint': None, 'head': head}
    )
    model.backbone_source = {'path': 'our.pth', 'sha256': 'a' * 64}
    return model


def runner_of(model, **datasets):
    loaders = {f'{name}_dataloader': SimpleNamespace(dataset=dataset) for name, dataset in datasets.items()}
    logged = []
    logger = SimpleNamespace(warning=logged.append)
    return SimpleNamespace(
        model=model, val_loop=datasets.get('val'), test_loop=None, logger=logger, logged=logged, **loaders
    )


def check(model, train, val=None):
    HOOKS.build({'type': 'StartCheckHook'}).before_train(runner_of(model, train=train, val=val))


def test_what_fits_passes(model):
    check(model, clips(classes=CLASSES), clips(classes=list(CLASSES)))
    check(model, moments(), moments())
    check(model, clips(labels=(0, 1)))  # labels without names: a class may have no clip
    model.head.num_classes = None
    check(model, clips(labels=(None, None)))
    check(model, clips(classes=CLASSES), clips(classes=CLASSES[:2]))  # class folders without a class-conditional head


@pytest.mark.parametrize(
    ('train', 'val', 'message'),
    [
        (
            clips(classes=CLASSES[:2]),
            None,
            r'train_dataloader have 2 classes, but the head has 3; .*\.num_classes=2',
        ),
        (clips(classes=(*CLASSES, 'x')), None, 'have 4 classes, but the head has 3'),
        (clips(num_classes=4), None, 'have 4 classes, but the head has 3'),
        (clips(labels=(0, 3)), None, 'have 4 classes, but the head has 3'),  # label 3 would pass for "no class"
        (clips(labels=(None, None)), None, r'no labels, but the head is class-conditional'),
        (clips(classes=CLASSES), clips(classes=CLASSES[::-1]), 'differ in their classes or in the class order'),
        (clips(frames=6, classes=CLASSES), None, r'train_dataloader do not fit the backbone: a clip of 6 frames'),
        (clips(classes=CLASSES), clips(size=40, classes=CLASSES), 'val_dataloader do not fit the backbone: height 40'),
        (
            clips(classes=CLASSES),
            clips(size=48, classes=CLASSES),
            r'^val_dataloader has clips of 5 x 48 x 48 \(latents 2 x 3 x 3\), but .* trained on 5 x 32 x 32 \(latents '
            r'2 x 2 x 2\); set the clip length and size of val_dataloader to those of train_dataloader',
        ),
        (moments(), clips(frames=9, classes=CLASSES), r'has clips of 9 x 32 x 32 .* trained on 5 x 32 x 32'),
        (clips(classes=CLASSES), moments(groups=3), r'has clips of 9 x 32 x 32 .* trained on 5 x 32 x 32'),
        (moments(channels=8), None, 'have 8 channels, but the backbone has 4; extract'),
        (moments(), moments(sha256='b' * 64), r'val_dataloader were made by the VAE their\.pth .*our\.pth'),
    ],
)
def test_what_does_not_fit_is_refused(model, train, val, message):
    with pytest.raises(ValueError, match=message):
        check(model, train, val)


@pytest.mark.parametrize('num_classes', [2, 3])
def test_classes_that_only_one_folder_has_are_named_before_their_number(model, num_classes):
    """Following the message resolves it, whatever the head has."""
    model.head.num_classes = num_classes
    train, val = clips(classes=CLASSES), clips(classes=CLASSES[::2])
    with pytest.raises(ValueError, match='differ in their classes') as error:
        check(model, train, val)
    text = str(error.value)
    assert 'classes: train_dataloader 3, val_dataloader 2' in text and 'only in train_dataloader: fall' in text
    assert 'bounce, fall, turn' in text and 'class_file' in text and 'model.head.num_classes=3' in text
    model.head.num_classes = 3
    check(model, train, clips(classes=CLASSES))


def test_a_validation_at_any_of_the_trained_sizes_passes(model):
    train, val = clips(classes=CLASSES), clips(size=48, classes=CLASSES)
    check(model, ConcatDataset([train, val]), val)
    runner = runner_of(model, train=train, val=val)
    runner.train_dataloader.batch_sampler = SimpleNamespace(resolutions=[{'size': 32}, {'size': 48}])
    HOOKS.build({'type': 'StartCheckHook'}).before_train(runner)
    model.trained_on = {(5, 48, 48)}  # by the run that wrote the loaded checkpoint
    check(model, train, val)


def test_other_sizes_than_those_of_the_checkpoint_are_told(model):
    model.trained_on = {(5, 32, 32)}
    hook, other = HOOKS.build({'type': 'StartCheckHook'}), clips(frames=9, classes=CLASSES)
    runner = runner_of(model, train=other, test=other)
    hook.before_train(runner)
    hook.before_test(runner)
    assert [text.split(', but')[0] for text in runner.logged] == [
        f'{name}_dataloader has clips of 9 x 32 x 32 (latents 3 x 2 x 2)' for name in ('train', 'test')
    ]
    runner = runner_of(model, train=moments(), test=clips(classes=CLASSES))
    hook.before_train(runner)
    hook.before_test(runner)
    assert not runner.logged


SHORT = {'base': 'paper', 'num_frames': 5}
METRICS_BY_NAME = {
    'VideoReconstruction': {},
    'FuturePrediction': {},
    'LatentTemporalDistance': {},
    'FlowLoss': {},
    'FVD': {'extractor': Statistics(), 'protocol': SHORT},
    'FVD with a reference': {
        'extractor': Statistics(),
        'protocol': SHORT,
        'reference': {'dataset': {'type': 'SyntheticVideoDataset', 'length': 4, 'size': 32}},
    },
}


@pytest.mark.parametrize(
    ('giver', 'suitable'),
    [
        ('GenerationLoop', ['FVD with a reference']),
        ('LatentVideoGenerator', ['FlowLoss']),
        ('VideoAutoencoder', ['VideoReconstruction', 'FuturePrediction', 'LatentTemporalDistance', 'FVD']),
    ],
)
def test_a_metric_that_would_find_nothing_to_measure_is_refused(giver, suitable, model, tiny_vae_config):
    if giver == 'VideoAutoencoder':
        model = MODELS.build({'type': giver, 'backbone': tiny_vae_config, 'loss': {'type': 'PredictiveReconLoss'}})
    runner = runner_of(model, test=clips(classes=CLASSES))
    runner.test_loop = GenerationLoop.__new__(GenerationLoop) if giver == 'GenerationLoop' else SimpleNamespace()
    passed = []
    for name, options in METRICS_BY_NAME.items():
        metric = METRICS.build({'type': name.split()[0], **options})
        runner.test_loop.evaluator = SimpleNamespace(metrics=[metric])
        try:
            HOOKS.build({'type': 'StartCheckHook'}).before_test(runner)
            passed.append(name)
        except ValueError as error:
            message = str(error)
            assert f'test_evaluator: {name.split()[0]} reads ' in message and f'but {giver} gives' in message
            assert suitable[0].split()[0] in message.split('Metrics that work there: ')[1]
    assert passed == suitable


def test_the_size_of_the_data_is_logged_and_doubted(model, monkeypatch):
    lines = []
    monkeypatch.setattr(check_hook, 'print_log', lambda text, *_: lines.append(text))
    check(model, clips(classes=CLASSES), moments())
    assert lines == [
        'train_dataloader: 3 clips of 5 x 32 x 32',
        'val_dataloader: 3 clips as cached latents of 2 x 2 x 2',
    ]
    lines.clear()
    model.head.num_classes = None
    model.backbone.trained_frames = 5
    check(model, clips(labels=(0,), frames=9), moments(groups=3))
    assert lines[0] == 'train_dataloader: 1 clip of 9 x 32 x 32' and len(lines) == 5
    assert 'only 1 clip' in lines[1] and 'data_root' in lines[1]
    assert '9 frames, but the VAE was trained on clips of 5' in lines[2]


def test_a_folder_of_one_video_is_doubted(model, write_video, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(check_hook, 'print_log', lambda text, *_: lines.append(text))
    write_video(tmp_path / 'a.mp4')
    pipeline = [{'type': 'CenterCropClip', 'size': 32}, {'type': 'PackClip'}]
    dataset = {'type': 'VideoDataset', 'data_root': str(tmp_path), 'clip_len': 5, 'pipeline': pipeline}
    model.head.num_classes = None
    check(model, DATASETS.build(dataset))
    assert lines[0] == f'train_dataloader: 1 video in {tmp_path}, clips of 5 x 32 x 32'
    assert lines[1].startswith('train_dataloader has only 1 video: ')


def test_a_vae_remembers_the_length_it_was_trained_on(tiny_vae_config, tmp_path):
    vae = MODELS.build(tiny_vae_config)
    state = {f'backbone.{name}': tensor for name, tensor in vae.state_dict().items()}
    loader = {'dataset': {'type': 'MotionWeightedDataset', 'dataset': {'clip_len': 9}}}
    runner = SimpleNamespace(cfg=Config({'train_dataloader': loader}), seed=0, model=torch.nn.Module())
    checkpoint = {'state_dict': state}
    HOOKS.build({'type': 'RunRecordHook'}).before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'iter_1.pth')
    assert vae.trained_frames is None
    load_backbone(vae, str(tmp_path / 'iter_1.pth'))
    assert vae.trained_frames == 9


def test_concatenated_datasets_with_different_classes_are_named(model):
    train = clips()
    train.datasets = [clips(classes=CLASSES), clips(classes=CLASSES[:2])]
    with pytest.raises(ValueError, match=r'train_dataloader\.dataset\.datasets\.0 and .*datasets\.1 differ') as error:
        check(model, train)
    assert 'only in train_dataloader.dataset.datasets.0: turn' in str(error.value)
    model.head.num_classes = None
    check(model, train)


def test_a_test_alone_is_checked_too(model):
    hook = HOOKS.build({'type': 'StartCheckHook'})
    with pytest.raises(ValueError, match='test_dataloader were made by the VAE'):
        hook.before_test(runner_of(model, test=moments(sha256='b' * 64)))


def test_a_checkpoint_of_another_head_is_refused(model, tiny_vae_config):
    hook = HOOKS.build({'type': 'StartCheckHook'})
    state = dict(model.state_dict())
    hook.after_load_checkpoint(SimpleNamespace(model=model), {'state_dict': state})
    vae = {name: tensor for name, tensor in state.items() if name.startswith('backbone.')}
    with pytest.raises(ValueError, match=r'weights missing \(head\.'):  # the checkpoint of a VAE
        hook.after_load_checkpoint(SimpleNamespace(model=model), {'state_dict': vae})


def test_a_missing_vae_names_the_command_that_makes_it(tiny_vae_config):
    config = {'type': 'LatentVideoGenerator', 'backbone': tiny_vae_config, 'head': {'type': 'LatentDiT'}}
    with pytest.raises(
        FileNotFoundError, match=r'configs/pvvae_ucf101_decoder\.py\), or .* model\.backbone_checkpoint='
    ):
        MODELS.build({**config, 'backbone_checkpoint': 'no_such_folder/pvvae_ucf101_decoder'})
    with pytest.raises(FileNotFoundError, match='train it first, or set another path'):
        MODELS.build({**config, 'backbone_checkpoint': 'no_such_folder/mine'})

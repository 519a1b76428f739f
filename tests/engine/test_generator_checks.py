"""Invalid generator setups are rejected before the first step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pvvae_plugin.registry import HOOKS, MODELS
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


def moments(channels=4, sha256='a' * 64):
    dataset = Clips(torch.zeros(2 * channels, 2, 2, 2), (0, 1, 2), classes=list(CLASSES))
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
    return SimpleNamespace(model=model, val_loop=datasets.get('val'), test_loop=None, **loaders)


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

"""The clip facts of a config agree with the clips that its dataset returns."""

import json

import pytest
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.config import class_names, clip_geometry
from pvvae_plugin.config.clip_facts import spatial_steps
from pvvae_plugin.registry import DATASETS

RESIZE = {'type': 'ResizeClip', 'size': 40}
MIDDLE = {'type': 'CenterCropClip', 'size': 24}


def config(dataset, split='train'):
    return Config({f'{split}_dataloader': {'dataset': dataset}})


def videos(pipeline, **options):
    return {'type': 'VideoDataset', 'data_root': '/nowhere', 'clip_len': 17, 'pipeline': pipeline, **options}


def drawn(pipeline):
    return {'type': 'SyntheticVideoDataset', 'length': 7, 'clip_len': 5, 'size': 32, 'pipeline': pipeline}


@pytest.fixture
def latents(tmp_path):
    """Write a folder of latents that holds only a manifest."""
    clips = {'type': 'SyntheticVideoDataset', 'length': 7, 'clip_len': 9, 'size': 64, 'pipeline': []}
    facts = {'latent_shape': [4, 3, 8, 16], 'temporal_ratio': 4, 'spatial_ratio': 8, 'dataset': {'config': clips}}
    (tmp_path / 'manifest.json').write_text(json.dumps({'format_version': 1, **facts}))
    return {'type': 'LatentDataset', 'data_root': str(tmp_path)}


@pytest.mark.parametrize(
    'pipeline',
    [[], [RESIZE], [RESIZE, {'type': 'CenterCropClip', 'size': 24}], [{'type': 'RandomCropClip', 'size': 8}]],
)
def test_geometry_is_that_of_the_clips_themselves(pipeline):
    dataset = drawn([*pipeline, {'type': 'PackClip'}])
    _, frames, height, width = DATASETS.build(dataset)[0]['inputs'].shape
    assert clip_geometry(config(dataset)) == (frames, (height, width))


@pytest.mark.parametrize(('name', 'expected'), [('pvvae_folder64', (17, (64, 64))), ('pvvae_ucf101', (17, (256, 256)))])
def test_geometry_of_configs_whose_videos_are_not_here(name, expected):
    assert clip_geometry(Config.fromfile(config_path(f'{name}.py'))) == expected


def test_geometry_of_cached_latents(latents):
    assert clip_geometry(config(latents)) == (9, (64, 128))


def test_geometry_behind_wrappers_and_of_the_validation_set(latents):
    crop = [{'type': 'RandomCropClip', 'size': 48}]
    assert clip_geometry(config({'type': 'RepeatDataset', 'times': 2, 'dataset': videos(crop)})) == (17, (48, 48))
    assert clip_geometry(config({'type': 'ConcatDataset', 'datasets': [videos(crop)]}, 'val')) == (17, (48, 48))
    missing = {'type': 'LatentDataset', 'data_root': '/nowhere'}
    both = Config({'train_dataloader': {'dataset': missing}, 'val_dataloader': {'dataset': latents}})
    assert clip_geometry(both) == (9, (64, 128))


def test_what_is_given_is_kept_and_what_is_unknown_asked_for():
    resized = config(videos([RESIZE]))  # the long side depends on the video
    with pytest.raises(ValueError, match=r'pass --size H W$'):
        clip_geometry(resized)
    assert clip_geometry(resized, size=[40, 64]) == (17, (40, 64))
    assert clip_geometry(resized, num_frames=5, size=[40, 64]) == (5, (40, 64))
    with pytest.raises(ValueError, match='--num-frames T and --size H W'):
        clip_geometry(config({'type': 'LatentDataset', 'data_root': '/nowhere'}))


def test_names_of_classes(tmp_path, latents):
    motions = DATASETS.get('SyntheticVideoDataset').METAINFO['classes']
    assert class_names(config(drawn([])), len(motions)) == motions
    assert class_names(config(latents), len(motions)) == motions
    assert class_names(config(drawn([])), len(motions) + 1) is None
    assert class_names(config(drawn([])), None) is None
    assert class_names(config(videos([], metainfo={'classes': ['a', 'b']})), 2) == ('a', 'b')
    assert class_names(config(videos([])), 2) is None

    (tmp_path / 'classes.txt').write_text('1 run\n2 jump\n')
    listed = videos([], data_root=str(tmp_path), class_file='classes.txt', ann_file='list.txt')
    assert class_names(config(listed), 2) == ('run', 'jump')
    for name in ('walk', 'sit'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.mp4').touch()
    assert class_names(config(videos([], data_root=str(tmp_path))), 2) == ('sit', 'walk')
    (tmp_path / 'stray.mp4').touch()  # training would reject this folder
    assert class_names(config(videos([], data_root=str(tmp_path))), 2) is None


def test_steps_that_lead_to_the_size_asked_for():
    train, crop = [RESIZE, {'type': 'RandomCropClip', 'size': 32}, {'type': 'PackClip'}], {'size': 32}
    middle = [RESIZE, {'type': 'CenterCropClip', **crop}]
    assert spatial_steps(config(videos(train)), (32, 32)) == middle
    assert spatial_steps(config(videos(train)), (40, 40)) is None
    assert spatial_steps(config(drawn([])), (32, 32)) is None

"""An evaluation whose data worker hangs in a file ends with an error that names the file."""

import time

import pytest
from tiny_extractors import Statistics

from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.datasets.checking import stuck_workers
from pvvae_plugin.evaluation import FVD
from pvvae_plugin.evaluation.folders import evaluate_videos
from pvvae_plugin.evaluation.motion_classifier import train_classifier
from pvvae_plugin.registry import DATASETS


class Endless(SyntheticVideoDataset):
    """Labeled clips that no decoder ever finishes."""

    def load_clip(self, info, rng):
        time.sleep(60)


CLIPS = {'type': Endless, 'length': 4, 'clip_len': 5, 'size': 16, 'pipeline': [{'type': 'PackClip'}]}


def reference_pass():
    reference = {'dataset': CLIPS, 'num_workers': 1, 'cache_dir': None}
    FVD(Statistics(), {'base': 'paper', 'num_frames': 5}, reference).prepare(5, 4)


@pytest.mark.parametrize(
    'read',
    [
        reference_pass,
        lambda: evaluate_videos([], CLIPS, num_samples=4, num_workers=1),
        lambda: train_classifier(DATASETS.build(CLIPS), num_classes=7, steps=1, seed=0),
    ],
    ids=['reference', 'evaluate', 'classifier'],
)
def test_the_hanging_file_is_named(read, monkeypatch):
    monkeypatch.setattr(stuck_workers, 'READ_TIMEOUT', 1)
    with pytest.raises(stuck_workers.DataWorkerError, match=r'worker 0 \(pid \d+\) has been reading'):
        read()

"""The example of docs/data.md runs."""

import re
from pathlib import Path

import numpy as np

from pvvae_plugin.registry import DATASETS

DOCUMENT = Path(__file__).resolve().parents[2] / 'docs' / 'data.md'


def test_own_data_set(tmp_path):
    code = re.search(r'```python\n(.*?)```', DOCUMENT.read_text(encoding='utf-8'), re.DOTALL)[1]
    exec(compile(code, str(DOCUMENT), 'exec'), {})
    np.save(tmp_path / '3.npy', np.zeros((7, 4, 4, 3), np.uint8))
    config = {'type': 'NpyDataset', 'data_root': str(tmp_path), 'clip_len': 5, 'pipeline': [{'type': 'PackClip'}]}
    try:
        assert DATASETS.build(config)[3]['inputs'].shape == (3, 5, 4, 4)
    finally:
        for registry in (DATASETS, DATASETS.parent):
            registry.module_dict.pop('NpyDataset')

"""A dataset whose clips hang, crash, fail or cannot be read, for custom_imports of configs."""

import os
import time

import numpy as np

from pvvae_plugin.datasets import ClipDataset, ClipError
from pvvae_plugin.registry import DATASETS


@DATASETS.register_module(force=True)
class Troublesome(ClipDataset):
    """Clips that hang, crash, fail, or cannot be read, by their names."""

    def load_data_list(self):
        return [{'path': name} for name in ('good0', 'hang', 'crash', 'exit', 'bug', 'bad', 'memory', 'good1')]

    def load_clip(self, info, rng):
        if info['path'] == 'hang':
            time.sleep(1000)
        if info['path'] == 'crash':
            os.kill(os.getpid(), 11)
        if info['path'] == 'exit':
            os._exit(3)
        if info['path'] == 'bug':
            raise KeyError('no such thing')
        if info['path'] == 'bad':
            raise ClipError('bad', 'broken on purpose')
        if info['path'] == 'memory':
            bytearray(1 << 40)
        return np.zeros((self.clip_len, 4, 4, 3), np.uint8)

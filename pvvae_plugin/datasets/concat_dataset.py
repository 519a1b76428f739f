"""Several datasets as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import ConcatDataset as _ConcatDataset

from pvvae_plugin.registry import DATASETS


@DATASETS.register_module()
class ConcatDataset(_ConcatDataset):
    """Datasets one after another. Unlike MMEngine's, their classes may differ, because VAEs ignore labels.

    If they differ, ``metainfo`` has no ``classes``, and class-conditional generators reject the dataset.

    Args:
        datasets: Datasets or their configs.
        lazy_init: Whether to load the lists on the first access.
        ignore_keys: Further keys of ``metainfo`` that may differ.

    Example:
        >>> import numpy as np
        >>> from pvvae_plugin.registry import DATASETS
        >>> from pvvae_plugin.visualization import write_video
        >>> for name in ('a/run/1', 'b/jump/2'):
        ...     write_video(f'{name}.webm', np.zeros((9, 32, 48, 3), np.uint8), fps=8)
        >>> parts = [dict(type='VideoDataset', data_root=root, clip_len=9) for root in 'ab']
        >>> len(DATASETS.build(dict(type='ConcatDataset', datasets=parts)))
        2
    """

    def __init__(self, datasets: Sequence[Any], lazy_init: bool = False, ignore_keys: Sequence[str] = ()) -> None:
        keys = [ignore_keys] if isinstance(ignore_keys, str) else list(ignore_keys or ())
        super().__init__(datasets, lazy_init, ['classes', *keys])

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information of the first dataset, without classes that others do not share."""
        found = super().metainfo
        if len({tuple(dataset.metainfo.get('classes') or ()) for dataset in self.datasets}) > 1:
            found.pop('classes', None)
        return found

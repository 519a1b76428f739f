"""Clips that replace unreadable files count for no metric: otherwise the replacement would count twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.logging import print_log
from torch.utils.data import Dataset

from pvvae_plugin.structures import SUBSTITUTED


def readable_results(metric: str, results: Sequence[Any]) -> list[Any]:
    """Return the results without :data:`SUBSTITUTED`, and log how many were skipped.

    Example:
        >>> from pvvae_plugin.evaluation.substitutes import readable_results
        >>> readable_results('FlowLoss', [0.5, 'substituted'])  # logs "FlowLoss: skipped 1 of 2 clips ..."
        [0.5]
    """
    kept = [entry for entry in results if not (isinstance(entry, str) and entry == SUBSTITUTED)]
    _log_skipped(metric, len(results) - len(kept), len(results))
    return kept


def readable_clips(what: str, dataset: Dataset, indices: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the clips of a dataset with their indices, skip replacements of unreadable ones, and log how many.

    Args:
        what: Description of the clips, for the log.
        dataset: Dataset of packed clips.
        indices: Indices of the clips.
    """
    skipped = 0
    for index in indices:
        sample = dataset[index]
        if sample['data_samples'].get('substituted_path'):
            skipped += 1
        else:
            yield index, sample
    _log_skipped(what, skipped, len(indices))


def _log_skipped(what: str, skipped: int, count: int) -> None:
    if skipped:
        message = f'{what}: skipped {skipped} of {count} clips whose files could not be read'
        print_log(message, logger='current', level=logging.WARNING)

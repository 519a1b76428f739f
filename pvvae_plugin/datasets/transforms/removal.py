"""Data sets of a training for a use that wants their clips as they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def without_transforms(config: Any, names: Collection[str]) -> Any:
    """A data set's config, as plain values, without the transforms of these names, wherever they stand.

    Args:
        config: Of a data set, also of one around others.
        names: Such as ``'RandomTimeReverse'``, without their scope.
    """
    if isinstance(config, dict):
        return {key: without_transforms(value, names) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [without_transforms(entry, names) for entry in config if _name(entry) not in names]
    return config


def _name(entry: Any) -> str:
    kind = entry.get('type', '') if isinstance(entry, dict) else ''
    return getattr(kind, '__name__', str(kind)).split('.')[-1]

"""Valid entries of config dicts: the classes named by ``type`` and their arguments."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mmengine.registry as root
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import FlexibleRunner, IterBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from pvvae_plugin.registry import EXTRACTORS

REGISTRIES = (*(value for value in vars(root).values() if isinstance(value, Registry)), EXTRACTORS)
# Classes of other packages may accept arguments through **kwargs that cannot be listed.
OPEN_TO_US = ('pvvae_plugin', 'mmengine', 'mmcv', 'torch')
# Removed from the dict by the builder of the component, or read by MMEngine's parser.
OF_BUILDERS = frozenset(('type', '_scope_', '_delete_', 'priority', 'by_epoch', 'convert_to_iter_based', 'init_cfg'))
# Passed to a component by its builder in addition to its dict; users cannot set these.
NOT_FOR_USERS = frozenset(('self', 'cfg', 'runner', 'dataloader', 'module', 'optimizer', 'params', 'evaluator'))
# MMEngine reads these from the config itself.
BESIDE_ARGUMENTS = (
    'model_wrapper_cfg',
    'sync_bn',
    'find_unused_parameters',
    'activation_checkpointing',
    'efficient_conv_bn_eval',
    'compile',
    'custom_imports',
    'runner_type',
)
DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


def arguments_of(component: Callable) -> tuple[frozenset[str], bool]:
    """Return the argument names of a function, or of a class and the bases that it passes ``**kwargs`` to.

    Returns:
        The names, and whether the list is complete.
    """
    if not inspect.isclass(component):
        names, passes_on = _own_arguments(component)
        return names, not passes_on
    found: frozenset[str] = frozenset()
    for cls in component.__mro__:
        if '__init__' not in vars(cls) or cls in (object, torch.nn.Module):
            continue
        names, passes_on = _own_arguments(cls.__init__)
        found |= names
        if not passes_on:
            return found, True
        if cls.__module__.split('.')[0] not in OPEN_TO_US:
            break
    return found, False


def _own_arguments(call: Callable) -> tuple[frozenset[str], bool]:
    """Return the argument names, and whether the callable accepts any others."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (ValueError, TypeError):
        return frozenset(), True
    named = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    named |= getattr(call, 'old_names', {}).keys()
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


RUNNER_KEYS = (arguments_of(Runner)[0] | arguments_of(FlexibleRunner)[0] | set(BESIDE_ARGUMENTS)) - {'self', 'cfg'}
_LOADER = arguments_of(DataLoader)[0] | {'num_batch_per_epoch'}
_OPTIM_WRAPPER = arguments_of(OptimWrapper)[0] | {'constructor', 'paramwise_cfg'}
# Arguments of dicts that MMEngine builds without a ``type``, by their place in the config.
_PLAIN = {
    'train_cfg': arguments_of(IterBasedTrainLoop)[0],
    'val_cfg': arguments_of(ValLoop)[0],
    'test_cfg': arguments_of(TestLoop)[0],
    'train_dataloader': _LOADER,
    'val_dataloader': _LOADER,
    'test_dataloader': _LOADER,
    'log_processor': arguments_of(LogProcessor)[0],
    'visualizer': arguments_of(Visualizer)[0],
    'randomness': arguments_of(Runner.set_randomness)[0],
    'auto_scale_lr': frozenset(('enable', 'base_batch_size')),
    'env_cfg': frozenset(('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')),
    'env_cfg.mp_cfg': arguments_of(set_multi_processing)[0],
    'default_hooks': frozenset(DEFAULT_HOOKS),
}


def is_read(name: str, path: str, node: Mapping[str, Any], scope: str) -> tuple[bool, frozenset[str]]:
    """Return whether something reads an entry of a config dict, as far as this can be determined.

    Args:
        name: Name of the entry.
        path: Place of the dict, such as ``'model.loss'``; empty for the top level.
        node: The dict.
        scope: ``default_scope`` of the config.

    Returns:
        Whether the entry is read, and the known names.
    """
    if not path:
        return name in RUNNER_KEYS, RUNNER_KEYS
    if 'type' in node:
        found = [arguments_of(component) for component in find_components(node['type'], scope)]
        extra = _OPTIM_WRAPPER if path.startswith('optim_wrapper') and 'optimizer' in node else frozenset()
        known = frozenset().union(*(names for names, _ in found), OF_BUILDERS, extra)
        # Even if other arguments are accepted, a near match of a known name is a typo.
        may_be_another = not (found and did_you_mean(name, known, cutoff=0.9))
        return name in known or (may_be_another and not all(closed for _, closed in found)) or not found, known
    if path == 'optim_wrapper':
        known = frozenset(node) | (_OPTIM_WRAPPER if 'optimizer' in node else {'constructor'})
        return name in known, known
    if path in _PLAIN:
        return name in _PLAIN[path] | OF_BUILDERS, _PLAIN[path]
    return True, frozenset()


def find_components(kind: Any, scope: str) -> list[Callable]:
    """Return all components that a ``type`` may refer to, in any registry. A class is returned as it is."""
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    found = []
    for registry in REGISTRIES:
        for candidate in (registry.children.get(scope), registry):
            component = _look_up(candidate, kind) if candidate is not None else None
            if component is not None:
                found.append(component)
                break
    return list(dict.fromkeys(found))


def _look_up(registry: Registry, kind: str) -> Callable | None:
    try:
        return registry.get(kind)
    except (RuntimeError, TypeError, ValueError, ImportError):  # not a valid name, e.g. empty
        return None


def component_names() -> set[str]:
    """Return the names in all registries of this package and of MMEngine."""
    tables = [r for registry in REGISTRIES for r in (registry, *registry.children.values())]
    return {name for registry in tables for name in registry.module_dict}


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return ``'did you mean X? '``, or an empty string if no known name is close."""
    near = difflib.get_close_matches(name, sorted(known), n=2, cutoff=cutoff)
    return f'did you mean {" or ".join(near)}? ' if near else ''

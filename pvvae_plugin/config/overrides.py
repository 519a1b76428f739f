"""``--cfg-options``: config overrides on the command line, rejected if nothing reads them."""

from __future__ import annotations

import argparse
import ast
import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from .schema import NOT_FOR_USERS, OF_BUILDERS, RUNNER_KEYS, component_names, did_you_mean, find_components, is_read

DELETE = '_delete_'
# Minimum values. MMEngine accepts smaller ones silently or fails only when it uses them.
LEAST = {'batch_size': 1, 'num_workers': 0}
SHOWN = 3  # places that a message suggests
NAMED_PARTS = ('default_hooks', 'optim_wrapper')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


class OverrideAction(DictAction):
    """``DictAction`` that also reads dicts, with a clear message for arguments that are not ``K=V``."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, separator, value = text.partition('=')
            if not (key and separator):
                parser.error(
                    f'{option} takes KEY=VALUE without spaces around the =, such as train_cfg.max_iters=1000, '
                    f'got {text!r}; it consumes all following arguments, so put other arguments before it'
                )
            try:
                options[key] = read_value(value)
            except ValueError as error:
                parser.error(
                    f"{option}: {key}: {error}. Write a dict as in a config file, in quotes: \"{key}=dict(type='NAME', "
                    f'size=8)", or set its entries: {key}.type=NAME {key}.size=8'
                )
        setattr(namespace, self.dest, options)


class _DictCalls(ast.NodeTransformer):
    """Replace ``dict(a=1)`` by ``{'a': 1}``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if ast.unparse(node.func) != 'dict' or node.args or None in names:
            return node
        return ast.Dict([ast.Constant(name) for name in names], [keyword.value for keyword in node.keywords])


def read_value(text: str) -> Any:
    """Return the value of an override. Nothing is executed.

    Args:
        text: A dict, or a list or tuple of dicts, as in a config file; any other value as MMEngine reads it.

    Raises:
        ValueError: If the brackets do not match, or a dict contains anything but plain values.

    Example:
        >>> from pvvae_plugin.config.overrides import read_value
        >>> read_value("dict(type='LPIPS', net='alex')")
        {'type': 'LPIPS', 'net': 'alex'}
        >>> read_value('(8,8,8)'), read_value('train,val'), read_value('1e-4')
        ((8, 8, 8), ['train', 'val'], 0.0001)
    """
    try:
        if re.search(r'(^|[\[(,])\s*(dict\(|\{)', text):
            return ast.literal_eval(_DictCalls().visit(ast.parse(text.strip(), mode='eval')))
        return DictAction._parse_iterable(text)
    except (SyntaxError, ValueError, AssertionError, RecursionError) as error:
        raise ValueError(f'cannot read {text!r}') from error


def add_override_argument(parser: argparse.ArgumentParser) -> None:
    """Add the ``--cfg-options`` argument to a parser.

    Example:
        >>> import argparse
        >>> from pvvae_plugin.config import add_override_argument
        >>> parser = argparse.ArgumentParser()
        >>> add_override_argument(parser)
        >>> parser.parse_args(['--cfg-options', 'train_cfg.max_iters=100', 'resume=True']).cfg_options
        {'train_cfg.max_iters': 100, 'resume': True}
    """
    parser.add_argument(
        '--cfg-options', nargs='+', action=OverrideAction, metavar='K=V', help='override entries of the config'
    )


def apply_overrides(cfg: Config, overrides: Mapping[str, Any] | None) -> None:
    """Change entries of a config in place.

    New keys are accepted only if something reads them: at the top level they must be settings of MMEngine's runner,
    and in the dict of a component they must be arguments of its class.

    Args:
        cfg: The config.
        overrides: Dotted keys and their values, as parsed by ``--cfg-options``.

    Raises:
        ValueError: If nothing would read an entry, or if a string replaces a number. The message lists the valid
            entries.

    Example:
        >>> from pvvae_plugin.config import apply_overrides, read_config
        >>> cfg = read_config('pvvae_demo')
        >>> apply_overrides(cfg, {'model.loss.diff_weight': 2.0})
        >>> cfg.model.loss
        {'type': 'PredictiveReconLoss', 'diff_weight': 2.0}
        >>> try:
        ...     apply_overrides(cfg, {'model.loss.dif_weight': 2.0})
        ... except ValueError as error:
        ...     print('did you mean diff_weight' in str(error))
        True
    """
    if not overrides:
        return
    merged = dict(overrides)
    for key, value in overrides.items():
        node = _check(cfg, key, value, overrides)
        if isinstance(value, Mapping) and not isinstance(node, Mapping):
            # MMEngine merges a dict into another one only, and needs an entry that this key tells it to replace.
            merged[key] = {**value, DELETE: True}
            cfg.merge_from_dict({key: None})
    cfg.merge_from_dict(merged)


def check_numbers(cfg: Config) -> None:
    """Check that batch sizes, worker counts, iterations, intervals and timeouts are integers in their valid range.

    Raises:
        ValueError: If one is not. The message names the entry.
    """
    least = {f'{loader}.{key}': number for loader in LOADERS for key, number in LEAST.items()}
    least |= {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 1, 'default_hooks.logger.interval': 1}
    least['env_cfg.dist_cfg.timeout'] = 1  # seconds
    for path, number in least.items():
        node: Any = cfg
        for part in path.split('.'):
            node = node.get(part) if isinstance(node, Mapping) or node is cfg else None
        if node is not None and (isinstance(node, bool) or not isinstance(node, int) or node < number):
            raise ValueError(f'{path} must be an integer of at least {number}, got {node!r}')


def check_settings_are_read(cfg: Config) -> None:
    """Check settings that MMEngine would ignore silently, in config files as well.

    Raises:
        ValueError: If nothing reads one. The message names the setting to use instead.
    """
    for path in ('env_cfg', 'auto_scale_lr'):
        for name in cfg.get(path) or {}:
            _check_new(cfg, path, name, cfg[path], f'{path}.{name}', cfg.get('default_scope', 'pvvae_plugin'))
    if cfg.get('find_unused_parameters') is None or (cfg.get('model_wrapper_cfg') or cfg.get('strategy')) is None:
        return
    remedy = (
        'remove it'
        if cfg.get('strategy')
        else f'set model_wrapper_cfg.find_unused_parameters={cfg.find_unused_parameters} instead'
    )
    raise ValueError(
        f'find_unused_parameters={cfg.find_unused_parameters} has no effect: MMEngine reads it only without '
        f'model_wrapper_cfg and strategy; {remedy}'
    )


def settle_workers(cfg: Config) -> None:
    """Drop worker options of loaders without workers: torch rejects them if ``num_workers=0``."""
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and loader.get('num_workers', 0) == 0:
            loader.pop('prefetch_factor', None)
            loader.pop('persistent_workers', None)


def warn_of_misspelled_keys(cfg: Config) -> None:
    """Warn about config entries that look like misspelled settings of MMEngine."""
    for key in cfg:
        meant = did_you_mean(key, RUNNER_KEYS, cutoff=0.88)
        if key not in RUNNER_KEYS and meant:
            print_log(f'{cfg.filename}: nothing reads {key!r}; {meant.strip()}', 'current', logging.WARNING)


def _check(cfg: Config, key: str, value: Any, overrides: Mapping[str, Any]) -> Any:
    """Walk to the place of an override in the config, check it there, and return the present value or None."""
    scope = overrides.get('default_scope', cfg.get('default_scope', 'pvvae_plugin'))
    node: Any = cfg
    parts = key.split('.')
    for depth, part in enumerate(parts):
        path = '.'.join(parts[:depth])
        if overrides.get(f'{path}.{DELETE}'):
            node = {}
        if isinstance(node, (list, tuple)):
            node = _entry(node, path, part, key)
            continue
        if not isinstance(node, (Mapping, Config)):
            raise ValueError(
                f'{key} cannot be set: {path} is {node!r}, which has no entries; set all of {path} in a config file'
            )
        if part not in node or (not path and part not in RUNNER_KEYS):
            # Other overrides of the same dict, e.g. its type, may decide which entries are valid.
            given = {k.rpartition('.')[2]: v for k, v in overrides.items() if k.rpartition('.')[0] == path}
            node = {**node, **given} if path else node
            # Names in these dicts are the user's choice: complete entries, with a type, may be added.
            whole = path in NAMED_PARTS and (
                any(k.startswith(f'{path}.{part}.') and k.endswith('.type') for k in overrides)
                or (isinstance(value, Mapping) and 'type' in value)
            )
            if not whole:
                _check_new(cfg, path, part, node, key, scope)
            if not path:
                _check_loader(cfg, key, part, overrides)
            node = {} if depth + 1 < len(parts) else None
            continue
        node = node[part]
    _check_type(key, value, scope)
    is_number = isinstance(node, (int, float)) and not isinstance(node, bool)
    if is_number and isinstance(value, str):
        raise ValueError(f'{key}={value} is not a number; the value in the config is {node}')
    if isinstance(node, Mapping) and isinstance(value, str):
        raise ValueError(f'{key}={value} is not a dict; write "{key}=dict(...)", or set its entries: {key}.ENTRY=VALUE')
    if isinstance(value, Mapping):
        _check_entries(cfg, key, value, node if isinstance(node, Mapping) else {}, scope)
    return node


def _check_entries(cfg: Config, key: str, value: Mapping[str, Any], node: Mapping[str, Any], scope: str) -> None:
    """Check the entries of a dict, which are merged into ``node``, the dict in the config."""
    merged = {**({} if value.get(DELETE) else node), **value}
    for name, entry in value.items():
        _check_new(cfg, key, name, merged, f'{key}.{name}', scope)
        _check_type(f'{key}.{name}', entry, scope)
        if isinstance(entry, Mapping):
            inner = node.get(name)
            _check_entries(cfg, f'{key}.{name}', entry, inner if isinstance(inner, Mapping) else {}, scope)


def _check_type(key: str, value: Any, scope: str) -> None:
    """Reject a misspelled component name. Names without a near match are left to the registry's own error."""
    if key.rpartition('.')[2] != 'type' or not isinstance(value, str) or find_components(value, scope):
        return
    name = value.rpartition('.')[2]
    if meant := did_you_mean(name, component_names(), cutoff=0.75):
        raise ValueError(
            f'{key}={value}: no component is named {value}; {meant}docs/components.md lists all components'
        )


def _check_new(cfg: Config, path: str, part: str, node: Any, key: str, scope: str) -> None:
    if not path and part in cfg:
        _check_helper(cfg, key, part)
        return
    accepted, known = is_read(part, path, node, scope)
    if accepted or part == DELETE:
        return
    offered = f'valid are {", ".join(sorted(known - NOT_FOR_USERS - OF_BUILDERS))}'
    kind = node.get('type') if path else None
    owner = f'{path} ({kind if isinstance(kind, str) else kind.__name__})' if kind else path or 'the top of a config'
    beside, places = did_you_mean(part, known), did_you_mean_places(cfg, part, scope)
    meant = (beside or places) if path else (places or beside)
    rest = '' if meant and not path else offered  # the list for the top level is long
    raise ValueError(f'{key}: nothing reads {part!r} in {owner}: {meant}{rest}'.rstrip())


def did_you_mean_places(cfg: Config, name: str, scope: str) -> str:
    """Return ``'did you mean A.NAME or B.NAME? '`` for the places in a config that read ``name`` or a similar name."""
    present: dict[str, list[str]] = {}
    accepted: dict[str, list[str]] = {}
    for path, node in _dicts(cfg):
        for entry in (is_read('', path, node, scope)[1] - NOT_FOR_USERS - OF_BUILDERS) | node.keys():
            (present if entry in node else accepted).setdefault(entry, []).append(f'{path}.{entry}')
    for places in (present, accepted):
        near = [name] if name in places else difflib.get_close_matches(name, places, n=1, cutoff=0.85)
        if near:
            return f'did you mean {" or ".join(places[near[0]][:SHOWN])}? '
    return ''


def _dicts(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield all dicts below the settings of the runner, with their places."""
    pending = [(key, cfg[key]) for key in cfg if key in RUNNER_KEYS]
    while pending:
        path, node = pending.pop(0)
        if isinstance(node, Mapping):
            yield path, node
            pending += [(f'{path}.{key}', entry) for key, entry in node.items()]
        elif isinstance(node, (list, tuple)):
            pending += [(f'{path}.{i}', entry) for i, entry in enumerate(node)]


def _check_loader(cfg: Config, key: str, part: str, overrides: Mapping[str, Any]) -> None:
    """Reject an override of a loader that the config does not define: one entry does not make a loader."""
    if part in LOADERS and key != part and not any(k.startswith(f'{part}.dataset') for k in overrides):
        raise ValueError(
            f'{key}: {cfg.filename} has no {part}; tests use val_dataloader instead. Override that, or add a '
            f'{part} to your config'
        )


def _check_helper(cfg: Config, key: str, name: str) -> None:
    """Reject overrides of helper variables, which were used when the file was read."""
    rest = key[len(name) :]
    places = [f'{place}{tail}{rest if not tail else ""}' for place, tail in _uses(cfg, cfg[name])]
    if places:
        listed = ', '.join(dict.fromkeys(places))
        raise ValueError(
            f'{key} has no effect: {name!r} is a helper variable that was used when the config was read. Override the '
            f'entries that hold its value: {listed}'
        )
    print_log(
        f'{key} is set, but MMEngine does not read {name!r}; only custom code can use it', 'current', logging.WARNING
    )


def _uses(cfg: Config, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the places that hold a helper's value, or a path that starts with it."""
    pending = [(key, cfg[key]) for key in cfg if key in RUNNER_KEYS]
    while pending:
        path, node = pending.pop(0)
        if type(node) is type(value) and node == value:
            yield path, ''
        elif isinstance(value, str) and isinstance(node, str) and value and node.startswith(f'{value}/'):
            yield path, f' ({node})'
        elif isinstance(node, Mapping):
            pending += [(f'{path}.{key}', entry) for key, entry in node.items()]
        elif isinstance(node, (list, tuple)):
            pending += [(f'{path}.{i}', entry) for i, entry in enumerate(node)]


def _entry(node: Sequence[Any], path: str, part: str, key: str) -> Any:
    if not part.isdigit() or int(part) >= len(node):
        raise ValueError(
            f'{key}: {path} is a list of {len(node)}, whose indices are 0 to {len(node) - 1}; got {part!r}'
        )
    if isinstance(node, tuple):
        raise ValueError(f'{key}: {path} is the tuple {node}; replace all of it: {path}="(...)"')
    return node[int(part)]

"""Checkpoints of earlier runs: lookup, and checks that reject mismatched ones."""

from __future__ import annotations

import json
import logging
import os.path
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from pvvae_plugin import config_path
from pvvae_plugin.files import file_sha256
from pvvae_plugin.safe_globals import load_safely

# Config entries that do not change the network.
IRRELEVANT = (
    'init_cfg',
    'gradient_checkpointing',
    'pixels_at_once',
    'compile',
    'decode_dtype',
    'pretrained',
    'subfolder',
    'download',
    '_scope_',
)

OWN_WEIGHTS = 'pretrained'  # given on a command line instead of a checkpoint, for a backbone that loads its own weights


def check_brings_weights(backbone: Mapping) -> None:
    """Check that the VAE of a config loads its own weights.

    Raises:
        ValueError: If the VAE needs a checkpoint.
    """
    if 'pretrained' not in backbone:
        raise ValueError(
            f'{OWN_WEIGHTS!r} needs a backbone that loads its own weights, such as DiffusersVAE, but model.backbone is '
            f'a {backbone["type"]}: give a checkpoint, or the work directory of a run'
        )


def resolve_checkpoint(path: str, setting: str | None = None) -> str:
    """Resolve a checkpoint path or a work directory to a checkpoint file.

    Args:
        path: A file or a directory. A directory resolves to its last checkpoint: the one named in ``last_checkpoint``
            if it exists, else ``iter_N.pth`` with the largest ``N``.
        setting: Config entry that holds the path; None for a command-line argument.

    Raises:
        FileNotFoundError: If the checkpoint does not exist. The message gives a remedy.
        ValueError: If the path is a URL, because MMEngine would unpickle its content.
    """
    if '://' in path:
        raise ValueError(f'{path} is a URL: download the file first for safe loading, and give its path')
    if os.path.isfile(path):
        return path
    found = last_checkpoint(path)
    if found is None and os.path.isfile(os.path.join(path, 'config.json')):
        raise FileNotFoundError(
            f'{path} is the folder of a VAE, not a checkpoint: set it in the config as model.backbone=dict('
            f"_delete_=True, type='PretrainedVAE', pretrained={path!r}), with model.backbone_checkpoint=None for a "
            f'generator; on a command line use {OWN_WEIGHTS!r}'
        )
    if found is None:
        another = f' with --cfg-options {setting}=PATH' if setting else ''
        raise FileNotFoundError(
            f'no checkpoint at {path!r}. It must be a .pth file, or the work directory of a finished run; train it '
            f'first{_command_that_makes(path)}, or set another path{another}'
        )
    return found


def _command_that_makes(path: str) -> str:
    """Return the command that trains the checkpoint, if its work directory is named after one of our configs."""
    folder = Path(path).parent if path.endswith('.pth') else Path(path)
    if folder.name in ('quickstart', 'quickstart_generator'):
        return ' (bash tools/quickstart.sh)'
    try:
        config_path(f'{folder.name}.py')
    except FileNotFoundError:
        return ''
    return f' (python tools/train.py configs/{folder.name}.py)'


def last_checkpoint(work_dir: str) -> str | None:
    """Return the last valid checkpoint in a directory, or None. The directory may have been copied or moved.

    Damaged checkpoints are skipped with a warning.

    Raises:
        ValueError: If all checkpoints are damaged.
    """
    folder = Path(work_dir)
    note = folder / 'last_checkpoint'
    noted = Path(note.read_text().strip()).name if note.is_file() else ''
    numbered = [(int(m[1]), p) for p in folder.glob('iter_*.pth') if (m := re.fullmatch(r'iter_(\d+)\.pth', p.name))]
    found = [path for _, path in sorted(numbered, reverse=True)]
    if noted and (folder / noted).is_file():
        # Newer checkpoints than the noted one belong to an earlier run that was resumed from before its end.
        of = re.fullmatch(r'iter_(\d+)\.pth', noted)
        older = [path for number, path in sorted(numbered, reverse=True) if of and number < int(of[1])]
        found = [folder / noted, *older]
    damaged = []
    for path in found:
        try:
            open_checkpoint(str(path))
        except ValueError as error:
            damaged.append(str(error))
            print_log(f'{error}. Trying the previous checkpoint', logger='current', level=logging.WARNING)
            continue
        return str(path)
    if damaged:
        raise ValueError(f'every checkpoint in {work_dir} is damaged: {"; ".join(damaged[:3])}')
    return None


def open_checkpoint(path: str) -> dict:
    """Open a checkpoint with memory-mapped tensors.

    Raises:
        ValueError: If the file is damaged, is not a checkpoint, or contains code that would be executed.
    """
    checkpoint = load_safely(path)
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f"{path} has no 'state_dict': it is not a checkpoint of a run")
    check_runs_nothing(checkpoint, path)
    return checkpoint


def check_checkpoint(path: str, optimizers: Collection[str] | None = None) -> None:
    """Check that a run can load a checkpoint, before anything is built.

    Args:
        path: The file.
        optimizers: Names of the run's optimizers when resuming; None to load weights only.

    Raises:
        ValueError: If the file is damaged, is not a checkpoint, lacks entries needed to resume, or contains code that
            would be executed.
    """
    checkpoint = open_checkpoint(path)
    if optimizers is None:
        return
    missing = [key for key in ('meta', 'message_hub', 'optimizer', 'param_schedulers') if key not in checkpoint]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed: it lacks {", ".join(missing)}. Use load_from to load only its weights'
        )
    if 'param_groups' in checkpoint['optimizer']:
        trained = {'one optimizer for the whole model'}
    else:
        trained = {name for name, state in checkpoint['optimizer'].items() if isinstance(state, dict)}
    trained = set(rename_optimizers(dict.fromkeys(trained), optimizers))  # old names
    if optimizers and trained != set(optimizers):
        raise ValueError(
            f'{path} was written while training {sorted(trained)}, but this config trains {sorted(optimizers)}. '
            'Use load_from to load only its weights'
        )


def rename_optimizers(states: Mapping[str, Any], optimizers: Collection[str]) -> Mapping[str, Any]:
    """Rename the VAE's optimizer from ``generator``, its name in configs and checkpoints of earlier versions.

    Args:
        states: One value per optimizer. If both names exist (a child config overrides by the old name), the old entry
            is merged into the new one.
        optimizers: Current optimizer names of the run.
    """
    if 'generator' not in states or 'vae' not in optimizers:
        return states
    renamed = {'vae' if name == 'generator' else name: value for name, value in states.items() if name != 'vae'}
    if isinstance(states.get('vae'), Mapping):
        renamed['vae'] = Config._merge_a_into_b(states['generator'], dict(states['vae']))
    return renamed


def upgrade_checkpoint(checkpoint: dict, optimizers: Collection[str]) -> None:
    """Rename the entries of a checkpoint from an earlier version to their current names, in place.

    Args:
        checkpoint: The loaded checkpoint.
        optimizers: Names of the run's optimizers.
    """
    if 'vae' not in optimizers or 'generator' not in checkpoint.get('optimizer', {}):
        return
    hub, settings = checkpoint.get('message_hub', {}), checkpoint.get('run_settings', {})
    places = [
        *((checkpoint, key) for key in ('optimizer', 'param_schedulers')),
        *((hub, key) for key in ('runtime_info', 'resumed_keys')),
        *((settings, key) for key in ('step', 'kept')),
    ]
    new_names = {
        'generator': 'vae',
        'skipped_steps_generator': 'skipped_steps_vae',
        'generator.accumulative_counts': 'vae.accumulative_counts',
        'optim_wrapper.generator.optimizer': 'optim_wrapper.vae.optimizer',
    }
    for holder, key in places:
        if isinstance(holder.get(key), Mapping):
            holder[key] = {new_names.get(name, name): value for name, value in holder[key].items()}


def check_runs_nothing(checkpoint: Mapping, path: str = 'the checkpoint') -> None:
    """Reject a checkpoint that contains text that MMEngine would execute as Python when it resumes.

    ``Runner.resume`` passes ``meta['config']`` to ``Config.fromstring``, which executes it. MMEngine itself writes the
    config as ``meta['cfg']``, which is never read.

    Raises:
        ValueError: If the checkpoint contains ``meta['config']``.
    """
    meta = checkpoint.get('meta')
    if isinstance(meta, Mapping) and 'config' in meta:
        raise ValueError(
            f"{path} is refused: it contains meta['config'], which MMEngine would execute as Python when it resumes. "
            'Checkpoints of this package do not have it. If you trust the file, remove that entry and save it again'
        )


def unwrap_names(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Remove ``module`` and ``_orig_mod`` from names of weights, which DDP and ``torch.compile`` add in any order.

    Args:
        state: Weights by name, e.g. ``module.backbone._orig_mod.padding_token``.
        expected: Names of the network's weights. They are kept, even if a module is called ``module``.
    """
    wanted = {_without_wrappers(name): name for name in expected}
    plain = {name: _without_wrappers(name) for name in state if name not in expected}
    return {wanted.get(plain[name], plain[name]) if name in plain else name: state[name] for name in state}


def _without_wrappers(name: str) -> str:
    return '.'.join(part for part in name.split('.') if part not in ('module', '_orig_mod'))


def check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare the weights of a file with those of a network, or of the given parts of it.

    Raises:
        ValueError: If a weight is missing, has another shape or is unknown. The message lists the first few.
    """
    missing = [name for name in expected if name not in found]
    prefixes = {name.split('.')[0] for name in expected}
    unknown = [name for name in found if name not in expected and name.split('.')[0] in prefixes]
    differing = [
        f'{name}: {tuple(found[name].shape)} in the file, {tuple(tensor.shape)} in the model'
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if missing or differing or unknown:
        raise ValueError(
            'the checkpoint does not fit the model of this config: '
            f'{len(missing)} weights missing ({", ".join(missing[:3])}), {len(differing)} of another shape '
            f'({"; ".join(differing[:3])}), {len(unknown)} unknown ({", ".join(unknown[:3])}). Use the config that '
            'wrote it'
        )


def load_backbone(backbone: nn.Module, path: str) -> str:
    """Load the weights of a VAE from the checkpoint of its training run.

    Args:
        backbone: The VAE.
        path: Checkpoint or work directory, see :func:`resolve_checkpoint`.

    Returns:
        SHA-256 of the file.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the checkpoint holds another network.
    """
    path = resolve_checkpoint(path)
    check_checkpoint(path)
    checkpoint = load_safely(path)
    prefix, expected = 'backbone.', backbone.state_dict()
    weights = unwrap_names(checkpoint['state_dict'], {prefix + name for name in expected})
    state = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    check_weights(expected, state)
    backbone.load_state_dict(state)
    backbone.knows_statistics = False  # training changed the latent statistics
    if frames := (checkpoint.get('run_settings') or {}).get('frames'):
        backbone.trained_frames = frames
    return file_sha256(path)


def training_progress(path: str) -> dict[str, int]:
    """Return ``iter`` and ``max_iters`` of the run that wrote a checkpoint; empty if the checkpoint lacks them."""
    checkpoint = load_safely(path)
    done = checkpoint.get('meta', {}).get('iter')
    planned = checkpoint.get('message_hub', {}).get('runtime_info', {}).get('max_iters')
    return {} if done is None or planned is None else {'iter': done, 'max_iters': planned}


def check_backbone_source(made_with: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> None:
    """Check that a generator was trained on the loaded VAE.

    Args:
        made_with: ``path`` and ``sha256`` of the VAE recorded in the generator's checkpoint; None if not recorded.
        here: ``path`` and ``sha256`` of the loaded VAE.

    Raises:
        ValueError: If the files differ.
    """
    if not made_with or not here or made_with['sha256'] == here['sha256']:
        return
    path = Path(made_with['path'])
    files = sorted(path.glob('iter_*.pth')) if path.is_dir() else [path]  # earlier versions recorded the folder
    found = next((file for file in files if file.is_file() and file_sha256(file) == made_with['sha256']), None)
    remedy = f'set model.backbone_checkpoint={found}'
    if found is None:
        remedy = 'that file is no longer there: restore the VAE it was trained on, or train the generator again'
    raise ValueError(
        f'this generator was trained on the VAE {path} (sha256 {made_with["sha256"][:12]}), but '
        f'model.backbone_checkpoint (or model.backbone.pretrained) is {here["path"]} (sha256 {here["sha256"][:12]}): '
        f'{remedy}'
    )


def generator_config(model: Mapping) -> dict:
    """Return the part of a generator's config stored in checkpoints: networks as plain values, and ``condition_prob``.

    Args:
        model: ``model`` entry of the config.
    """
    networks = {part: _plain(model[part]) for part in ('backbone', 'head')}
    return {**networks, 'condition_prob': model.get('condition_prob', 0.0)}


def check_generator_config(trained: Mapping | None, here: Mapping) -> None:
    """Reject networks that accept the weights but compute something else, e.g. with another number of heads.

    Args:
        trained: Config stored in the checkpoint, see :func:`generator_config`; None if not stored.
        here: The same part of the current config.

    Raises:
        ValueError: If entries of ``backbone`` or ``head`` differ. The message lists them.
    """
    if trained is None:
        return
    old_heads = {'width': 'hidden_size', 'heads': 'num_heads'}  # names in configs and checkpoints of earlier versions
    trained, here = (
        {**networks, 'head': {old_heads.get(key, key): value for key, value in networks['head'].items()}}
        for networks in (trained, here)
    )
    differing = [
        f'model.{part}.{key}={here[part].get(key)!r} (trained with {trained[part].get(key)!r})'
        for part in ('backbone', 'head')
        for key in sorted({*here[part], *trained[part]})
        if here[part].get(key) != trained[part].get(key)
    ]
    if differing:
        raise ValueError(f'the checkpoint belongs to another network: {", ".join(differing)}')


def bare_type(kind: str | type) -> str:
    """Return the name of a type in a config without its scope or module."""
    return (kind if isinstance(kind, str) else kind.__name__).split('.')[-1]


def _plain(config: Mapping) -> dict:
    """Return a config without the :data:`IRRELEVANT` entries and with the bare name of its type."""
    kept = {key: value for key, value in config.items() if key not in IRRELEVANT}
    kept['type'] = bare_type(kept['type'])
    return json.loads(json.dumps(kept))

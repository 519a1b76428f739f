"""Weights of an earlier run: finding its checkpoint, and refusing one that does not fit."""

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

# Entries of a part's config that make no other network of it.
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

OWN_WEIGHTS = 'pretrained'  # on a command line, in place of a checkpoint: those that the backbone reads by itself


def check_brings_weights(backbone: Mapping) -> None:
    """Refuse a config of a VAE that reads no weights by itself where none are given.

    Raises:
        ValueError: If it is of such a VAE.
    """
    if 'pretrained' not in backbone:
        raise ValueError(
            f'{OWN_WEIGHTS!r} stands for the weights that model.backbone reads by itself, as a DiffusersVAE does; '
            f'{backbone["type"]} has none: give a checkpoint, or the work directory of a run'
        )


def resolve_checkpoint(path: str, setting: str | None = None) -> str:
    """A checkpoint file from a file's path or the work directory of a run.

    Args:
        path: A file, or a directory, which stands for the last checkpoint written in it: the one noted in
            ``last_checkpoint`` if it is there, or else the ``iter_N.pth`` of the largest ``N``.
        setting: The entry of the config that holds the path; None where it is an argument.

    Raises:
        FileNotFoundError: If there is none, saying what to do.
        ValueError: If it is a URL: MMEngine would unpickle whatever comes from there.
    """
    if '://' in path:
        raise ValueError(
            f'{path} is a URL: download the file first, so that it can be loaded safely, and give its path'
        )
    if os.path.isfile(path):
        return path
    found = last_checkpoint(path)
    if found is None and os.path.isfile(os.path.join(path, 'config.json')):
        raise FileNotFoundError(
            f'{path} is the folder of a VAE and no checkpoint: name it in the config, model.backbone=dict('
            f"_delete_=True, type='PretrainedVAE', pretrained={path!r}), with model.backbone_checkpoint=None for a "
            f'generator; on a command line give {OWN_WEIGHTS!r}'
        )
    if found is None:
        another = f' with --cfg-options {setting}=PATH' if setting else ''
        raise FileNotFoundError(
            f'no checkpoint at {path!r}. It must be a .pth file, or the work directory of a finished run; train it '
            f'first{_command_that_makes(path)}, or name another{another}'
        )
    return found


def _command_that_makes(path: str) -> str:
    """For a work directory named after one of our configs, as it is by default."""
    folder = Path(path).parent if path.endswith('.pth') else Path(path)
    if folder.name in ('quickstart', 'quickstart_generator'):
        return ' (bash tools/quickstart.sh)'
    try:
        config_path(f'{folder.name}.py')
    except FileNotFoundError:
        return ''
    return f' (python tools/train.py configs/{folder.name}.py)'


def last_checkpoint(work_dir: str) -> str | None:
    """The last whole checkpoint in a directory, None if there is none. A directory may have been copied or moved.

    A damaged one is skipped with a warning, for the one before it.

    Raises:
        ValueError: If there are checkpoints and all of them are damaged.
    """
    folder = Path(work_dir)
    note = folder / 'last_checkpoint'
    noted = Path(note.read_text().strip()).name if note.is_file() else ''
    numbered = [(int(m[1]), p) for p in folder.glob('iter_*.pth') if (m := re.fullmatch(r'iter_(\d+)\.pth', p.name))]
    found = [path for _, path in sorted(numbered, reverse=True)]
    if noted and (folder / noted).is_file():
        # What is newer than the noted one is of an earlier run, which was resumed before its end.
        of = re.fullmatch(r'iter_(\d+)\.pth', noted)
        older = [path for number, path in sorted(numbered, reverse=True) if of and number < int(of[1])]
        found = [folder / noted, *older]
    damaged = []
    for path in found:
        try:
            open_checkpoint(str(path))
        except ValueError as error:
            damaged.append(str(error))
            print_log(f'{error}. The checkpoint before it is tried', logger='current', level=logging.WARNING)
            continue
        return str(path)
    if damaged:
        raise ValueError(f'every checkpoint in {work_dir} is damaged: {"; ".join(damaged[:3])}')
    return None


def open_checkpoint(path: str) -> dict:
    """A checkpoint, its tensors mapped and not yet in memory.

    Raises:
        ValueError: If it is damaged, no checkpoint, or holds something that would be run.
    """
    checkpoint = load_safely(path)
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f"{path} holds no 'state_dict': it is not a checkpoint of a run")
    check_runs_nothing(checkpoint, path)
    return checkpoint


def check_checkpoint(path: str, optimizers: Collection[str] | None = None) -> None:
    """Refuse, by name and before anything is built, a file that a run could not load.

    Args:
        path: The file.
        optimizers: To resume: names of the run's optimisers.

    Raises:
        ValueError: If it is damaged, no checkpoint, holds not what is needed, or something that would be run.
    """
    checkpoint = open_checkpoint(path)
    if optimizers is None:
        return
    missing = [key for key in ('meta', 'message_hub', 'optimizer', 'param_schedulers') if key not in checkpoint]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed, it lacks {", ".join(missing)}: to start from its weights use load_from'
        )
    trained = {name for name, state in checkpoint['optimizer'].items() if isinstance(state, dict)}
    trained = set(rename_optimizers(dict.fromkeys(trained), optimizers))  # of an earlier version
    if optimizers and trained != set(optimizers):
        raise ValueError(
            f'{path} was written while training {sorted(trained)}, this config trains {sorted(optimizers)}: '
            'to start from its weights use load_from'
        )


def rename_optimizers(states: Mapping[str, Any], optimizers: Collection[str]) -> Mapping[str, Any]:
    """Rename the VAE's optimizer in configs and checkpoints of earlier versions, where it was called ``generator``.

    Args:
        states: A value per optimizer. If both names are there, as after a child config's override by the old name, that
            override goes into the new entry.
        optimizers: Names that the run has now.
    """
    if 'generator' not in states or 'vae' not in optimizers:
        return states
    renamed = {'vae' if name == 'generator' else name: value for name, value in states.items() if name != 'vae'}
    if isinstance(states.get('vae'), Mapping):
        renamed['vae'] = Config._merge_a_into_b(states['generator'], dict(states['vae']))
    return renamed


def upgrade_checkpoint(checkpoint: dict, optimizers: Collection[str]) -> None:
    """Give the entries of a checkpoint of an earlier version their names of today, in place.

    Args:
        checkpoint: As loaded.
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
    """Refuse a checkpoint with text in it that MMEngine would run as Python when it resumes.

    Its ``Runner.resume`` reads ``meta['config']`` by ``Config.fromstring``, and reading a config runs it. MMEngine
    writes the config as ``meta['cfg']``, which nothing reads.

    Raises:
        ValueError: If it holds such text.
    """
    meta = checkpoint.get('meta')
    if isinstance(meta, Mapping) and 'config' in meta:
        raise ValueError(
            f"{path} is refused: it holds meta['config'], a text that MMEngine would run as Python when it resumes. No "
            'checkpoint of ours has it. If you trust the file, remove that entry and save it again'
        )


def check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare the weights of a file with those of a network, or of the parts of it that are given.

    Raises:
        ValueError: If one is missing, has another shape or is unknown to these parts, naming the first few.
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
            f'({"; ".join(differing[:3])}), {len(unknown)} unknown ({", ".join(unknown[:3])}). Was it written by a '
            'config with another backbone?'
        )


def load_backbone(backbone: nn.Module, path: str) -> str:
    """Load a VAE from the checkpoint of a run that trained it.

    Args:
        backbone: The VAE.
        path: See :func:`resolve_checkpoint`.

    Returns:
        SHA-256 of the file.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it holds another network.
    """
    path = resolve_checkpoint(path)
    check_checkpoint(path)
    checkpoint = load_safely(path)
    prefix = 'backbone.'
    state = {k.removeprefix(prefix): v for k, v in checkpoint['state_dict'].items() if k.startswith(prefix)}
    check_weights(backbone.state_dict(), state)
    backbone.load_state_dict(state)
    backbone.knows_statistics = False  # training moved its latents
    return file_sha256(path)


def check_backbone_source(made_with: Mapping[str, str] | None, here: Mapping[str, str] | None) -> None:
    """Refuse a generator that learned the latents of another VAE than the one at hand.

    Args:
        made_with: ``path`` and ``sha256`` of the VAE, as the generator's checkpoint names it; None where it does not.
        here: The same of the VAE that is loaded.

    Raises:
        ValueError: If the files differ.
    """
    if made_with and here and made_with['sha256'] != here['sha256']:
        raise ValueError(
            f'this generator was trained on the VAE {made_with["path"]} (sha256 {made_with["sha256"][:12]}), but '
            f'model.backbone_checkpoint (or model.backbone.pretrained) is {here["path"]} (sha256 '
            f'{here["sha256"][:12]}): name the former'
        )


def generator_config(model: Mapping) -> dict:
    """What a checkpoint writes down of a generator's config: its networks, as plain values, and how it was conditioned.

    Args:
        model: ``model`` of the config.
    """
    networks = {part: _plain(model[part]) for part in ('backbone', 'head')}
    return {**networks, 'condition_prob': model.get('condition_prob', 0.0)}


def check_generator_config(trained: Mapping | None, here: Mapping) -> None:
    """Refuse networks that take the same weights but compute something else, as with another number of heads.

    Args:
        trained: Of the checkpoint, see :func:`generator_config`; None where it holds none.
        here: Of the config at hand.

    Raises:
        ValueError: If an entry of ``backbone`` or ``head`` differs, naming each.
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
        raise ValueError(f'the checkpoint is of another network: {", ".join(differing)}')


def _plain(config: Mapping) -> dict:
    """Without what makes no other network, and with the bare name of the type."""
    kept = {key: value for key, value in config.items() if key not in IRRELEVANT}
    kind = kept['type']
    kept['type'] = (kind if isinstance(kind, str) else kind.__name__).split('.')[-1]
    return json.loads(json.dumps(kept))

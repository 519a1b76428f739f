"""VAE folders with weights as safetensors and the config as JSON, without code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pvvae_plugin import __version__
from pvvae_plugin.files import file_sha256, write_atomically
from pvvae_plugin.registry import MODELS

from ..checkpoints import IRRELEVANT, check_weights, unwrap_names

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
KEYS = {'type': str, 'arguments': dict, 'knows_statistics': bool}


class PretrainedMixin:
    """Mixin that saves a VAE as a folder and loads it.

    Attributes:
        arguments (dict): Constructor arguments as plain values.
        knows_statistics (bool): True if ``latent_mean`` and ``latent_std`` were loaded with the weights.
        trained_frames (int | None): Length of the training clips, if known.
        source (dict[str, str] | None): ``path`` and ``sha256`` of weights loaded by the constructor.
        kept_apart (tuple[str, ...]): Prefixes of weights that a subclass stores in separate files.
    """

    arguments: Mapping[str, Any] = {}
    knows_statistics = False
    trained_frames: int | None = None
    source: dict[str, str] | None = None
    kept_apart: tuple[str, ...] = ()

    def save_pretrained(self, folder: str | Path) -> None:
        """Save weights (safetensors) and config (JSON) to a folder for :meth:`from_pretrained`.

        If saving is interrupted, the folder cannot be loaded as a VAE. After custom training, set ``knows_statistics``
        to False first, because the latent statistics have changed.

        Example:
            >>> import os
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.save_pretrained('my_vae')
            >>> sorted(os.listdir('my_vae'))
            ['config.json', 'model.safetensors']
        """
        config = PretrainedMixin.describe(self)
        clear_folder(Path(folder))
        state, record = self._save_parts(Path(folder))
        write_folder(Path(folder), {**config, **record}, state)

    def describe(self) -> dict[str, Any]:
        """Return plain values from which :meth:`from_description` builds the network without weights.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.describe()['type'], vae.describe()['arguments']['latent_channels']
            ('PredictiveVAE', 4)
        """
        return {
            'type': type(self).__name__,
            'arguments': {name: value for name, value in self.arguments.items() if name not in IRRELEVANT},
            'knows_statistics': self.knows_statistics,
            'trained_frames': self.trained_frames,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Build a VAE whose weights are still to be loaded from what :meth:`describe` returned.

        No code in the description is executed, and only registered VAE classes are allowed.

        Raises:
            ValueError: If the description is damaged, or of another class.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE, VideoVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> type(VideoVAE.from_description(vae.describe())).__name__
            'PredictiveVAE'
        """
        where = 'the description of the VAE'
        kind = cls._registered(check_config(description, where), where)
        try:
            return kind._without_weights(description)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f'{where}: {description["type"]} cannot be built: {error}') from error

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a VAE from a folder, in evaluation mode. On the meta device, weights are not loaded.

        No code in the folder is executed, and only registered VAE classes are allowed.

        Args:
            folder: Folder written by :meth:`save_pretrained` or ``tools/export_vae.py``.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is damaged, the VAE is not a ``cls``, or the weights do not match.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE, VideoVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.save_pretrained('my_vae')
            >>> loaded = VideoVAE.from_pretrained('my_vae')
            >>> type(loaded).__name__, torch.equal(loaded.last_layer, vae.last_layer)
            ('PredictiveVAE', True)
        """
        folder = Path(folder)
        config = read_config(folder)
        kind = cls._registered(config, str(folder))
        try:
            vae = kind._from_folder(folder, config['arguments'])
        except (TypeError, ValueError) as error:
            raise ValueError(f'{folder}: {config["type"]} cannot be built with these arguments: {error}') from error
        vae._load_parts(folder, config)
        return vae.eval()

    @classmethod
    def _registered(cls, config: Mapping[str, Any], where: str) -> type[Self]:
        # Do not use MODELS.get(): it imports the module of a dotted name.
        MODELS.import_from_location()
        kind = MODELS.module_dict.get(config['type']) or MODELS.parent.module_dict.get(config['type'])
        if not (isinstance(kind, type) and issubclass(kind, cls)):
            raise ValueError(
                f'{where} holds {config["type"]!r}, which is not a registered {cls.__name__}: import the module of a '
                'custom class first'
            )
        return kind

    def _load_parts(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Load all but the weights kept in separate files."""
        if not self.latent_mean.is_meta:
            found = unwrap_names(read_weights(folder), self.state_dict())
            check_weights(
                {name: p for name, p in self.state_dict().items() if not name.startswith(self.kept_apart)}, found
            )
            self.load_state_dict(found, strict=False)
            if not (self.latent_std > 0).all():
                raise ValueError(f'{folder}: latent_std must be positive, got {self.latent_std.min():.3g}')
            self.source = self.source or weights_source(folder)
        self.knows_statistics = config['knows_statistics']
        self.trained_frames = config.get('trained_frames')

    def _save_parts(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Write the weights kept in separate files. Return the others, and what the config records of those files."""
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(self.kept_apart)}
        return state, {}

    @classmethod
    def _from_folder(cls, folder: Path, arguments: dict[str, Any]) -> Self:
        return cls(**arguments)

    @classmethod
    def _without_weights(cls, description: Mapping[str, Any]) -> Self:
        return cls(**description['arguments'])


@MODELS.register_module(name='PretrainedVAE')
def pretrained_vae(pretrained: str) -> PretrainedMixin:
    """Load a VAE from a folder in a config: ``backbone=dict(type='PretrainedVAE', pretrained=FOLDER)``.

    Args:
        pretrained: See :meth:`PretrainedMixin.from_pretrained`.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> MODELS.build(vae).save_pretrained('my_vae')
        >>> MODELS.build(dict(type='PretrainedVAE', pretrained='my_vae')).latent_channels
        4
    """
    return PretrainedMixin.from_pretrained(pretrained)


def clear_folder(folder: Path) -> None:
    """Delete the config of a VAE folder, so a partly overwritten folder cannot be loaded."""
    (folder / CONFIG).unlink(missing_ok=True)


def write_folder(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write the weights, then the config, each atomically.

    Args:
        folder: Target folder, created if missing.
        config: ``type``, ``arguments`` and ``knows_statistics`` of the VAE.
        state: Weights of the VAE.
    """
    write_atomically(folder / WEIGHTS, save({name: tensor.contiguous() for name, tensor in state.items()}))
    write_atomically(folder / CONFIG, (json.dumps({**config, 'pvvae_plugin': __version__}, indent=2) + '\n').encode())


def exported_config(folder: Path) -> dict[str, Any] | None:
    """Return the config of a VAE folder, or None if the folder has another origin.

    Raises:
        ValueError: If :func:`write_folder` wrote the config, but it is damaged.
    """
    try:
        ours = 'pvvae_plugin' in json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return read_config(folder) if ours else None


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a VAE folder.

    Raises:
        FileNotFoundError: If the folder has no config.
        ValueError: If :func:`write_folder` did not write it.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f'{folder} holds no {CONFIG}, so it is not a VAE folder: export a checkpoint with tools/export_vae.py'
        )
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        config = None
    return check_config(config, str(path))


def check_config(config: Any, where: str) -> dict[str, Any]:
    """Return the config of a VAE if it is valid.

    Raises:
        ValueError: If it was not written by :meth:`PretrainedMixin.save_pretrained`.
    """
    if not isinstance(config, Mapping) or not KEYS.keys() <= config.keys():
        raise ValueError(f'{where} is not the config of a VAE written by tools/export_vae.py or save_pretrained()')
    if wrong := [key for key, kind in KEYS.items() if not isinstance(config[key], kind)]:
        raise ValueError(f'{where}: {wrong[0]} must be of type {KEYS[wrong[0]].__name__}, got {config[wrong[0]]!r}')
    if refused := [key for key in config['arguments'] if key in IRRELEVANT]:
        raise ValueError(f'{where}: argument {refused[0]} is not allowed in a VAE folder')
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a VAE folder.

    Raises:
        FileNotFoundError: If the folder has no weights.
        ValueError: If the file is damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f'{folder} holds no {WEIGHTS}: copy the whole folder')
    try:
        # Keep the weights on the CPU, whatever the default device is.
        with torch.device('cpu'):
            weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path} is damaged: {error}') from error
    if wrong := [name for name, tensor in weights.items() if not tensor.is_floating_point()]:
        raise ValueError(f'{path}: {wrong[0]} has dtype {weights[wrong[0]].dtype}, but weights must be floating point')
    return weights


def weights_source(folder: Path) -> dict[str, str]:
    """Return ``path`` and ``sha256`` of the weights of a folder."""
    return {'path': str(folder), 'sha256': file_sha256(folder / WEIGHTS)}

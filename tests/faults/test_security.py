"""Whatever file of a stranger is put in whatever place: it is refused with a message, and nothing of it is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from strangers_files import PAYLOADS, load_carelessly
from tiny_runs import make_runs, script

from projects.predictive_study import study
from pvvae_plugin.apis import VideoAutoencoderInferencer, VideoGeneratorInferencer, read_video
from pvvae_plugin.datasets import ClipError, LatentDataset, VideoDataset, latent_shards
from pvvae_plugin.evaluation import ClassAccuracy, resolve_protocol
from pvvae_plugin.evaluation.extractors import C3D, I3D, FeatureExtractor, I3DTorchScript, VideoMAE
from pvvae_plugin.evaluation.extractors.c3d import _load_mean
from pvvae_plugin.evaluation.extractors.videomae import _normalization
from pvvae_plugin.evaluation.folders import videos_config
from pvvae_plugin.evaluation.motion_classifier import load_classifier
from pvvae_plugin.evaluation.reference import Reference
from pvvae_plugin.evaluation.video_features import VideoFeatures
from pvvae_plugin.evaluation.weights import load_tensors
from pvvae_plugin.files import file_sha256
from pvvae_plugin.models import VideoVAE
from pvvae_plugin.models.losses.lpips import _load_backbone
from pvvae_plugin.registry import DATASETS, EXTRACTORS, MODELS
from pvvae_plugin.sampling.sample_folder import SampleFolder

# What torch says, and what we must not: it tells the reader to load the file without safety.
BAD_ADVICE = ('weights_only', 'add_safe_globals', 'allow_pickle', 'pickle.load', 'unsafely')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Configs and checkpoints for all that is not the stranger's."""
    return make_runs(tmp_path_factory.mktemp('run'))


def work_dir_of(file: Path) -> Path:
    """A work directory whose last checkpoint the file is."""
    shutil.copy(file, file.parent / 'iter_7.pth')
    (file.parent / 'last_checkpoint').write_text('/somewhere/else/iter_7.pth')
    return file.parent


def exported(file: Path) -> Path:
    """The folder of a VAE with the file for its weights."""
    folder = file.parent / 'exported'
    widths = {'encoder_widths': (8, 8, 8), 'decoder_widths': (8, 8, 8), 'strides': ((2, 2), (2, 1))}
    MODELS.build({'type': 'PredictiveVAE', 'latent_channels': 4, **widths}).save_pretrained(folder)
    shutil.copy(file, folder / 'model.safetensors')
    return folder


def copy_latents(run, file: Path, name: str) -> Path:
    """A folder of latents with the file in place of one of its own."""
    folder = file.parent / 'latents'
    shutil.copytree(run.folder / 'latents', folder)
    target = next(folder.glob(name))
    shutil.copy(file, target)
    if target.suffix == '.safetensors':  # its size is looked at first
        manifest = json.loads((folder / latent_shards.MANIFEST).read_text())
        manifest['shards'][0]['bytes'] = target.stat().st_size
        (folder / latent_shards.MANIFEST).write_text(json.dumps(manifest))
    return folder


def diffusers_folder(run, file: Path, name: str) -> str:
    """A folder of a VAE of diffusers with the file for its weights."""
    diffusers = pytest.importorskip('diffusers')
    folder = file.parent / 'wan'
    diffusers.AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1).save_pretrained(folder)
    (folder / 'diffusion_pytorch_model.safetensors').unlink()
    shutil.copy(file, folder / name)
    return str(folder)


def videomae_folder(file: Path, name: str) -> Path:
    folder = file.parent / 'mae'
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps({'model_type': 'videomae', 'hidden_size': 12}))
    (folder / 'model.safetensors').touch()
    shutil.copy(file, folder / name)
    return folder


def renamed(file: Path, name: str) -> Path:
    return Path(shutil.copy(file, file.with_name(name)))


def samples(file: Path) -> SampleFolder:
    folder = file.parent / 'samples'
    folder.mkdir()
    shutil.copy(file, folder / 'samples.json')
    return SampleFolder(folder, {}, {}, [], [])


class MeanColor(FeatureExtractor):
    name, feature_dim = 'mean_color', 3

    def features(self, video: torch.Tensor) -> torch.Tensor:
        return video.mean((2, 3, 4))

    def preprocessing(self) -> dict:
        return {}


def with_list(file: Path, name: str, **option: str) -> VideoDataset:
    return VideoDataset(data_root=str(file.parent), clip_len=5, **{key: str(renamed(file, name)) for key in option})


WORK = ('--work-dir',)
CHECKPOINTS = ('pickle', 'zip', 'legacy', 'torchscript', 'npy')
ARRAYS = ('npy', 'npz', 'pickle', 'zip')
ANY = ('pickle', 'zip')
# Where a file may be put -> kinds of files, and what reads it there.
PLACES: dict[str, tuple[tuple[str, ...], Callable]] = {
    'train.py --resume FILE': (
        CHECKPOINTS,
        lambda r, f: script('train.py', r.vae, *WORK, f.parent, '--resume', f),
    ),
    'train.py --resume, last of the work directory': (
        CHECKPOINTS,
        lambda r, f: script('train.py', r.vae, *WORK, work_dir_of(f), '--resume'),
    ),
    'train.py resume=True': (
        ANY,
        lambda r, f: script('train.py', r.vae, *WORK, work_dir_of(f), '--cfg-options', 'resume=True'),
    ),
    'train.py load_from': (
        CHECKPOINTS,
        lambda r, f: script('train.py', r.vae, *WORK, f.parent, '--cfg-options', f'load_from={f}'),
    ),
    'train.py model.backbone_checkpoint': (
        CHECKPOINTS,
        lambda r, f: script(
            'train.py', r.generator, *WORK, f.parent, '--cfg-options', f'model.backbone_checkpoint={f}'
        ),
    ),
    'test.py': (CHECKPOINTS, lambda r, f: script('test.py', r.vae, f, *WORK, f.parent)),
    'sample.py': (CHECKPOINTS, lambda r, f: script('sample.py', r.generator, f, '--out-dir', f.parent / 'o')),
    'sample.py model.backbone_checkpoint': (
        ANY,
        lambda r, f: script(
            *('sample.py', r.generator, r.folder / 'empty.pth', '--out-dir', f.parent / 'o'),
            *('--cfg-options', f'model.backbone_checkpoint={f}'),
        ),
    ),
    'extract_latents.py': (CHECKPOINTS, lambda r, f: script('extract_latents.py', r.vae, f, f.parent / 'o')),
    'extract_latents.py, record of a shard': (
        ANY,
        lambda r, f: script('extract_latents.py', r.vae, r.checkpoint, copy_latents(r, f, 'shard-*.json')),
    ),
    'export_vae.py': (CHECKPOINTS, lambda r, f: script('export_vae.py', r.vae, f, f.parent / 'o')),
    'inflate_vae.py': (CHECKPOINTS, lambda r, f: script('inflate_vae.py', r.vae, f, f.parent / 'o')),
    'inflate_vae.py .safetensors': (
        ANY,
        lambda r, f: script('inflate_vae.py', r.vae, renamed(f, 'a.safetensors'), f.parent / 'o'),
    ),
    'analysis/latents.py': (
        ANY,
        lambda r, f: script('analysis/latents.py', r.vae, f, '--videos', renamed(f, 'a.mp4'), '--out', f.parent / 'o'),
    ),
    'analysis/class_accuracy.py': (ANY, lambda r, f: script('analysis/class_accuracy.py', r.generator, f)),
    'analysis/class_accuracy.py, classifier': (ANY, lambda r, f: load_classifier(f, 'x')),
    'analysis/train_classifier.py': (ANY, lambda r, f: script('analysis/train_classifier.py', r.generator, '--out', f)),
    'ClassAccuracy': (ANY, lambda r, f: ClassAccuracy(f)),
    'MotionFeatures': (ANY, lambda r, f: EXTRACTORS.build({'type': 'MotionFeatures', 'weights': f})),
    'analysis/probe_latents.py': (
        CHECKPOINTS,
        lambda r, f: script('analysis/probe_latents.py', r.vae, f, '--out', f.parent / 'o', '--num-clips', 16),
    ),
    'study, settings': (
        ANY,
        lambda r, f: (
            (f.parent / 's').mkdir(),
            shutil.copy(f, f.parent / 's' / 'study.json'),
            # The limit: where such a file is taken, the test fails within seconds rather than run a study.
            study.main(['--scale', 'tiny', '--out', str(f.parent / 's'), '--minutes', '0.01']),
        ),
    ),
    'analysis/report.py': (ANY, lambda r, f: script('analysis/report.py', f)),
    'analysis/plot_logs.py': (
        ANY,
        lambda r, f: (
            (f.parent / 'run' / 'vis_data').mkdir(parents=True),
            shutil.copy(f, f.parent / 'run' / 'vis_data' / 'scalars.json'),
            script('analysis/plot_logs.py', f.parent, '--panel', 'loss', '--out', f.parent / 'o.png'),
        ),
    ),
    'VideoAutoencoderInferencer': (CHECKPOINTS, lambda r, f: VideoAutoencoderInferencer(r.vae, f)),
    'VideoGeneratorInferencer': (CHECKPOINTS, lambda r, f: VideoGeneratorInferencer(r.generator, f)),
    'VideoVAE.from_pretrained, weights': (ANY, lambda r, f: VideoVAE.from_pretrained(exported(f))),
    'VideoVAE.from_pretrained, config': (
        ANY,
        lambda r, f: (shutil.copy(f, exported(f) / 'config.json'), VideoVAE.from_pretrained(f.parent / 'exported')),
    ),
    'PretrainedVAE': (ANY, lambda r, f: MODELS.build({'type': 'PretrainedVAE', 'pretrained': str(exported(f))})),
    'DiffusersVAE .bin': (
        ANY,
        lambda r, f: MODELS.build(
            {'type': 'DiffusersVAE', 'pretrained': diffusers_folder(r, f, 'diffusion_pytorch_model.bin')}
        ),
    ),
    'DiffusersVAE .safetensors': (
        ANY,
        lambda r, f: MODELS.build(
            {'type': 'DiffusersVAE', 'pretrained': diffusers_folder(r, f, 'diffusion_pytorch_model.safetensors')}
        ),
    ),
    'DiffusersVAE config.json': (
        ANY,
        lambda r, f: MODELS.build({'type': 'DiffusersVAE', 'pretrained': diffusers_folder(r, f, 'config.json')}),
    ),
    'LatentDataset, shard': (ANY, lambda r, f: LatentDataset(copy_latents(r, f, 'shard-*.safetensors'))),
    'LatentDataset, manifest': (ANY, lambda r, f: LatentDataset(copy_latents(r, f, latent_shards.MANIFEST))),
    'I3D': (CHECKPOINTS, lambda r, f: I3D(f)),
    'I3DTorchScript': (CHECKPOINTS, lambda r, f: I3DTorchScript(f)),
    'I3DTorchScript, trusted': (ANY, lambda r, f: I3DTorchScript(f, sha256=file_sha256(f))),
    'C3D, weights': (ARRAYS, lambda r, f: C3D(f, f)),
    'C3D, mean': (ARRAYS, lambda r, f: _load_mean(f)),
    'VideoMAE .bin': (ANY, lambda r, f: VideoMAE(videomae_folder(f, 'pytorch_model.bin'))),
    'VideoMAE .safetensors': (ANY, lambda r, f: VideoMAE(videomae_folder(f, 'model.safetensors'))),
    'VideoMAE config.json': (ANY, lambda r, f: VideoMAE(videomae_folder(f, 'config.json'))),
    'VideoMAE preprocessor_config.json': (ANY, lambda r, f: _normalization(f)),
    'LPIPS': (CHECKPOINTS, lambda r, f: _load_backbone(torch.nn.Linear(1, 1), f)),
    'weights of the proxies': (CHECKPOINTS, lambda r, f: load_tensors(f)),
    'weights in .safetensors': (ANY, lambda r, f: load_tensors(renamed(f, 'a.safetensors'))),
    'VideoArrayDataset': (ARRAYS, lambda r, f: DATASETS.build(videos_config(str(renamed(f, 'a.npy')), clip_len=2))),
    'evaluate_videos.py .npy': (
        ARRAYS,
        lambda r, f: script('evaluate_videos.py', renamed(f, 'a.npy'), renamed(f, 'b.npy'), '--metrics', 'psnr'),
    ),
    'a video .npy': (ARRAYS, lambda r, f: read_video(renamed(f, 'a.npy'))),
    'a video .mp4': (ANY, lambda r, f: read_video(renamed(f, 'a.mp4'))),
    'an image': (ANY, lambda r, f: read_video(renamed(f, 'a.png'))),
    'samples.json of a folder to write to': (ANY, lambda r, f: samples(f).check()),
    'clips to draw of a folder to write to': (
        ARRAYS,
        lambda r, f: (
            (f.parent / 'samples' / '.shown').mkdir(parents=True),
            shutil.copy(f, f.parent / 'samples' / '.shown' / '0.npy'),
            (f.parent / 'samples' / '00000.webm').touch(),
            SampleFolder(f.parent / 'samples', {}, {}, [{'index': 0, 'label': None, 'class': None}], [0]).shown_clips(),
        ),
    ),
    'samples.json of a folder to judge': (ANY, lambda r, f: with_list(f, 'samples.json', ann_file='')),
    'ann_file .txt': (ANY, lambda r, f: with_list(f, 'a.txt', ann_file='')),
    'ann_file .csv': (ANY, lambda r, f: with_list(f, 'a.csv', ann_file='')),
    'class_file': (ANY, lambda r, f: with_list(f, 'a.txt', class_file='')),
}


@pytest.mark.parametrize('kind', [kind for kind in PAYLOADS if kind != 'torchscript'])
def test_these_files_do_run_where_they_are_loaded_carelessly(kind, tmp_path):
    load_carelessly(kind, PAYLOADS[kind](tmp_path / 'marker'))
    assert (tmp_path / 'marker').exists()


@pytest.mark.parametrize(('place', 'kind'), [(place, kind) for place, (kinds, _) in PLACES.items() for kind in kinds])
def test_a_strangers_file_is_refused_and_not_run(place, kind, run, tmp_path, monkeypatch, capsys):
    if place.startswith('VideoMAE') and 'preprocessor' not in place:
        pytest.importorskip('transformers')
    monkeypatch.chdir(tmp_path)
    marker, file = tmp_path / 'marker', tmp_path / 'strangers.pth'
    file.write_bytes(PAYLOADS[kind](marker))
    with pytest.raises((ValueError, FileNotFoundError, ClipError, SystemExit)) as caught:
        PLACES[place][1](run, file)
    message = f'{caught.value} {capsys.readouterr().err}'
    assert not marker.exists()
    assert str(tmp_path) in message or tmp_path.name in message, message  # it says which file
    assert not [text for text in BAD_ADVICE if text in message], message


@pytest.mark.parametrize('kind', ANY)
def test_a_strangers_cache_of_features_is_computed_anew(kind, tmp_path):
    """A cache is nothing that a user gave: it is no error, but a warning."""
    np.save(tmp_path / 'real.npy', np.random.default_rng(0).integers(0, 256, (4, 5, 6, 6, 3), dtype=np.uint8))
    data = {'type': 'VideoArrayDataset', 'data_root': str(tmp_path / 'real.npy')}
    protocol = resolve_protocol({'base': 'paper', 'num_frames': 5, 'num_samples': 4, 'real_clip': 'first'})
    features = VideoFeatures(MeanColor(), protocol)
    options = {'dataset': data, 'num_workers': 0, 'cache_dir': str(tmp_path / 'cache')}
    first = Reference(features, **options).get()
    (cached,) = (tmp_path / 'cache').glob('*.safetensors')
    marker = tmp_path / 'marker'
    cached.write_bytes(PAYLOADS[kind](marker))
    again = Reference(features, **options).get()
    assert torch.equal(first.reference, again.reference)
    assert not marker.exists()
    load_tensors(cached)  # a whole one is there again

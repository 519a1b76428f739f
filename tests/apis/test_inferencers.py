"""What a notebook does with a VAE and a generator: paths and arrays in, arrays and files out."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from pvvae_plugin import config_path
from pvvae_plugin.apis import VideoAutoencoderInferencer, VideoGeneratorInferencer, autoencoder_inferencer, read_video
from pvvae_plugin.datasets import ClipError, open_video
from pvvae_plugin.functional.conversion import cover
from pvvae_plugin.registry import MODELS


@pytest.fixture
def vae(tiny_vae_config):
    return MODELS.build(tiny_vae_config).eval()


def as_array(video):
    """By definition: rounded to the nearest of 256 levels."""
    return np.clip(np.round((video[0].permute(1, 2, 3, 0).double().numpy() + 1) * 127.5), 0, 255).astype(np.uint8)


def alike(frames, expected):
    """Equal, but where float32 and float64 part at a half."""
    difference = np.abs(frames.astype(int) - expected)
    return frames.dtype == np.uint8 and difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_every_form_of_a_video_is_read_alike(tmp_path, write_video):
    path = write_video(tmp_path / 'a.mp4', num_frames=7)
    frames = np.stack(list(open_video(path)))
    np.save(tmp_path / 'a.npy', frames)
    expected = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    for source in (path, tmp_path / 'a.mp4', tmp_path / 'a.npy', frames, expected, expected[0]):
        torch.testing.assert_close(read_video(source)[0], expected)
    assert read_video(path)[1] == pytest.approx(25)
    cv2.imwrite(str(tmp_path / 'a.png'), frames[0, ..., ::-1])
    torch.testing.assert_close(read_video(tmp_path / 'a.png')[0], expected[:, :, :1])
    torch.testing.assert_close(read_video(frames[0])[0], expected[:, :, :1])
    assert read_video(path, size=(32, 16))[0].shape == (1, 3, 7, 32, 16)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        (np.zeros((5, 8, 8, 3), np.float32), r'uint8 \(T, H, W, 3\), got float32'),
        (np.zeros((5, 3, 8, 8), np.uint8), r'uint8 \(T, H, W, 3\), got uint8 \(5, 3, 8, 8\)'),
        (torch.zeros(3, 5, 8, 8, dtype=torch.uint8), 'a video tensor must be float'),
        (torch.zeros(2, 3, 5, 8, 8), 'a video tensor must be float'),
        (torch.full((3, 5, 8, 8), 255.0), r'must be in \[-1, 1\], got values from 255 to 255'),
        (torch.full((3, 5, 8, 8), torch.nan), r'must be in \[-1, 1\]'),
    ],
)
def test_what_is_no_video(source, message):
    with pytest.raises(ValueError, match=message):
        read_video(source)


def test_values_from_0_to_1_are_told_whatever_is_asked_for(vae):
    inferencer = VideoAutoencoderInferencer(vae, device='cpu')
    unit = torch.rand(3, 5, 32, 32)
    for call in (inferencer.reconstruct, inferencer.encode, lambda clip: inferencer.predict(clip, 9)):
        with pytest.warns(UserWarning, match=r'a video tensor has no negative value.*: .* 2 \* video - 1'):
            call(unit)
    bright = np.random.default_rng(0).integers(128, 256, (5, 32, 32, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        inferencer.encode(2 * unit - 1)
        inferencer.encode(bright)
        inferencer.encode(read_video(bright)[0])  # bytes, although no value is negative
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')
        for _ in range(2):
            inferencer.reconstruct(unit)
            inferencer.encode(unit)
    assert len(caught) == 1


def test_arrays_that_would_execute_code_are_not_read(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ClipError, match='cannot|safely'):
        read_video(tmp_path / 'a.npy')


@torch.no_grad()
def test_sides_are_padded_and_cropped_and_odd_frames_left_out(vae):
    inferencer = VideoAutoencoderInferencer(vae, device='cpu')
    frames = np.random.default_rng(0).integers(0, 256, (7, 20, 35, 3), np.uint8)
    padded = np.pad(frames[:5], ((0, 0), (0, 12), (0, 13), (0, 0)), mode='edge')
    video = torch.from_numpy(padded).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    latents = vae.encode(video).mode()
    torch.testing.assert_close(inferencer.encode(frames), latents)
    expected = as_array(vae.decode(latents))
    assert alike(inferencer.reconstruct(frames), expected[:, :20, :35])
    assert alike(inferencer.decode(latents), expected)
    predicted = as_array(vae.predict(video[:, :, :1], 9))
    assert alike(inferencer.predict(frames, 9, num_observed=1), predicted[:, :20, :35])


def test_files_are_written(vae, tmp_path, write_video):
    path = write_video(tmp_path / 'a.mp4', num_frames=5)
    inferencer = VideoAutoencoderInferencer(vae, device='cpu')
    for ending in ('webm', 'gif', 'npy', 'png'):
        frames = inferencer.reconstruct(path, out=tmp_path / f'b.{ending}')
    assert np.array_equal(np.load(tmp_path / 'b.npy'), frames)
    assert len(open_video(str(tmp_path / 'b.webm'))) == 5
    assert open_video(str(tmp_path / 'b.webm')).fps == pytest.approx(25)  # the source's
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'b.png')), np.concatenate(list(frames), axis=1))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda i, f: i.reconstruct(f, out='a.mp4'), "one of .webm, .gif, .npy, .png, got 'a.mp4'"),
        (lambda i, f: i.reconstruct(f[:, :15], out='a.webm'), 'the clip is 15 x 32'),
        (lambda i, f: i.predict(f, 9, num_observed=9), 'num_observed=9 is more than the 5 frames of the video'),
        (lambda i, f: i.predict(f, 9, num_observed=4), 'e.g. 1 or 5'),
        (lambda i, f: i.predict(f, 9, num_observed=-1), 'a clip of -1 frames'),
        (
            lambda i, f: VideoAutoencoderInferencer(i.vae, 'work_dirs/run'),
            "checkpoint='work_dirs/run' is only allowed with a config",
        ),
        (lambda i, f: i.predict(f, 8), 'e.g. 5 or 9'),
        (lambda i, f: i.decode(torch.zeros(4, 1, 2, 2)), 'latents must be those of one clip'),
    ],
)
def test_bad_requests_are_refused(vae, call, message):
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        call(VideoAutoencoderInferencer(vae, device='cpu'), frames)


def test_the_rate_of_a_file_is_checked_before_the_work(vae, tmp_path, monkeypatch):
    inferencer = VideoAutoencoderInferencer(vae, device='cpu')
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    np.save(tmp_path / 'a.NPY', frames)
    with monkeypatch.context() as high_speed:
        high_speed.setattr(autoencoder_inferencer, 'read_video', lambda *_: (torch.zeros(1, 3, 5, 32, 32), 1000.0))
        inferencer.reconstruct('fast.mp4', out=tmp_path / 'fast.WEBM')
    assert open_video(str(tmp_path / 'fast.WEBM')).fps == pytest.approx(240)
    monkeypatch.setattr(vae, 'encode', lambda video: pytest.fail('encoded first'))
    for call in (inferencer.reconstruct, lambda source, **options: inferencer.predict(source, 9, **options)):
        with pytest.raises(ValueError, match='fps must be in'):
            call(tmp_path / 'a.NPY', out=tmp_path / 'b.webm', fps=1000)


@pytest.fixture
def demo_run(tmp_path):
    """Work directories of the demo's VAE and generator, not trained."""
    cfg = Config.fromfile(config_path('dit_demo.py'))
    cfg.model.backbone_checkpoint = None
    model = MODELS.build(cfg.model)
    for name, part in (('vae', model.backbone), ('dit', model.head)):
        prefix = {'vae': 'backbone', 'dit': 'head'}[name]
        state = {f'{prefix}.{key}': tensor for key, tensor in part.state_dict().items()}
        if name == 'dit':
            state |= {f'backbone.latent_{key}': getattr(model.backbone, f'latent_{key}') for key in ('mean', 'std')}
        (tmp_path / name).mkdir()
        torch.save({'state_dict': state}, tmp_path / name / 'iter_1.pth')
    return tmp_path, model


def test_a_vae_by_config_and_checkpoint_and_by_folder(demo_run, monkeypatch):
    root, model = demo_run
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    by_name = VideoAutoencoderInferencer('pvvae_demo', root / 'vae', device='cpu')
    by_path = VideoAutoencoderInferencer(config_path('pvvae_demo.py'), root / 'vae' / 'iter_1.pth', device='cpu')
    model.backbone.save_pretrained(root / 'exported')
    by_folder = VideoAutoencoderInferencer(root / 'exported', device='cpu')
    expected = by_name.encode(frames)
    assert torch.equal(by_path.encode(frames), expected) and torch.equal(by_folder.encode(frames), expected)
    assert np.array_equal(by_name.decode(expected.numpy()), by_name.reconstruct(frames))
    warnings = []
    monkeypatch.setattr('pvvae_plugin.apis.autoencoder_inferencer.print_log', lambda text, *_: warnings.append(text))
    by_name.reconstruct(frames)
    assert not warnings
    by_name.encode(np.zeros((13, 32, 32, 3), np.uint8))
    by_name.predict(frames, 13)
    assert [text[:59] for text in warnings] == ['the clip has 13 frames, but this VAE was trained on clips o'] * 2
    with pytest.raises(ValueError, match='is a config without weights: give checkpoint'):
        VideoAutoencoderInferencer('pvvae_demo')
    with pytest.raises(FileNotFoundError, match="no config 'pvvae_dem.py' in pvvae_plugin; did you mean pvvae_demo.py"):
        VideoAutoencoderInferencer('pvvae_dem', root / 'vae')


def test_a_generator(demo_run, tmp_path):
    root, model = demo_run
    cfg = Config.fromfile(config_path('dit_demo.py'))
    cfg.model.backbone_checkpoint = str(root / 'vae')
    inferencer = VideoGeneratorInferencer(cfg, root / 'dit', device='cpu')
    assert inferencer.classes[:2] == ('linear', 'bounce')
    outs = [tmp_path / 'a.gif', tmp_path / 'b.npy']
    clips = inferencer.generate(['orbit', 0], num_inference_steps=2, seed=3, out=outs)
    made = model.eval().generate(2, 9, (32, 32), labels=[5, 0], num_inference_steps=2, seed=3)
    for clip, (_, video) in zip(clips, made, strict=True):
        assert alike(clip, as_array(video[None]))
    assert np.array_equal(np.load(outs[1]), clips[1])
    assert outs[0].read_bytes()[:3] == b'GIF'
    assert len(inferencer.generate(num_inference_steps=1)) == 7  # every class once
    with pytest.raises(ValueError, match="no class 'spin'"):
        inferencer.generate('spin')
    with pytest.raises(ValueError, match='num_given=5 needs first_frames'):
        inferencer.generate(num_given=5)
    with pytest.raises(ValueError, match='num_given must be at least 1, got 0'):
        inferencer.generate(num_given=0, first_frames=root)
    assert len(inferencer.generate(np.int64(2), num_inference_steps=1)) == 1
    for arguments, message in (
        ({'out': 'a.gif'}, 'one file per video: 7 videos, got 1'),
        ({'num': 2, 'out': ['a.gif', 'a.gif']}, 'out names the same file twice'),
        ({'num': 0}, 'num must be at least 1, got 0'),
        ({'num_given': 0, 'first_frames': 'a.png'}, 'num_given must be at least 1, got 0'),
        ({'num_given': 5}, 'num_given=5 needs first_frames'),
        ({'labels': []}, 'labels is empty'),
        ({'num': 1, 'out': 'a.gif', 'fps': 1e-9}, r'fps must be in \[0.1, 240\]'),
    ):
        with pytest.raises(ValueError, match=message):
            inferencer.generate(**arguments)


def test_threads_do_not_disturb_one_another(diffusers_folders):
    """Networks of diffusers keep a clip's state on themselves while they work."""
    vae = MODELS.build({'type': 'DiffusersVAE', 'pretrained': diffusers_folders['wan21'], 'subfolder': 'vae'})
    inferencer = VideoAutoencoderInferencer(vae, device='cpu')
    clips = [np.full((5, 16, 16, 3), value, np.uint8) for value in (10, 120, 250)]
    alone = [inferencer.reconstruct(frames) for frames in clips]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(inferencer.reconstruct, clips * 4))
    for made, expected in zip(together, alone * 4, strict=True):
        assert alike(made, expected)


def test_a_long_thin_picture_takes_no_more_memory_than_its_middle():
    frames = np.zeros((1, 1, 30000, 3), np.uint8)
    frames[:, :, 15000:] = 255
    video, _ = read_video(frames, size=(256, 256))
    assert video.shape == (1, 3, 1, 256, 256)
    assert (
        cover(frames[:, :, 14999:15001], (4, 8))[0, :, :4].max() < 255 == cover(frames[:, :, 14999:15001], (4, 8)).max()
    )

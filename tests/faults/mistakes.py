"""The table of the likeliest mistakes: what a user does, what is raised, and what the message must say.

test_mistakes.py makes each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from tiny_runs import ROOT, script

from pvvae_plugin.apis import VideoAutoencoderInferencer, VideoGeneratorInferencer
from pvvae_plugin.datasets import ClipError, LatentDataset, NoReadableClipError


class Mistake(NamedTuple):
    """What a user does, and what comes of it.

    Attributes:
        what: In words.
        do: Does it; is given the things of :func:`things`.
        error: What is raised; ``SystemExit`` where a script prints the message and ends.
        words: Patterns that the message must hold.
        faq: Where docs/faq.md quotes the message: a part of it that stands in both, word for word.
    """

    what: str
    do: Callable[[SimpleNamespace], object]
    error: type[BaseException]
    words: tuple[str, ...]
    faq: str = ''


def train(t: SimpleNamespace, *options: object, config: object = None, flags: tuple = ()) -> None:
    arguments = ('--work-dir', t.tmp / 'work', *flags, *(('--cfg-options', *options) if options else ()))
    script('train.py', config or t.vae, *arguments)


def test(t: SimpleNamespace, *options: object, config: object = None, checkpoint: object = None, flags=()) -> None:
    arguments = ('--work-dir', t.tmp / 'work', *flags, *(('--cfg-options', *options) if options else ()))
    script('test.py', config or t.vae, checkpoint or t.checkpoint, *arguments)


test.__test__ = False  # it is what the user runs


def sample(t: SimpleNamespace, *arguments: object, checkpoint: object = None) -> None:
    script('sample.py', t.generator, checkpoint or t.head, '--out-dir', t.tmp / 'out', '--num', 1, *arguments)


def evaluate(t: SimpleNamespace, *arguments: object) -> None:
    script('evaluate_videos.py', *arguments, '--workers', 0, '--cache-dir', t.tmp / 'cache')


def with_videos(t: SimpleNamespace, *options: object, data_root: object = None) -> None:
    """Train the small VAE on a folder of videos."""
    root = data_root or t.videos
    train(
        *(t, f'train_dataloader.dataset.data_root={root}', f'val_dataloader.dataset.data_root={root}'),
        *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
        *('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False', *options),
        config=ROOT / 'configs' / 'pvvae_folder64.py',
    )


def options(*overrides: str) -> Callable:
    return lambda t: train(t, *overrides)


OVERRIDES = [
    Mistake(
        'a misspelled entry at the top',
        options('train_dataloadr.batch_size=2'),
        ValueError,
        ("nothing reads 'train_dataloadr'", 'did you mean train_dataloader or val_dataloader'),
        faq="nothing reads 'train_dataloadr' in the top of a config: did you mean train_dataloader",
    ),
    Mistake(
        'a helper of the file: data_root',
        lambda t: train(t, 'data_root=VIDEOS', config='pvvae_ucf101'),
        ValueError,
        ('data_root has no effect', 'a helper', r'entries.*train_dataloader\.dataset\.data_root'),
        faq="data_root has no effect: 'data_root' is a helper variable that was used when the config was read.",
    ),
    Mistake(
        'a helper of the file: a pipeline',
        lambda t: train(t, 'train_pipeline.0.size=128', config='pvvae_ucf101'),
        ValueError,
        ('train_pipeline.*a helper', r'train_dataloader\.dataset\.pipeline\.0\.size'),
    ),
    Mistake(
        'an argument of the loop at the top',
        options('max_iters=20'),
        ValueError,
        (r'did you mean train_cfg\.max_iters\?',),
        faq="nothing reads 'max_iters' in the top of a config: did you mean train_cfg.max_iters?",
    ),
    Mistake(
        'a misspelled argument of the loop',
        options('train_cfg.max_iter=10'),
        ValueError,
        (r"nothing reads 'max_iter' in train_cfg \(ClipTrainLoop\)", 'did you mean max_iters'),
        faq="nothing reads 'max_iter' in train_cfg (ClipTrainLoop): did you mean max_iters? valid are",
    ),
    Mistake(
        'a misspelled argument of the VAE',
        options('model.backbone.latent_chanels=4'),
        ValueError,
        ("'latent_chanels' in model.backbone", 'did you mean latent_channels', 'valid are .*encoder_widths'),
    ),
    Mistake(
        "another library's name of an argument",
        options('optim_wrapper.vae.optimizer.learning_rate=1'),
        ValueError,
        (r'learning_rate.*\(AdamW\)', r'valid are .*\blr\b'),
    ),
    Mistake(
        'an optimizer that there is not',
        options('optim_wrapper.vaes.optimizer.lr=1e-3'),
        ValueError,
        ("'vaes' in optim_wrapper", 'did you mean vae'),
    ),
    Mistake(
        'a misspelled hook',
        options('default_hooks.chekpoint.interval=5'),
        ValueError,
        ("'chekpoint' in default_hooks", 'did you mean checkpoint'),
    ),
    Mistake(
        'a misspelled type',
        options('model.loss.type=PredictveReconLoss'),
        ValueError,
        ('no component is named PredictveReconLoss', 'did you mean PredictiveReconLoss'),
    ),
    Mistake(
        'a place past the end of a list',
        options('param_scheduler.7.end=2'),
        ValueError,
        (r'param_scheduler\.7', 'list of 2', 'indices are 0 to 1'),
    ),
    Mistake(
        'a word for a number',
        options('train_cfg.max_iters=ten'),
        ValueError,
        ('max_iters=ten is not a number',),
        faq='train_cfg.max_iters=ten is not a number; the value in the config is',
    ),
    Mistake(
        'no iterations', options('train_cfg.max_iters=0'), ValueError, (r'train_cfg\.max_iters.*at least 1, got 0',)
    ),
    Mistake(
        'a negative batch', options('train_dataloader.batch_size=-1'), ValueError, ('batch_size.*at least 1, got -1',)
    ),
    Mistake(
        'fewer than no workers',
        options('train_dataloader.num_workers=-1'),
        ValueError,
        ('num_workers.*at least 0, got -1',),
    ),
    Mistake(
        'spaces around the =',
        options('train_cfg.max_iters', '=', '10'),
        SystemExit,
        ('KEY=VALUE without spaces', "got 'train_cfg.max_iters'"),
        faq='--cfg-options takes KEY=VALUE without spaces around the =, such as train_cfg.max_iters=1000, got',
    ),
    Mistake(
        'a loader that the config has not',
        lambda t: test(t, 'test_dataloader.batch_size=2'),
        ValueError,
        ('has no test_dataloader', 'Override that'),
        faq='has no test_dataloader; tests use val_dataloader instead. Override that, or',
    ),
    Mistake(
        "a validation set's entry, where a test has its own",
        lambda t: test(t, 'val_dataloader.batch_size=2', config='dit_demo'),
        ValueError,
        ('no effect', 'test_dataloader.batch_size'),
    ),
    Mistake(
        'a run shorter than its warm-up',
        options('train_cfg.max_iters=50'),
        ValueError,
        (r'param_scheduler\.1\.begin=100', 'shorten the warm-up', r'param_scheduler\.0\.end=25'),
        faq='param_scheduler.1.begin=100 is past the end of the run, train_cfg.max_iters=50. For a short run,',
    ),
    Mistake(
        'a misspelled config',
        lambda t: train(t, config='pvvae_dmeo'),
        FileNotFoundError,
        ('pvvae_dmeo', 'pvvae_demo.py'),
        faq="no config 'pvvae_dmeo.py' in pvvae_plugin; did you mean pvvae_demo.py",
    ),
]

DATA = [
    Mistake(
        'a folder of videos that is not there',
        lambda t: with_videos(t, data_root='/no/such/folder'),
        FileNotFoundError,
        ("data_root '/no/such/folder' is not a folder", 'docs/data.md'),
        faq='is not a folder (seen from',
    ),
    Mistake(
        'an empty folder',
        lambda t: with_videos(t, data_root=t.empty),
        ValueError,
        ('no videos in .*empty', 'expected data_root/CLASS/clip.mp4'),
    ),
    Mistake(
        'an empty validation set',
        lambda t: with_videos(t, f'val_dataloader.dataset.data_root={t.empty}'),
        ValueError,
        ('no videos in .*empty',),
    ),
    Mistake(
        'a list that is not there',
        lambda t: with_videos(t, 'train_dataloader.dataset.ann_file=lits.txt'),
        FileNotFoundError,
        ('ann_file not found', "'lits.txt'"),
    ),
    Mistake(
        'a list of other files',
        lambda t: with_videos(t, f'train_dataloader.dataset.ann_file={t.list_of("gone.mp4")}'),
        FileNotFoundError,
        ('none of the 1 files', 'gone.mp4', 'relative to data_root'),
    ),
    Mistake(
        'a label out of range',
        lambda t: with_videos(t, f'train_dataloader.dataset.ann_file={t.list_of("0.mp4 -1")}'),
        ValueError,
        ('label -1 is out of range', 'valid are 0 and above'),
    ),
    Mistake(
        'images for clips of many frames',
        lambda t: with_videos(t, data_root=t.images),
        ValueError,
        ('but images', 'set clip_len=1'),
    ),
    Mistake(
        'a clip of 16 frames',
        options('train_dataloader.dataset.clip_len=16'),
        ValueError,
        ('16 frames does not split', '13 or 17'),
        faq='a clip of 16 frames does not split into groups: with a temporal ratio of 4 the length must be 1 + k',
    ),
    Mistake(
        'sides that do not divide',
        options('train_dataloader.dataset.size=30'),
        ValueError,
        ('clips of train_dataloader', '30 is not divisible by the spatial ratio', '28 or 32|24 or 32'),
        faq='clips of train_dataloader do not fit the backbone: height',
    ),
    Mistake(
        'groups of another VAE',
        options('train_dataloader.dataset.pipeline.0.temporal_ratio=8'),
        ValueError,
        ('temporal_ratio=8', 'set it to 4 in the pipeline'),
    ),
    Mistake(
        'more dropped than there is',
        options('train_dataloader.dataset.pipeline.0.max_drop_ratio=1.5'),
        ValueError,
        (r'max_drop_ratio.*1\.5',),
    ),
    Mistake(
        'videos that are too short',
        lambda t: with_videos(t, 'train_dataloader.dataset.clip_len=33', 'val_dataloader.dataset.clip_len=33'),
        NoReadableClipError,
        ('20 frames, but 33', 'Check that data_root'),
        faq='clips in a row could be read (the requested one and its substitutes, max_substitutes=20,',
    ),
    Mistake(
        'frames too small for SSIM',
        lambda t: train(t, 'val_dataloader.dataset.size=8', config=t.vae),
        ValueError,
        ('val_evaluator cannot measure', '8 x 8', 'SSIM', 'at least 11 x 11'),
        faq='val_evaluator cannot measure the clips of val_dataloader: VideoReconstruction computes SSIM, which',
    ),
]

CHECKPOINTS = [
    Mistake(
        'a checkpoint that is not there',
        lambda t: test(t, checkpoint=t.tmp / 'iter_9.pth'),
        FileNotFoundError,
        ('no checkpoint at .*iter_9.pth', 'train it first|must be a .pth file'),
    ),
    Mistake(
        'half a checkpoint',
        lambda t: train(t, flags=('--resume', t.half)),
        ValueError,
        ('half.pth cannot be loaded safely', 'damaged'),
        faq='cannot be loaded safely: it is damaged, or was not written by torch.save (',
    ),
    Mistake(
        'a checkpoint of another network',
        lambda t: test(t, 'model.backbone.latent_channels=8'),
        ValueError,
        ('does not fit the model', 'of another shape', 'Use the config that wrote it'),
        faq='the checkpoint does not fit the model of this config: 0 weights missing (),',
    ),
    Mistake(
        'the checkpoint of a VAE for a generator',
        lambda t: sample(t, checkpoint=t.checkpoint),
        ValueError,
        ('does not fit the model', 'head'),
    ),
    Mistake(
        'the checkpoint of a generator for a VAE',
        lambda t: VideoAutoencoderInferencer(t.vae, t.head),
        ValueError,
        ('does not fit the model', 'weights missing'),
    ),
    Mistake(
        'the folder of a VAE for a checkpoint',
        lambda t: test(t, checkpoint=t.exported),
        FileNotFoundError,
        ('folder of a VAE, not a checkpoint', 'PretrainedVAE', "'pretrained'"),
        faq='is the folder of a VAE, not a checkpoint: set it in the config as model.backbone=dict(_delete_=True,',
    ),
    Mistake(
        'weights alone, to go on from',
        lambda t: train(t, flags=('--resume', t.checkpoint)),
        ValueError,
        ('cannot be resumed', 'lacks .*optimizer', 'Use load_from'),
    ),
    Mistake(
        'going on from another kind of run',
        lambda t: train(t, flags=('--resume', t.run_of('head'))),
        ValueError,
        (r"training \['head'\], but this config trains \['vae'\]", 'Use load_from'),
        faq='was written while training [',
    ),
    Mistake(
        'a generator whose VAE is not there',
        lambda t: train(t, 'model.backbone_checkpoint=work_dirs/nothing', config=t.generator),
        FileNotFoundError,
        ("no checkpoint at 'work_dirs/nothing'", r'model\.backbone_checkpoint=PATH'),
        faq='It must be a .pth file, or the work directory of a finished run; train it first',
    ),
    Mistake(
        'a generator on another VAE',
        lambda t: sample(t, '--cfg-options', f'model.backbone_checkpoint={t.other_vae}'),
        ValueError,
        ('trained on the VAE .*vae.pth', 'other.pth', r'set model\.backbone_checkpoint=.*vae\.pth$'),
        faq='this generator was trained on the VAE',
    ),
    Mistake(
        'an address for a checkpoint',
        options('load_from=https://server/vae.pth'),
        ValueError,
        ('is a URL', 'download the file first'),
        faq='https://server/vae.pth is a URL: download the file first for safe loading, and give its path',
    ),
    Mistake(
        'a file for the folder to export to',
        lambda t: script('export_vae.py', t.vae, t.checkpoint, t.half),
        NotADirectoryError,
        ('half.pth is a file', 'give a folder'),
    ),
    Mistake(
        'own weights of a VAE that has none',
        lambda t: test(t, checkpoint='pretrained'),
        ValueError,
        ('is a PredictiveVAE', 'give a checkpoint'),
        faq="'pretrained' needs a backbone that loads its own weights, such as DiffusersVAE,",
    ),
]

GENERATORS = [
    Mistake(
        'another number of classes',
        lambda t: train(t, 'model.head.num_classes=5', config=t.generator),
        ValueError,
        ('have 7 classes, but the head has 5', r'set model\.head\.num_classes=7'),
        faq='the clips of train_dataloader have 7 classes, but the head has 5; set model.head.num_classes=7',
    ),
    Mistake(
        'videos without labels for a class-conditional generator',
        lambda t: train(
            t,
            'model.head.num_classes=5',
            *(f'{split}_dataloader.dataset.data_root={t.videos}' for split in ('train', 'val')),
            *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val')),
            *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val')),
            f'model.backbone_checkpoint={t.folder64}',
            config='dit_folder64',
        ),
        ValueError,
        ('have no labels', r'model\.head\.num_classes=None'),
        faq='clips of train_dataloader have no labels, but the head is class-conditional; use labeled data, or',
    ),
    Mistake(
        'a class that there is not',
        lambda t: sample(t, '--labels', 'fly'),
        ValueError,
        ("'fly'", r'0\.\.6, linear'),
        faq="no class 'fly': valid are 0..6, linear,",
    ),
    Mistake('samples of 16 frames', lambda t: sample(t, '--num-frames', 16), ValueError, ('16 frames', '13 or 17')),
    Mistake(
        'no steps',
        lambda t: sample(t, '--num-inference-steps', 0),
        SystemExit,
        ('--num-inference-steps must be a positive integer, got 0',),
    ),
    Mistake(
        'too much guidance',
        lambda t: sample(t, '--guidance-scale', 1e9),
        ValueError,
        (r'guidance_scale must.*\(1 for none\)',),
    ),
    Mistake('samples of odd size', lambda t: sample(t, '--size', 33, 33), ValueError, ('must be even.*33',)),
    Mistake(
        'frames for a generator that takes none',
        lambda t: sample(t, '--first-frames', t.videos / '0.mp4'),
        ValueError,
        ('condition_prob', 'trained without'),
    ),
    Mistake(
        'samples into a folder with other things',
        lambda t: script('sample.py', t.generator, t.head, '--out-dir', t.videos, '--num', 1),
        ValueError,
        ('is not empty', 'choose another output folder'),
    ),
    Mistake(
        'latents into a folder of another VAE',
        lambda t: script('extract_latents.py', t.vae, t.other_vae, t.latents),
        ValueError,
        ('was made with', 'checkpoint_sha256', 'another output folder'),
    ),
    Mistake(
        'many clips a video of a test set',
        lambda t: script(
            *('extract_latents.py', t.vae, t.checkpoint, t.tmp / 'l', '--split', 'val', '--clips-per-video', 3)
        ),
        ValueError,
        ('--clips-per-video 3', 'test_mode', 'use 1'),
    ),
    Mistake(
        'a folder without latents',
        lambda t: LatentDataset(t.empty),
        FileNotFoundError,
        ('manifest.json not found', 'extract_latents.py'),
    ),
]

EVALUATION = [
    Mistake(
        'a folder to judge that is not there',
        lambda t: evaluate(t, t.videos, '/no/such/folder', '--metrics', 'psnr'),
        FileNotFoundError,
        ("no folder, list or array of videos at '/no/such/folder'",),
    ),
    Mistake(
        'one video',
        lambda t: evaluate(t, t.videos, t.one, '--metrics', 'proxy'),
        ValueError,
        ('1 video', 'each set needs at least 2'),
        faq='has 1 video; each set needs at least 2',
    ),
    Mistake(
        'a file for a folder',
        lambda t: evaluate(t, t.videos, t.videos / '0.mp4', '--metrics', 'psnr'),
        ValueError,
        ('is one file', 'give a folder'),
    ),
    Mistake(
        'no weights of I3D',
        lambda t: evaluate(t, t.videos, t.videos, '--metrics', 'fvd'),
        FileNotFoundError,
        ('file i3d_torchscript.pt not found', 'Suitable weights and their sources', 'Download one'),
        faq='extractor.weights: file i3d_torchscript.pt not found, looked at',
    ),
    Mistake(
        'an unknown metric',
        lambda t: evaluate(t, t.videos, t.videos, '--metrics', 'fid'),
        ValueError,
        ('fid', 'fvd.*psnr'),
    ),
    Mistake(
        'no weights of LPIPS, I3D and C3D, all told at once',
        lambda t: test(t, config=t.with_weights),
        FileNotFoundError,
        ('alexnet', 'i3d_torchscript.pt', 'conv3d_deepnetA_ucf.npz'),
        faq="needs torchvision's weights of",
    ),
    Mistake(
        'pictures without a hook that draws',
        lambda t: test(t, 'custom_hooks=None', flags=('--show-dir', t.tmp / 's')),
        ValueError,
        ('--show-dir needs a PredictionVisualizationHook',),
    ),
    Mistake(
        'metrics to where nothing can be written',
        lambda t: test(t, flags=('--out', t.half / 'metrics.json')),
        OSError,
        ('half.pth',),
    ),
    Mistake(
        'a report of no metrics',
        lambda t: script('analysis/report.py', t.tmp / 'metrics.json'),
        SystemExit,
        ('no file .*metrics.json', 'tools/test.py --out'),
    ),
]

RUNNING = [
    Mistake(
        'processes that nobody started',
        lambda t: train(t, flags=('--launcher', 'pytorch')),
        ValueError,
        ('--launcher pytorch', 'torchrun', '--launcher none'),
        faq='--launcher pytorch needs processes started by torchrun, which sets RANK, WORLD_SIZE,',
    ),
    Mistake(
        'an option of a wrapper that the configs do not use',
        lambda t: train(t, 'find_unused_parameters=True'),
        ValueError,
        ('no effect', r'set model_wrapper_cfg\.find_unused_parameters=True'),
        faq='find_unused_parameters=True has no effect: MMEngine reads it only without',
    ),
    Mistake(
        '--amp with an optimizer wrapper of MMEngine',
        lambda t: train(t, 'optim_wrapper.vae.type=OptimWrapper', flags=('--amp',)),
        ValueError,
        ("--amp needs type='AutocastOptimWrapper'", "got 'OptimWrapper'"),
    ),
    Mistake(
        '--auto-scale-lr without a batch to scale from',
        lambda t: train(t, flags=('--auto-scale-lr',)),
        ValueError,
        (r'auto_scale_lr\.base_batch_size',),
    ),
    Mistake(
        'a work directory that cannot be made',
        lambda t: script('train.py', t.vae, '--work-dir', t.half / 'work'),
        ValueError,
        ('half.pth', 'work directory', '--work-dir'),
        faq='the work directory',
    ),
    Mistake(
        'a GPU that is not there',
        lambda t: VideoAutoencoderInferencer(t.vae, t.checkpoint, device='cuda'),
        ValueError,
        ("device='cuda'", 'no GPU'),
        faq="device='cuda' cannot be used, torch sees no GPU (",
    ),
]

IN_PYTHON = [
    Mistake(
        'a video that is not there', lambda t: t.inferencer.encode('gone.mp4'), ClipError, ('gone.mp4.*no such file',)
    ),
    Mistake('a text for a video', lambda t: t.inferencer.encode(t.list_of('a')), ClipError, ('text|no video',)),
    Mistake(
        'floats for 8-bit frames',
        lambda t: t.inferencer.encode(np.zeros((9, 32, 32, 3))),
        ValueError,
        (r'uint8 \(T, H, W, 3\)', 'got float64'),
    ),
    Mistake(
        'channels first',
        lambda t: t.inferencer.encode(np.zeros((9, 3, 32, 32), np.uint8)),
        ValueError,
        (r'uint8 \(T, H, W, 3\)', r'\(9, 3, 32, 32\)'),
    ),
    Mistake(
        'values of 0 to 255 in a tensor',
        lambda t: t.inferencer.encode(torch.full((3, 9, 32, 32), 255.0)),
        ValueError,
        (r'must be in \[-1, 1\]', '255', 'divide bytes by 127.5'),
    ),
    Mistake(
        'values that are no numbers',
        lambda t: t.inferencer.encode(torch.full((3, 9, 32, 32), torch.nan)),
        ValueError,
        (r'must be in \[-1, 1\]', 'nan'),
    ),
    Mistake(
        'more frames observed than there are',
        lambda t: t.inferencer.predict(np.zeros((5, 32, 32, 3), np.uint8), 17, num_observed=9),
        ValueError,
        ('num_observed=9', '5 frames of the video'),
    ),
    Mistake(
        'a config without weights', lambda t: VideoAutoencoderInferencer('pvvae_demo'), ValueError, ('give checkpoint',)
    ),
    Mistake(
        'a generator of the config of a VAE',
        lambda t: VideoGeneratorInferencer(t.vae, t.checkpoint),
        ValueError,
        ('is not a generator config', 'without a head'),
    ),
]

MISTAKES = [*OVERRIDES, *DATA, *CHECKPOINTS, *GENERATORS, *EVALUATION, *RUNNING, *IN_PYTHON]

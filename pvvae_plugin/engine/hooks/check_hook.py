"""Start-up checks for errors that would only show hours later."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets import VideoDataset
from pvvae_plugin.datasets.frame_rates import clip_rates, rates_differ, rates_within
from pvvae_plugin.models.checkpoints import check_runs_nothing, check_weights, unwrap_names, upgrade_checkpoint
from pvvae_plugin.models.generator_checks import untrained_shape
from pvvae_plugin.registry import HOOKS
from pvvae_plugin.temporal import groups_to_frames

# Metrics that work with the fields that loops and models add to samples, by one of these fields.
SUITABLE_METRICS = {
    'generated': 'FVD, KVD, ProxyFVD and ProxyKVD with a reference, VideoInceptionScore, ClassAccuracy',
    'flow_losses': 'FlowLoss',
    'reconstruction': 'VideoReconstruction, FuturePrediction, LatentTemporalDistance, ClassAccuracy; FVD, KVD, '
    'ProxyFVD and ProxyKVD without a reference',
}
PADDING_TOKEN = 'backbone.padding_token'


@HOOKS.register_module()
class StartCheckHook(Hook):
    """Check data against the network, and a loaded checkpoint against the model.

    - Clips must have a length, size and grouping that the backbone accepts. Cached latents must have the backbone's
      number of channels and come from its checkpoint. The validation set is checked before training, too.
    - Validation clips of a generator must have a length and size of its training clips. Training or testing on other
      ones than the checkpoint's gives a warning.
    - Metrics with ``fields`` must find them in the samples.
    - Metrics and losses with a ``check_clip`` method must accept the clips.
    - The number of classes of a class-conditional head must match the data. All datasets must list the classes in the
      same order.
    - Frame rates that differ within a dataset, or between training and reference clips, are logged as a warning.
    - A checkpoint must contain all weights of the backbone and the head, in the right shapes. (MMEngine only warns of
      missing weights and keeps random ones.) It must not contain code that MMEngine would execute. The only weight that
      may be dropped is a learned padding token, if training with noise padding starts from such a checkpoint.

    The size of each dataset is logged. A training set of a single clip, and clips of a generator that are longer than
    those its VAE was trained on, give a warning.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='StartCheckHook'))  # an entry of custom_hooks
        >>> sorted(hook.get_triggered_stages())
        ['after_load_checkpoint', 'before_test', 'before_train']
    """

    def before_train(self, runner: Runner) -> None:
        datasets = {'train': runner.train_dataloader.dataset}
        if runner.val_loop is not None:
            datasets['val'] = runner.val_dataloader.dataset
            _check_metrics('val', datasets['val'], runner.val_loop, _unwrapped(runner))
        model = _unwrapped(runner)
        _check_datasets(model, datasets)
        if hasattr(model, 'trained_on'):
            _check_shapes(runner, model, datasets.get('val'))
        _warn_of_rates(datasets, runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        model = _unwrapped(runner)
        _check_metrics('test', runner.test_dataloader.dataset, runner.test_loop, model)
        _check_datasets(model, {'test': runner.test_dataloader.dataset})
        if hasattr(model, 'trained_on'):
            shape = model.clip_shape(runner.test_dataloader.dataset[0]['inputs'])
            if difference := untrained_shape(shape, model.trained_on, model.backbone):
                runner.logger.warning(f'test_dataloader has {difference}: the metrics are those of another task')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_runs_nothing(checkpoint)  # before MMEngine would execute it
        upgrade_checkpoint(checkpoint, getattr(_unwrapped(runner), 'optimized_modules', ()))
        weights = _unwrapped(runner).state_dict()
        checkpoint['state_dict'] = state = unwrap_names(checkpoint.get('state_dict', checkpoint), weights)
        surplus = PADDING_TOKEN in state and PADDING_TOKEN not in weights
        if (
            surplus and not runner._resume and isinstance(runner._train_loop, BaseLoop)
        ):  # training is initialized from it
            del state[PADDING_TOKEN]
            runner.logger.info(f'ignored {PADDING_TOKEN} of the checkpoint: this VAE pads with noise')
        kept = {name: tensor for name, tensor in weights.items() if name.startswith(('backbone.', 'head.'))}
        check_weights(kept, state)


def _check_metrics(name: str, dataset: Dataset, loop: BaseLoop, model: nn.Module) -> None:
    """Check the ``fields`` of metrics that have them, and call ``check_clip`` of those that have it."""
    giver = loop if hasattr(loop, 'sample_fields') else model
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
        _check_fields(name, metric, giver)
        if hasattr(metric, 'check_clip'):
            try:
                metric.check_clip(dataset[0]['inputs'].shape)
            except ValueError as error:
                raise ValueError(f'{name}_evaluator cannot measure the clips of {name}_dataloader: {error}') from error


def _check_loss(loss: nn.Module, clip: Tensor) -> None:
    """Call ``check_clip`` of the loss if it has it."""
    if hasattr(loss, 'check_clip'):
        try:
            loss.check_clip(clip.shape)
        except ValueError as error:
            raise ValueError(f'model.loss cannot compare the clips of train_dataloader: {error}') from error


def _check_fields(name: str, metric: BaseMetric, giver: BaseLoop | nn.Module) -> None:
    """Check that the loop or the model adds the fields to samples that a metric reads."""
    given = getattr(giver, 'sample_fields', None)  # unknown for models of other projects
    wanted = getattr(metric, 'fields', ())
    if given is None or all(set(field.split(' or ')) & set(given) for field in wanted):
        return
    suitable = next(text for field, text in SUITABLE_METRICS.items() if field in given)
    raise ValueError(
        f'{name}_evaluator: {type(metric).__name__} reads {" and ".join(wanted)} from samples, but '
        f'{type(giver).__name__} gives {", ".join(given)}. Metrics that work there: {suitable}'
    )


def _warn_of_rates(datasets: dict[str, Dataset], loop: BaseLoop | None) -> None:
    """Log frame rates that differ within a dataset, or between the training and the reference clips."""
    rates = {f'{name}_dataloader': clip_rates(dataset) for name, dataset in datasets.items()}
    found = [f'{name}: {text}' for name in rates if (text := rates_within(rates[name]))]
    references = (
        getattr(metric, 'reference', None) for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ())
    )
    for reference in filter(None, references):
        real = clip_rates(reference.dataset)
        found.append(rates_differ(rates['train_dataloader'], real, 'train_dataloader', 'reference'))
    for text in dict.fromkeys(filter(None, found)):
        print_log(text, logger='current', level=logging.WARNING)


def _check_datasets(model: nn.Module, datasets: dict[str, Dataset]) -> None:
    num_classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    if num_classes is not None:  # VAEs and unconditional generators ignore labels
        parts = {f'{name}_dataloader{place}': p for name, d in datasets.items() for place, p in _parts(d)}
        _check_same_classes({name: found for name, part in parts.items() if (found := _metainfo(part, 'classes'))})
    for name, dataset in datasets.items():
        _check_groups(name, dataset, model.backbone.temporal_ratio)
        sample = dataset[0]
        _describe(name, dataset, sample['inputs'], model)
        if len(sample['inputs']) == 3:  # RGB; moments have an even number of channels
            _check_clip(name, sample['inputs'], model.backbone)
            if name == 'train':
                _check_loss(getattr(model, 'loss', None), sample['inputs'])
        else:
            _check_latents(name, dataset, sample['inputs'], model)
        if num_classes is not None:
            _check_classes(name, dataset, sample, num_classes)


def _check_same_classes(classes: dict[str, Sequence[str]]) -> None:
    """Check the names before their number: a count that fits one dataset does not fit the other."""
    if len({tuple(names) for names in classes.values()}) < 2:
        return
    counts = ', '.join(f'{name} {len(names)}' for name, names in classes.items())
    every = list(dict.fromkeys(name for names in classes.values() for name in names))
    if all(set(names) == set(every) for names in classes.values()):
        difference = 'the names are the same, in another order'
    else:
        common = set.intersection(*map(set, classes.values()))
        only = {name: [each for each in names if each not in common] for name, names in classes.items()}
        difference = '; '.join(f'only in {name}: {_some(names)}' for name, names in only.items() if names)
    raise ValueError(
        f'{" and ".join(classes)} differ in their classes or in the class order, so their labels do not match '
        f'(classes: {counts}; {difference}). Write the {len(every)} names ({_some(every)}) to a file, one per line, '
        f'set class_file to it in each dataset, and set model.head.num_classes={len(every)}'
    )


def _parts(dataset: Dataset) -> list[tuple[str, Dataset]]:
    """Return the parts of a ConcatDataset and their places in the config, or the dataset itself."""
    parts = getattr(dataset, 'datasets', None)
    return [('', dataset)] if parts is None else [(f'.dataset.datasets.{i}', part) for i, part in enumerate(parts)]


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:20]) + f' and {len(names) - 20} more' * (len(names) > 20)


def _check_shapes(runner: Runner, model: nn.Module, val: Dataset | None) -> None:
    """Compare the lengths and sizes of a generator's training and validation clips with each other and the checkpoint.

    Other ones would give the flow loss and the pictures of another task.
    """
    train = _shapes(runner.train_dataloader, model)
    for shape in sorted(train):
        if difference := untrained_shape(shape, model.trained_on, model.backbone):
            runner.logger.warning(f'train_dataloader has {difference}: training continues on another task')
    if val is None:
        return
    shape = model.clip_shape(val[0]['inputs'])
    if difference := untrained_shape(shape, train | model.trained_on, model.backbone):
        raise ValueError(
            f'val_dataloader has {difference}; set the clip length and size of val_dataloader to those of '
            'train_dataloader (of cached latents: extract both from clips of one length and size)'
        )


def _shapes(loader: DataLoader, model: nn.Module) -> set[tuple[int, int, int]]:
    """Return ``(T, H, W)`` of the clips of a training data loader, of which only the first ones are read."""
    parts = getattr(loader.dataset, 'datasets', [loader.dataset])  # those of a ConcatDataset
    shapes = {model.clip_shape(part[0]['inputs']) for part in parts if len(part)}
    resolutions = getattr(getattr(loader, 'batch_sampler', None), 'resolutions', ())
    sides = [resolution['size'] for resolution in resolutions]  # of a MultiResolutionBatchSampler
    return {(frames, side, side) for frames, *_ in shapes for side in sides} if sides else shapes


def _describe(name: str, dataset: Dataset, inputs: Tensor, model: nn.Module) -> None:
    """Log the size of a dataset, and warn if it is unlikely to be the intended one."""
    is_clip = len(inputs) == 3
    unit = 'video' if isinstance(dataset, VideoDataset) and inputs.shape[1] > 1 else 'clip'
    count = f'{len(dataset)} {unit}{"" if len(dataset) == 1 else "s"}'
    kind = {'video': ', clips', 'clip': ''}[unit] if is_clip else ' as cached latents'
    root = getattr(dataset, 'data_root', '')
    where = f' in {root}' if root else ''
    print_log(f'{name}_dataloader: {count}{where}{kind} of {" x ".join(map(str, inputs.shape[1:]))}', 'current')
    if name == 'train' and len(dataset) < 2:
        print_log(
            f'train_dataloader has only {count}: a network memorizes it. Train on at least 2; check '
            'train_dataloader.dataset.data_root',
            'current',
            logging.WARNING,
        )
    trained = getattr(model.backbone, 'trained_frames', None) if hasattr(model, 'head') else None
    frames = inputs.shape[1] if is_clip else groups_to_frames(inputs.shape[1], model.backbone.temporal_ratio)
    if trained is not None and frames > trained:
        print_log(
            f'clips of {name}_dataloader have {frames} frames, but the VAE was trained on clips of {trained}: later '
            f'frames may be poor. Use at most {trained} frames, or train the VAE on longer clips',
            'current',
            logging.WARNING,
        )


def _check_groups(name: str, dataset: Dataset, temporal_ratio: int) -> None:
    for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', []):
        ratio = getattr(step, 'temporal_ratio', temporal_ratio)
        if ratio != temporal_ratio:
            raise ValueError(
                f'{type(step).__name__} of {name}_dataloader has temporal_ratio={ratio}, but the backbone '
                f'has {temporal_ratio}; set it to {temporal_ratio} in the pipeline'
            )


def _check_clip(name: str, clip: Tensor, backbone: nn.Module) -> None:
    try:
        backbone.check_video(torch.empty(1, *clip.shape, device='meta'))
    except ValueError as error:
        raise ValueError(f'clips of {name}_dataloader do not fit the backbone: {error}') from error


def _check_latents(name: str, dataset: Dataset, moments: Tensor, model: nn.Module) -> None:
    """Check that cached moments ``(2 C, t, h, w)`` come from the backbone that decodes them."""
    again = 'extract them with this VAE (tools/extract_latents.py), or set model.backbone_checkpoint to theirs'
    channels = model.backbone.latent_channels
    if len(moments) != 2 * channels:
        raise ValueError(
            f'latents of {name}_dataloader have {len(moments) // 2} channels, but the backbone has {channels}; {again}'
        )
    theirs = getattr(dataset, 'manifest', {}).get('source', {}).get('checkpoint_sha256')
    ours = getattr(model, 'backbone_source', None)
    if theirs and ours and theirs != ours['sha256']:
        raise ValueError(
            f'latents of {name}_dataloader were made by the VAE {dataset.manifest["checkpoint"]} (sha256 '
            f'{theirs[:12]}), but model.backbone_checkpoint is {ours["path"]} (sha256 {ours["sha256"][:12]}); {again}'
        )


def _check_classes(name: str, dataset: Dataset, sample: dict, num_classes: int) -> None:
    if sample['data_samples'].metainfo.get('label') is None:
        raise ValueError(
            f'clips of {name}_dataloader have no labels, but the head is class-conditional; use labeled data, or set '
            'model.head.num_classes=None'
        )
    classes = _metainfo(dataset, 'classes')
    found = len(classes) if classes else _metainfo(dataset, 'num_classes')
    unnamed = found is None and hasattr(dataset, 'get_data_info')
    if unnamed:  # classes without clips are fine, but a label beyond them would be read as "no class"
        labels = [dataset.get_data_info(index).get('label') for index in range(len(dataset))]
        if None in labels:
            path = dataset.get_data_info(labels.index(None)).get('path')
            raise ValueError(f'{path} of {name}_dataloader has no label; use labeled data only')
        found = max(num_classes, 1 + max(labels))
    if found not in (None, num_classes):
        raise ValueError(
            f'the clips of {name}_dataloader have {found} classes, but the head has {num_classes}; set '
            f'model.head.num_classes={found}'
        )


def _metainfo(dataset: Dataset, key: str) -> object:
    return getattr(dataset, 'metainfo', {}).get(key)


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model

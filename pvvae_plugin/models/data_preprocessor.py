"""Collation of packed clips into a batch on the model's device."""

from __future__ import annotations

import torch
from mmengine.model import BaseDataPreprocessor

from pvvae_plugin.registry import MODELS


@MODELS.register_module()
class VideoDataPreprocessor(BaseDataPreprocessor):
    """Preprocessor that stacks clips and scales uint8 to [-1, 1] on the device.

    Scaling after the transfer moves a quarter of the bytes that float32 would need.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> from pvvae_plugin.structures import VideoDataSample
        >>> preprocessor = MODELS.build(dict(type='VideoDataPreprocessor'))
        >>> clip = torch.full((3, 9, 32, 32), 255, dtype=torch.uint8)
        >>> batch = preprocessor(dict(inputs=[clip, clip], data_samples=[VideoDataSample(), VideoDataSample()]))
        >>> batch['inputs'].shape, batch['inputs'].max()
        (torch.Size([2, 3, 9, 32, 32]), tensor(1.))
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Convert ``inputs``, ``N`` uint8 tensors ``(3, T, H, W)``, to one float ``(N, 3, T, H, W)`` in [-1, 1].

        Float inputs, such as moments of cached latents, are stacked unchanged.

        Raises:
            ValueError: If the clips of the batch differ in shape.
        """
        data = self.cast_data(data)
        shapes = {tuple(clip.shape) for clip in data['inputs']}
        if len(shapes) > 1:
            paths = [sample.metainfo.get('path') for sample in data['data_samples']]
            raise ValueError(
                f'clips in a batch differ in shape: {sorted(shapes)} (from {paths}). Crop to a common size in the '
                'pipeline, or use MultiResolutionBatchSampler, which batches equal sizes together'
            )
        inputs = torch.stack(list(data['inputs']))
        if inputs.dtype == torch.uint8:
            inputs = inputs.float().div_(127.5).sub_(1.0)
        return {'inputs': inputs, 'data_samples': data['data_samples']}

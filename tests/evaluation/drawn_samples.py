import torch

from pvvae_plugin.structures import VideoDataSample


def build_sample(index, num_frames=5, size=12, temporal_ratio=2, **metainfo):
    """Random clip seeded by its index, with a reconstruction and predictions that exceed [-1, 1]."""
    generator = torch.Generator().manual_seed(index)
    sample = VideoDataSample(metainfo={'temporal_ratio': temporal_ratio, 'path': f'{index}', 'label': None, **metainfo})
    sample.video = torch.rand(3, num_frames, size, size, generator=generator) * 2 - 1
    sample.reconstruction = sample.video + 0.3 * torch.randn(sample.video.shape, generator=generator)
    sample.predictions = {
        g: sample.video + 0.5 * torch.randn(sample.video.shape, generator=generator)
        for g in range(1, 1 + (num_frames - 1) // temporal_ratio)
    }
    return sample

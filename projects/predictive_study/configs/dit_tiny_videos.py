# As dit_tiny.py, unconditional, on the latents of a folder of videos.
_base_ = 'dit_tiny.py'

model = dict(head=dict(num_classes=None))
custom_hooks = [  # guidance needs classes
    dict(hook, guidance_scale=1.0) if hook['type'] == 'GenerationVisualizationHook' else hook
    for hook in _base_.custom_hooks
]

test_pipeline = [
    dict(type='ResizeClip', size=32),
    dict(type='CenterCropClip', size=32),
    dict(type='PackClip'),
]
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VideoDataset',
        data_root='data/videos/val',
        clip_len=9,
        test_mode=True,
        pipeline=test_pipeline,
    )
)
proxies = dict(
    protocol=dict(base='paper', num_frames=9, num_samples=256),
    reference=dict(dataset=dict(type='VideoDataset', data_root='data/videos/train', pipeline=test_pipeline)),
    appearance_size=64,
)
test_evaluator = [dict(type='ProxyFVD', **proxies), dict(type='ProxyKVD', **proxies)]

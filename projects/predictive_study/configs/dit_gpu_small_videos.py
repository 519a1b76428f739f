# As dit_gpu_small.py, unconditional, on the latents of a folder of videos. Not yet trained at this size.
_base_ = 'dit_gpu_small.py'

model = dict(head=dict(num_classes=None))
custom_hooks = [  # guidance needs classes
    dict(hook, guidance_scale=1.0) if hook['type'] == 'GenerationVisualizationHook' else hook
    for hook in _base_.custom_hooks
]

test_pipeline = [
    dict(type='ResizeClip', size=64),
    dict(type='CenterCropClip', size=64),
    dict(type='PackClip'),
]
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VideoDataset',
        data_root='data/videos/val',
        clip_len=17,
        test_mode=True,
        pipeline=test_pipeline,
    )
)
proxies = dict(
    protocol=dict(base='paper', num_samples=2048),
    reference=dict(
        dataset=dict(type='VideoDataset', data_root='data/videos/train', pipeline=test_pipeline),
        batch_size=64,
        num_workers=8,
    ),
    appearance_size=128,
)
test_evaluator = [dict(type='ProxyFVD', **proxies), dict(type='ProxyKVD', **proxies)]

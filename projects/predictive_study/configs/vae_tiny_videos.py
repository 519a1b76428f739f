# As vae_tiny.py on a folder of videos, played forwards and backwards.
_base_ = 'vae_tiny.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VideoDataset',
        data_root='data/videos/train',
        clip_len=9,
        pipeline=[
            dict(type='ResizeClip', size=32),
            dict(type='RandomCropClip', size=32),
            dict(type='RandomFlipClip', prob=0.5),
            dict(type='RandomTimeReverse', prob=0.5),
            dict(type='FutureDropSampler', temporal_ratio=4, max_drop_ratio=1.0),
            dict(type='PackClip'),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VideoDataset',
        data_root='data/videos/val',
        clip_len=9,
        test_mode=True,
        pipeline=[
            dict(type='ResizeClip', size=32),
            dict(type='CenterCropClip', size=32),
            dict(type='PackClip'),
        ],
    ),
)
test_dataloader = val_dataloader

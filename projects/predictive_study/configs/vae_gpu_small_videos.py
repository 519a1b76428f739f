# As vae_gpu_small.py on a folder of videos, played forwards and backwards. Not yet trained at this size.
_base_ = 'vae_gpu_small.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VideoDataset',
        data_root='data/videos/train',
        clip_len=17,
        pipeline=[
            dict(type='ResizeClip', size=64),
            dict(type='RandomCropClip', size=64),
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
        clip_len=17,
        test_mode=True,
        pipeline=[
            dict(type='ResizeClip', size=64),
            dict(type='CenterCropClip', size=64),
            dict(type='PackClip'),
        ],
    ),
)
test_dataloader = val_dataloader

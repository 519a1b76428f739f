# A small predictive VAE on any folder of videos, 17 frames of 64 x 64. A few hundred iterations on a CPU show that it
# learns.
#   python tools/train.py configs/pvvae_folder64.py --cfg-options \
#       train_dataloader.dataset.data_root=VIDEOS/train val_dataloader.dataset.data_root=VIDEOS/val
_base_ = 'pvvae_demo.py'


model = dict(
    backbone=dict(
        latent_channels=16,
        encoder_widths=(32, 48, 64),
        decoder_widths=(32, 48, 64),
        strides=((2, 1), (2, 2)),
    )
)

train_dataloader = dict(
    batch_size=4,
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
    batch_size=8,
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

train_cfg = dict(max_iters=1000, val_interval=100)

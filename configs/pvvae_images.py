# Stage 1: pretraining on images of 256, 384 and 512 pixels, read as one-frame clips from a folder of images or of class
# folders. We have not run this at full scale.
_base_ = 'pvvae_ucf101.py'

data_root = 'data/images'

train_dataloader = dict(
    _delete_=True,
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteClipSampler'),
    batch_sampler=dict(
        type='MultiResolutionBatchSampler',
        # Every step has about the same number of pixels. Sizes are the paper's, batch sizes are ours.
        resolutions=[
            dict(size=256, batch_size=16),
            dict(size=384, batch_size=7),
            dict(size=512, batch_size=4),
        ],
    ),
    dataset=dict(
        type='VideoDataset',
        data_root=data_root + '/train',
        clip_len=1,
        pipeline=[
            dict(type='ResizeClip', size=256),
            dict(type='RandomCropClip', size=256),
            dict(type='RandomFlipClip', prob=0.5),
            dict(type='PackClip'),
        ],
    ),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=16,
    num_workers=4,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoDataset',
        data_root=data_root + '/val',
        clip_len=1,
        test_mode=True,
        pipeline=[
            dict(type='ResizeClip', size=256),
            dict(type='CenterCropClip', size=256),
            dict(type='PackClip'),
        ],
    ),
)
val_evaluator = [dict(type='VideoReconstruction')]
test_dataloader = val_dataloader
test_evaluator = [dict(type='VideoReconstruction', lpips=dict(type='LPIPS', net='alex'))]

# The GAN loss starts in stage 2.
model = dict(discriminator=None, adversarial=None)
train_cfg = dict(max_iters=300000)
optim_wrapper = dict(discriminator=None)
auto_scale_lr = dict(base_batch_size=128)

# RealEstate10K at 256 x 256, 17 frames, without labels, for generators. docs/data.md describes the folder layout.
data_root = 'data/realestate10k/videos'
list_dir = 'data/realestate10k'

train_pipeline = [
    dict(type='ResizeClip', size=256),
    dict(type='RandomCropClip', size=256),
    dict(type='RandomFlipClip', prob=0.5),
    dict(type='PackClip'),
]
test_pipeline = [
    dict(type='ResizeClip', size=256),
    dict(type='CenterCropClip', size=256),
    dict(type='PackClip'),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='InfiniteClipSampler'),
    dataset=dict(
        type='VideoDataset',
        data_root=data_root,
        ann_file=list_dir + '/train.csv',
        clip_len=17,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='VideoDataset',
        data_root=data_root,
        ann_file=list_dir + '/test.csv',
        clip_len=17,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
# Real clips that generated clips are compared with: one clip from each of the same number of training segments. The
# protocol sets its position in the segment.
real_clips = dict(
    type='VideoDataset',
    data_root=data_root,
    ann_file=list_dir + '/train.csv',
    pipeline=test_pipeline,
)

# UCF101 at 256 x 256, 17 frames. docs/data.md describes the folder layout.
data_root = 'data/ucf101/videos'
ann_dir = 'data/ucf101/ucfTrainTestlist'

train_pipeline = [
    dict(type='ResizeClip', size=256),
    dict(type='RandomCropClip', size=256),
    dict(type='RandomFlipClip', prob=0.5),
    dict(type='RandomTimeReverse', prob=0.5),
    dict(type='FutureDropSampler', temporal_ratio=4, max_drop_ratio=1.0),
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
        ann_file=ann_dir + '/trainlist01.txt',
        class_file=ann_dir + '/classInd.txt',
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
        ann_file=ann_dir + '/testlist01.txt',
        class_file=ann_dir + '/classInd.txt',
        clip_len=17,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)

# Real clips that generated clips are compared with: one clip from each of the same number of training videos. The
# protocol sets its position in the video.
real_clips = dict(
    type='VideoDataset',
    data_root=data_root,
    ann_file=ann_dir + '/trainlist01.txt',
    class_file=ann_dir + '/classInd.txt',
    pipeline=test_pipeline,
)

val_evaluator = [dict(type='VideoReconstruction'), dict(type='FuturePrediction')]
val_cfg = dict()

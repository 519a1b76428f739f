# The paper's generator on UCF101: class-conditional, 17 x 256 x 256. The VAE of stage 3 encodes the clips on the fly.
#   bash tools/dist_train.sh configs/dit_pvvae.py 8
#   python tools/sample.py configs/dit_pvvae.py work_dirs/dit_pvvae --num-inference-steps 100 --solver euler
# We have not run this at full scale.
_base_ = [
    '_base_/dit_model.py',
    '_base_/ucf101.py',
    '_base_/schedule_250k.py',
    '_base_/generator_runtime.py',
]

model = dict(head=dict(num_classes=101))

# A generator trains on complete clips, played forwards.
train_pipeline = [
    step for step in _base_.train_pipeline if step['type'] not in ('RandomTimeReverse', 'FutureDropSampler')
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8)
val_evaluator = [dict(type='FlowLoss')]

# Testing generates videos (_base_/generator_runtime.py) and compares them with real ones. It needs the weights listed
# in docs/evaluate.md. The protocol's numbers of frames and clips are the paper's.
test_dataloader = _base_.val_dataloader
reference = dict(dataset=_base_.real_clips)
test_evaluator = [
    dict(type='FVD', extractor=_base_.i3d, protocol='paper', reference=reference),
    dict(type='KVD', extractor=_base_.i3d, protocol='paper', reference=reference),
    dict(
        type='VideoInceptionScore',
        extractor=dict(type='C3D', weights='weights/conv3d_deepnetA_ucf.npz', mean='weights/mean2.npz'),
        protocol='paper',
        reference=reference,
    ),
]

# The paper-size predictive VAE, t4s16c64: 651 M parameters, 10.9 TFLOP to encode and decode 17 x 256 x 256
# (python tools/analysis/get_flops.py configs/pvvae_ucf101.py). Widths and depths are ours; the paper reports 661 M.
model = dict(
    type='VideoAutoencoder',
    backbone=dict(
        type='PredictiveVAE',
        latent_channels=64,
        encoder_widths=(64, 128, 256, 512, 896),
        decoder_widths=(96, 192, 384, 768, 1024),
        encoder_blocks=2,
        decoder_blocks=3,
        strides=((2, 2), (2, 2), (1, 2), (1, 2)),
        padding='learnable',
    ),
    loss=dict(
        type='PredictiveReconLoss',
        rec_weight=10.0,
        diff_weight=1.0,
        lpips_weight=1.0,
        kl_weight=1e-6,
        lpips=dict(type='LPIPS', net='vgg'),
    ),
    discriminator=dict(type='PatchDiscriminator3D', base_width=64, num_stages=3),
    adversarial=dict(type='AdversarialLoss', weight=0.3, start_iter=5000),
)

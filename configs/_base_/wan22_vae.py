# Wan2.2's VAE, t4s16c48, as diffusers publishes it: 705 M parameters. Get it once by
#   hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers --include 'vae/*' --local-dir weights/wan22
backbone = dict(type='DiffusersVAE', pretrained='weights/wan22', subfolder='vae')

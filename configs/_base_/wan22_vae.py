# Wan2.2's VAE in its diffusers version, t4s16c48, 705 M parameters. Download it once:
#   hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers --include 'vae/*' --local-dir weights/wan22
backbone = dict(type='DiffusersVAE', pretrained='weights/wan22', subfolder='vae')

# Wan2.1's VAE, t4s8c16: 127 M parameters. Download it once:
#   hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --include 'vae/*' --local-dir weights/wan21
backbone = dict(type='DiffusersVAE', pretrained='weights/wan21', subfolder='vae')

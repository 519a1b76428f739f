# CogVideoX's VAE, t4s8c16: 216 M parameters. Download it once:
#   hf download zai-org/CogVideoX-2b --include 'vae/*' --local-dir weights/cogvideox
backbone = dict(type='DiffusersVAE', pretrained='weights/cogvideox', subfolder='vae')

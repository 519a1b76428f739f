# HunyuanVideo's VAE, t4s8c16: 246 M parameters. Get it once by
#   hf download hunyuanvideo-community/HunyuanVideo --include 'vae/*' --local-dir weights/hunyuan
backbone = dict(type='DiffusersVAE', pretrained='weights/hunyuan', subfolder='vae')

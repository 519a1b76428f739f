# HunyuanVideo's VAE, t4s8c16: 246 M parameters. Download it once:
#   hf download hunyuanvideo-community/HunyuanVideo --include 'vae/*' --local-dir weights/hunyuan
backbone = dict(type='DiffusersVAE', pretrained='weights/hunyuan', subfolder='vae')

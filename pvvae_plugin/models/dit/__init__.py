from .latent_dit import LatentDiT

__all__ = ['LatentDiT']

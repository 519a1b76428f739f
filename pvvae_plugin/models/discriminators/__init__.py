from .patch_discriminator_3d import PatchDiscriminator3D

__all__ = ['PatchDiscriminator3D']

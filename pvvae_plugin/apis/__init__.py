"""What scripts and notebooks call."""

from .launch import add_launch_arguments, load_config

__all__ = ['add_launch_arguments', 'load_config']

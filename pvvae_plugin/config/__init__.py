"""Reading config files, overriding their entries, and looking up the clips they describe."""

from .clip_facts import class_names, clip_geometry
from .config_file import read_config
from .overrides import add_override_argument, apply_overrides

__all__ = ['add_override_argument', 'apply_overrides', 'class_names', 'clip_geometry', 'read_config']

"""Registries of the scope ``pvvae_plugin``: children of MMEngine's, filled lazily.

A config names a component as ``type='PredictiveVAE'`` where ``default_scope = 'pvvae_plugin'``, and as
``type='pvvae_plugin.PredictiveVAE'`` from any other scope. The modules that define the components are imported the
first time a registry is asked for a name.
"""

from __future__ import annotations

from typing import Any

import mmengine.registry as root
from mmengine.registry import Registry

SCOPE = 'pvvae_plugin'


class PluginRegistry(Registry):
    """A child registry whose names can also be found from its parent.

    MMEngine resolves a bare nested ``type`` in the *default scope of the run* and then in the root registry, never in
    the registry that built the outer object. Under somebody else's default scope our algorithms could therefore not
    build their own parts. Registering each name in the parent as well solves that; a name that the parent already
    has is left to its owner.

    Args:
        parent: The registry of MMEngine to attach to.
        locations: Modules whose import fills this registry.
    """

    def __init__(self, parent: Registry, locations: list[str]) -> None:
        super().__init__(parent.name, parent=parent, scope=SCOPE, locations=locations)

    def _register_module(self, module: type, module_name: Any = None, force: bool = False) -> None:
        super()._register_module(module=module, module_name=module_name, force=force)
        names = [module_name or module.__name__] if not isinstance(module_name, (list, tuple)) else module_name
        for name in names:
            if name not in self.parent.module_dict:
                self.parent._register_module(module=module, module_name=name)


MODELS = PluginRegistry(root.MODELS, ['pvvae_plugin.models'])
MODEL_WRAPPERS = PluginRegistry(root.MODEL_WRAPPERS, ['pvvae_plugin.engine'])
DATASETS = PluginRegistry(root.DATASETS, ['pvvae_plugin.datasets'])
DATA_SAMPLERS = PluginRegistry(root.DATA_SAMPLERS, ['pvvae_plugin.datasets'])
TRANSFORMS = PluginRegistry(root.TRANSFORMS, ['pvvae_plugin.datasets'])
METRICS = PluginRegistry(root.METRICS, ['pvvae_plugin.evaluation'])
HOOKS = PluginRegistry(root.HOOKS, ['pvvae_plugin.engine'])
LOOPS = PluginRegistry(root.LOOPS, ['pvvae_plugin.engine'])
OPTIM_WRAPPERS = PluginRegistry(root.OPTIM_WRAPPERS, ['pvvae_plugin.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = PluginRegistry(root.OPTIM_WRAPPER_CONSTRUCTORS, ['pvvae_plugin.engine'])
STRATEGIES = PluginRegistry(root.STRATEGIES, ['pvvae_plugin.engine'])
# MMEngine has none of this kind. Its names are looked up here alone: other projects have a C3D of their own.
EXTRACTORS = Registry('extractor', scope=SCOPE, locations=['pvvae_plugin.evaluation.extractors'])
VISBACKENDS = PluginRegistry(root.VISBACKENDS, ['pvvae_plugin.visualization'])

# Nothing of ours is in these. They are here because MMEngine looks for a child of the default scope in each registry
# that a run touches, and warns where there is none.
for _parent in (
    root.EVALUATOR,
    root.FUNCTIONS,
    root.INFERENCERS,
    root.LOG_PROCESSORS,
    root.OPTIMIZERS,
    root.PARAM_SCHEDULERS,
    root.RUNNERS,
    root.VISUALIZERS,
    root.WEIGHT_INITIALIZERS,
):
    PluginRegistry(_parent, [])

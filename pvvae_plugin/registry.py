"""Registries of the scope ``pvvae_plugin``: lazily filled children of MMEngine's registries.

A config with ``default_scope = 'pvvae_plugin'`` uses ``type='PredictiveVAE'``; other scopes use
``type='pvvae_plugin.PredictiveVAE'``. The modules of the components are imported on the first lookup in a registry.
"""

from __future__ import annotations

from typing import Any

import mmengine.registry as root
from mmengine.registry import Registry

SCOPE = 'pvvae_plugin'


class PluginRegistry(Registry):
    """Child registry that also registers its names in the parent.

    MMEngine resolves a bare nested ``type`` in the default scope of the run, then in the root registry, but not in the
    registry that built the outer object. Under another default scope, our algorithms could not build their own parts.
    Registering each name in the parent as well solves this. Existing names in the parent are not overwritten.

    Args:
        parent: MMEngine registry to attach to.
        locations: Modules to import to fill this registry.
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
LOG_PROCESSORS = PluginRegistry(root.LOG_PROCESSORS, ['pvvae_plugin.engine'])
STRATEGIES = PluginRegistry(root.STRATEGIES, ['pvvae_plugin.engine'])
# MMEngine has no registry for extractors. This one has no parent, because other projects also register a C3D.
EXTRACTORS = Registry('extractor', scope=SCOPE, locations=['pvvae_plugin.evaluation.extractors'])
VISBACKENDS = PluginRegistry(root.VISBACKENDS, ['pvvae_plugin.visualization'])

# These registries stay empty. MMEngine looks up the default scope's child of every registry that a run uses, and warns
# if it is missing.
for _parent in (
    root.EVALUATOR,
    root.FUNCTIONS,
    root.INFERENCERS,
    root.OPTIMIZERS,
    root.PARAM_SCHEDULERS,
    root.RUNNERS,
    root.VISUALIZERS,
    root.WEIGHT_INITIALIZERS,
):
    PluginRegistry(_parent, [])

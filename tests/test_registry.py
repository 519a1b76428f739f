from __future__ import annotations

import subprocess
import sys

import mmengine.registry as root
import pytest
from mmengine.registry import DefaultScope, Registry

from pvvae_plugin.registry import MODELS, TRANSFORMS


def test_names_resolve_under_our_scope_and_by_prefix(tiny_vae_config):
    assert type(MODELS.build(tiny_vae_config)).__name__ == 'PredictiveVAE'
    prefixed = dict(tiny_vae_config, type='pvvae_plugin.PredictiveVAE')
    with DefaultScope.overwrite_default_scope('mmengine'):
        assert type(root.MODELS.build(prefixed)).__name__ == 'PredictiveVAE'


def test_nested_bare_names_resolve_under_a_foreign_scope(tiny_vae_config):
    """Our algorithms build their parts in configs with another default scope."""
    Registry('model', parent=root.MODELS, scope='foreign_project')
    algorithm = {
        'type': 'pvvae_plugin.VideoAutoencoder',
        'backbone': tiny_vae_config,
        'loss': {'type': 'PredictiveReconLoss'},
    }
    with DefaultScope.overwrite_default_scope('foreign_project'):
        assert type(root.MODELS.build(algorithm).backbone).__name__ == 'PredictiveVAE'


def test_unknown_type_names_the_registry():
    with pytest.raises(KeyError, match='NoSuchThing'):
        MODELS.build({'type': 'NoSuchThing'})


def test_names_of_other_owners_in_the_parent_are_left_alone():
    import mmcv.transforms

    TRANSFORMS.get('PackClip')  # fills the registry
    assert root.TRANSFORMS.get('Resize') is mmcv.transforms.Resize


def test_importing_the_package_imports_no_component():
    """Imports stay fast, and a broken optional part does not break the others."""
    code = (
        'import sys, pvvae_plugin; '
        "heavy = [m for m in sys.modules if m.startswith(('pvvae_plugin.models', 'pvvae_plugin.datasets'))]; "
        'assert not heavy, heavy'
    )
    subprocess.run([sys.executable, '-c', code], check=True)

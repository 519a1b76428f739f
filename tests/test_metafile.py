"""The lists of models that OpenMMLab's tools read agree with the configs and the pages, in a checkout and a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.config.utils import _get_cfg_metainfo

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def listed() -> dict:
    """Collections and models of every file that model-index.yml imports."""
    found = {'Collections': [], 'Models': []}
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        content = yaml.safe_load((ROOT / path).read_text())
        for kind, entries in found.items():
            entries += content[kind]
    return found


def test_every_config_that_trains_is_listed_once(listed):
    configs = [model['Config'] for model in listed['Models']]
    assert len(set(configs)) == len(configs)
    assert set(configs) == {f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py')}


def test_entries_are_whole(listed):
    collections = {collection['Name'] for collection in listed['Collections']}
    for collection in listed['Collections']:
        assert (ROOT / collection['README']).is_file() and collection['Paper']['URL'].startswith('https://')
    for model in listed['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert model['In Collection'] in collections
        assert 'Weights' not in model  # none are published


def test_metadata_are_those_of_the_configs(listed):
    for model in listed['Models']:
        cfg, metadata = Config.fromfile(ROOT / model['Config']), model['Metadata']
        assert metadata['Training Data']
        assert metadata['Iterations'] == cfg.train_cfg.max_iters, model['Name']
        assert metadata['Batch Size'] == cfg.train_dataloader.batch_size, model['Name']


def test_results_are_those_that_were_measured(listed):
    page = (ROOT / 'docs' / 'results.md').read_text()
    with_results = [model for model in listed['Models'] if 'Results' in model]
    assert {model['Name'] for model in with_results} <= {'pvvae_demo', 'dit_demo'}
    for model in with_results:
        for result in model['Results']:
            assert result['Task'] and result['Dataset']
            for name, value in result['Metrics'].items():
                assert str(value) in page, name


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist."""
    pytest.importorskip('setuptools')
    pytest.importorskip('wheel')
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('built')
    for name in ('pvvae_plugin', 'configs', 'tools', 'projects'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith('.'):
            shutil.copy(path, source)
    for command in (['bdist_wheel', '-d', str(target)], ['sdist', '-d', str(target)]):
        done = subprocess.run(
            [sys.executable, 'setup.py', '-q', *command], cwd=source, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return target


def test_a_wheel_has_the_lists_beside_the_configs(built, tmp_path):
    with zipfile.ZipFile(next(built.glob('*.whl'))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path)
    wanted = {'model-index.yml', *(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('*.py'))}
    assert {f'pvvae_plugin/.mim/{name}' for name in {*wanted, 'configs/metafile.yml'}} <= names
    assert 'pvvae_plugin/py.typed' in names
    found = _get_cfg_metainfo(str(tmp_path / 'pvvae_plugin'), 'dit_pvvae.py')  # as MMEngine reads it
    assert (tmp_path / 'pvvae_plugin' / '.mim' / found['Config']).is_file()


def test_an_sdist_has_what_a_wheel_is_built_from(built):
    with tarfile.open(next(built.glob('*.tar.gz'))) as sdist:
        names = {name.partition('/')[2] for name in sdist.getnames()}
    wanted = {
        'model-index.yml',
        'configs/metafile.yml',
        'configs/_base_/ucf101.py',
        'pvvae_plugin/py.typed',
        'setup.py',
        'projects/predictive_study/configs/vae_tiny.py',
    }
    assert wanted <= names

"""What pvvae print-config prints is the config, and docs/configs.md says where its entries stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.cli.analysis import print_config

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(path.stem for path in (ROOT / 'configs').glob('*.py'))


@pytest.fixture
def printed(capsys):
    """A function from arguments to what the command prints for them."""

    def run(*arguments) -> str:
        print_config.main(list(map(str, arguments)))
        return capsys.readouterr().out

    return run


def read_back(text: str) -> dict:
    return Config.fromstring(text, '.py').to_dict()


@pytest.mark.parametrize('name', CONFIGS)
def test_what_is_printed_is_the_config(printed, name):
    path = config_path(f'{name}.py')
    assert read_back(printed(path)) == Config.fromfile(path).to_dict()


def test_every_way_to_name_one_of_ours_is_the_same(printed):
    texts = [printed(name) for name in ('pvvae_demo', 'pvvae_demo.py', 'pvvae_plugin::pvvae_demo.py')]
    assert len({*texts, printed(config_path('pvvae_demo.py'))}) == 1
    assert read_back(printed('_base_/ucf101.py')) == Config.fromfile(config_path('_base_/ucf101.py')).to_dict()


def test_configs_that_inherit_ours_by_name_are_resolved(printed, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'pvvae_plugin::pvvae_demo.py'\nmodel = dict(backbone=dict(latent_channels=8))\n")
    found = read_back(printed(path))
    assert found == Config.fromfile(path).to_dict()
    assert found['model']['backbone']['latent_channels'] == 8 and found['model']['backbone']['patch_size'] == 4


def test_overrides_count_and_a_written_file_is_a_config(printed, tmp_path):
    options = ['--cfg-options', 'train_cfg.max_iters=7', 'train_dataloader.dataset.pipeline.0.max_drop_ratio=0.5']
    out = tmp_path / 'new' / 'mine.py'
    assert str(out) in printed('pvvae_demo', *options, '--out', out)
    cfg = Config.fromfile(out)
    assert cfg.train_cfg.max_iters == 7 and cfg.train_dataloader.dataset.pipeline[0].max_drop_ratio == 0.5
    assert cfg.to_dict() == read_back(printed('pvvae_demo', *options))


def test_what_cannot_be_read_or_written_is_said(capsys):
    def fails(*arguments) -> str:
        with pytest.raises((SystemExit, FileNotFoundError)) as ended:
            print_config.main(list(arguments))
        return f'{ended.value} {capsys.readouterr().err}'

    assert 'no config' in (message := fails('pvvae_dem')) and 'pvvae_demo.py' in message
    assert '--out must end in .py, got x.json' in fails('pvvae_demo', '--out', 'x.json')


PAGE = (ROOT / 'docs' / 'configs.md').read_text()


def bases_of(name: str) -> set[str]:
    """Configs that one of ours inherits from directly, below ``configs/``."""
    path = ROOT / 'configs' / name
    bases = Config._get_base_files(str(path))
    return {str((path.parent / base).resolve().relative_to(ROOT / 'configs')) for base in bases}


def test_the_tree_of_the_page_is_that_of_the_files():
    tree = re.search(r'```\n(pvvae_demo\.py.*?)```', PAGE, flags=re.S)[1]
    found: dict[str, set[str]] = {}
    branch: list[str] = []
    for line in filter(None, tree.splitlines()):
        name, *beside = re.findall(r'[\w/]+\.py', line)
        depth = re.search(r'\w', line).start() // 4
        branch = [*branch[:depth], name]
        found.setdefault(name, set()).update(branch[-2:-1], beside)
    ours = [str(path.relative_to(ROOT / 'configs')) for path in (ROOT / 'configs').rglob('*.py')]
    assert {name: bases for name in ours if (bases := bases_of(name))} == {k: v for k, v in found.items() if v}


@pytest.mark.parametrize('name', ['pvvae_ucf101.py', 'dit_pvvae.py'])
def test_the_keys_of_the_page_stand_where_it_says(name):
    table = re.search(rf'`{name}`[;,.][^|]*\| to change \|.*?\n\n', PAGE, flags=re.S)[0]
    rows = [row.strip('| ').split(' | ') for row in table.splitlines() if row.startswith('| ')][1:]
    assert len(rows) > 5
    cfg = Config.fromfile(config_path(name))
    for _, keys, file in rows:
        text = (ROOT / 'configs' / file.strip('`')).read_text()
        for key in re.findall(r'`([\w.]+\.\w+|load_from|test_evaluator)`', keys):
            value = cfg
            for part in key.split('.'):
                value = value[int(part) if part.isdigit() else part]
            assert re.search(rf'\b{key.split(".")[-1]}\b *=', text), f'{key} in {file}'

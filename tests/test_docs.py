"""What the pages promise a reader: links that lead somewhere, a snippet that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page):
    for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
        if '://' not in target:
            assert (page.parent / target.split('#')[0]).exists(), target


def test_the_snippet_of_the_readme_runs():
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), flags=re.S)
    assert snippets
    for snippet in snippets:
        scope: dict = {}
        exec(snippet, scope)
        assert scope['clip'].shape == (1, 3, 9, 32, 32)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_configs_and_scripts_that_are_named_exist(page):
    for path in re.findall(r'\b((?:configs|tools)/[\w/]+\.(?:py|sh))\b', page.read_text()):
        assert (ROOT / path).is_file(), path

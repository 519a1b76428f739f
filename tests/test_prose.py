"""The text of the project stays easy to scan: constructions that make readers read twice are counted."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 2.0  # per 1,000 words; documentation of well-known projects has 1 to 2
HABITS = [
    r'\bwhat (?:is|are|was|a|an|the|it|they|of|to|that|follows|one|each|makes)\b',  # a clause as a noun
    r'\bof (?:which|whom|those|them|each|one)\b',
    r'\b(?:is|are) (?:no(?! longer| more)|none)\b',
    r'(?:^|[ ,;:(])where (?:it|there|this|one|no|nothing|none|they)\b',  # for "if"
    r'\b(?:go|goes|going|went) on\b',
    r'\b(?:anew|alike|in turn|otherwise)\b',
    r"\bof (?:one's|your|its|their|our) own\b|\bof (?:ours|yours)\b",
    r'\b(?:lies|stands|hangs)\b',
    r'\b(?:shared|left|leaves|leave) out\b',
    r'(?:^|[.:] )Of (?!course)',
]
MARKED = re.compile('|'.join(f'(?:{habit})' for habit in HABITS), re.I)
SPEAKING = re.compile(r'(?:^|\.)(?:warn|warning|info|error|print|print_log|add_argument|\w*Error)$')


def python_files() -> list[Path]:
    folders = ('pvvae_plugin', 'tools', 'configs', 'projects')
    return [path for folder in folders for path in sorted((ROOT / folder).rglob('*.py')) if 'tests' not in path.parts]


def docs() -> Iterator[str]:
    for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
        text = re.sub(r'```.*?```|`[^`\n]*`', ' X ', path.read_text(encoding='utf-8'), flags=re.S)
        yield re.sub(r'\]\([^)]*\)', ']', text)


def docstrings() -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield re.sub(r'``[^`]*``|:\w+:`[^`]*`', 'X', text.partition('Example:')[0])


def comments() -> Iterator[str]:
    for path in python_files():
        with path.open('rb') as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT:
                    yield token.string.lstrip('# ')


def messages() -> Iterator[str]:
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and SPEAKING.search(ast.unparse(node.func)):
                for part in ast.walk(node):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and ' ' in part.value:
                        yield part.value


@pytest.mark.parametrize('kind', [docs, docstrings, comments, messages])
def test_text_can_be_scanned(kind):
    texts = list(kind())
    words = sum(len(text.split()) for text in texts)
    found = [
        ' '.join(text[max(0, m.start() - 20) : m.end() + 20].split()) for text in texts for m in MARKED.finditer(text)
    ]
    assert words > 3000
    assert 1000 * len(found) / words <= LIMIT, found[:40]


def test_stilted_sentences_are_counted():
    stilted = 'What the network makes of it stands below. Of each clip one frame is left out, where there is one.'
    plain = 'The network skips one frame per clip. The result is listed below.'
    assert len(MARKED.findall(stilted)) >= 4
    assert not MARKED.findall(plain)

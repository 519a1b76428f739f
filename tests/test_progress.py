"""Progress is drawn in a terminal and written as few plain lines elsewhere."""

from __future__ import annotations

from io import StringIO

from pvvae_plugin.progress import ProgressBar


class Terminal(StringIO):
    def isatty(self):
        return True


def test_a_file_gets_a_line_per_tenth_of_the_work():
    file = StringIO()
    bar = ProgressBar(200, file=file)
    for _ in range(100):
        bar.update(2)
    lines = file.getvalue().splitlines()
    assert len(lines) == 10 and '\r' not in file.getvalue()
    assert lines[0].startswith('20/200, ') and lines[-1].startswith('200/200, ')


def test_a_terminal_gets_a_bar():
    file = Terminal()
    bar = ProgressBar(3, file=file)
    bar.update()
    assert file.getvalue().startswith('[') and file.getvalue().count('\r') == 1

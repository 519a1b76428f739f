import pytest


@pytest.fixture
def warnings_of(monkeypatch):
    """Messages that data sets log, collected."""
    messages = []
    monkeypatch.setattr('pvvae_plugin.datasets.clip_dataset.print_log', lambda text, **_: messages.append(text))
    return messages

"""Commands of ``pvvae``, one module per command; ``tools/`` has a script for each."""

"""The commands of ``pvvae``, one module each; ``tools/`` holds a script for each of them."""

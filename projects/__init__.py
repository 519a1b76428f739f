"""Studies and applications of pvvae_plugin."""

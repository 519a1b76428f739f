"""Commands that analyze configs, runs and latents."""

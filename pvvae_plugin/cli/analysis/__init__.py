"""Commands that look at configs, runs and latents."""

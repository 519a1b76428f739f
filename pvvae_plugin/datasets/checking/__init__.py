"""Look for bad files before training, and watch the workers that read them."""

"""Finding bad files before training, and monitoring the workers that read them."""

"""Pure functions of tensors: no registry, no state."""

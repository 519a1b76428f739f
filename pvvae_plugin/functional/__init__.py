"""Pure functions of tensors, without registry or state."""

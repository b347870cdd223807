"""Tasks that need memory, as Gymnasium environments."""

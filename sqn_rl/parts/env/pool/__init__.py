"""What all environments of EnvPool have in common, and how they are opened."""

"""What an update is made of: gradients and the steps that follow, compiled, recorded or as usual."""

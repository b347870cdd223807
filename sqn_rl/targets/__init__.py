"""Target updaters: how the target copies follow the online networks."""

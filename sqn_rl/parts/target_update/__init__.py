"""Target updates: how target networks follow the online networks."""

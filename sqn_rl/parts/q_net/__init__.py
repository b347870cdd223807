"""Q-networks: one or more networks of an encoder and a head each."""

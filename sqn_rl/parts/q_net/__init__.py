"""Q-networks: one or more networks, each with an encoder and a head."""

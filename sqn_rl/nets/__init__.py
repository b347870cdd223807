"""Networks: the layer, the encoder, the heads, and the Q-network that is made of them."""

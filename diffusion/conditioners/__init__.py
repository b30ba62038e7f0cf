"""Condition: all that a network is given beside x_t and t; and the conditioners that open it inside the network."""

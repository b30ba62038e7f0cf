"""Condition: the inputs of a network besides x_t and t; and the conditioners that embed it inside the network."""

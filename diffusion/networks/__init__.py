"""Networks: (x_t, t, y) -> what the prediction needs, in the shape of an image."""

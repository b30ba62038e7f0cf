"""Networks: (x_t, t, condition) -> what the prediction needs, in the shape of an image; kernels, compilation."""

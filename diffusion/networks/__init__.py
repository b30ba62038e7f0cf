"""Networks: (x_t, t, condition) -> the raw output of the prediction, in the shape of an image; kernels, compilation."""

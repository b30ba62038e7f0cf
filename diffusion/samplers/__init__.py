"""Samplers: Algorithm 2 of DDPM and its successors, all with one sampling loop."""

"""Samplers: Algorithm 2 of DDPM and its successors, all on one loop."""

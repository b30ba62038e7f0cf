"""LitDiffusion, the LightningModule; the training pair of Algorithm 1; notices of what may not be meant."""

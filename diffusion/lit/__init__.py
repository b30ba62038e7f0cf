"""LitDiffusion, the LightningModule; the training pair of Algorithm 1; notices about questionable settings."""

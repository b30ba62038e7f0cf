"""From a command line to a run: composition, building, checkpoints, manifest, run folder."""

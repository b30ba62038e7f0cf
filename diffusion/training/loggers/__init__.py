"""Where numbers, pictures and tables of a run go: always into its folder, and to W&B or TensorBoard if chosen."""

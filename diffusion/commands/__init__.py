"""The commands, a file each, and the command line that runs them: options, help, completion, reference."""

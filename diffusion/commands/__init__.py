"""The commands, one file each, and the command line: options, help, completion, reference."""

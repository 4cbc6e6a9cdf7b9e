"""Subcommands of the `perceptloss` command line, one module each."""

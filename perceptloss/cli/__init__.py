"""The `perceptloss` command line: `main(arguments)`, and one module per subcommand."""

from perceptloss.cli.main import main

__all__ = ["main"]

"""The commands of `python -m ddpm`, a module each; `add_parser` makes a command known without importing its work."""

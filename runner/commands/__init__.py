"""The commands of `python -m runner`: a module each, which parses its own arguments."""

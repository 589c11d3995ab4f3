"""The commands of `python -m scoring`, a module each with a `main`."""

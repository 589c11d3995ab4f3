"""Code that runs inside a scoring sandbox, on untrusted files; imports nothing from outside it."""

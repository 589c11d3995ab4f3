"""What Python finds first in the commands of a sandbox: no kernel imports it."""

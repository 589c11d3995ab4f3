"""Kernels for Jupyter's own clients: what `provisioner.py` starts and ends them with."""

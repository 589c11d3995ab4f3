"""What runs on the other side of the wall. It imports nothing from outside this folder."""

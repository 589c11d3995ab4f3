"""A language model compares two runs: what it is asked, what its verdicts come to."""

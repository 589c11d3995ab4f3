"""PyBench: what its 143 tasks ask of files and answers, who judges that, and its own numbers."""

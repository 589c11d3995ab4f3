"""One trajectory: a model's turns and the sandbox that they are executed in, until something ends it."""

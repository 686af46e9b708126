"""The embedded base: a miniature Llama, its tasks and its data, made from scratch by `python -m trials.micro`."""

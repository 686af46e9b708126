"""The embedded base: a miniature Llama, its tasks and its data, made from nothing by `python -m trials.micro`."""

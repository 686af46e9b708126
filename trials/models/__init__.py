"""A base on a device: loading, quantisation, memory, layout."""

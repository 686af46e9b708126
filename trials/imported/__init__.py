"""Results that lm-eval's command line wrote (`--output_path DIR --log_samples`), read as records."""

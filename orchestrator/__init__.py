"""From a config to finished trials: config, plan, search, Ray, command line."""

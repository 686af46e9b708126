"""Ray: workers, the driver loop, connections, runtime environments."""

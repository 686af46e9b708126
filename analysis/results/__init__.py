"""A sweep as it is read from storage."""

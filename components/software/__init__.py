"""Software that users load as modules."""

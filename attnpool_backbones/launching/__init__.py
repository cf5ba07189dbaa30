"""What makes a Runner: options, preflight, devices, resuming, testing."""

"""Sample servers and deterministic sample data for the demo and the tests."""

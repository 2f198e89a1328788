"""One flow per workload, and the `landrecords` command."""

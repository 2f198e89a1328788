"""Every statement longer than a line; migrations beside."""

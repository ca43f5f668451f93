"""Changes to a network: small named operations, planned, tried, made, and made again by whoever opens the file."""

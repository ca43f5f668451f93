"""Sessions that answer, and the way from any input to results. Imports core only; no torch but where it is already loaded."""

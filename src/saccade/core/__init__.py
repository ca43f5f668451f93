"""What everything stands on: errors, configuration, files, images, results. Imports nothing of ours, and no torch."""

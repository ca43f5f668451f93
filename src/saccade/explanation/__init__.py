"""Why a model answers as it does: attribution maps, drawn over the image, and the worst mistakes with a cause."""

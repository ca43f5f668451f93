"""The report: one HTML page that opens offline. `page.render` and `page.write` are its doors; no torch."""

"""From rows and chunks to byte ranges: pure, takes arrays, knows no column names."""

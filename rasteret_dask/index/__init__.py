"""The Parquet collection: its columns, rows, queries and commits."""

"""What the importers share: recording views, writes and storages as value-semantic operations."""

"""What the service remembers: database, files, keys, backups. The only SQL."""

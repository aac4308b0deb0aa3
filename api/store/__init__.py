"""The database, the traces as files, keys, the audit log, backups. The only SQL."""

//! The command line: dev, serve, migrate, token, check.

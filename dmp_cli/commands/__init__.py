"""One file per command: options -> config -> one engine verb -> print."""

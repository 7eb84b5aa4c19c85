"""The command line's windows on a running gate: ls, show, watch, diff."""

//! The loop: signals, file changes and drain, one event at a time.

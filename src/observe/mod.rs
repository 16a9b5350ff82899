//! Logs to the journal and one record per exchange.

//! The service manager: readiness, status, watchdog, and sockets handed over.

//! The backend that answers with what it received.

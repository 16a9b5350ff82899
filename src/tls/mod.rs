//! Certificates as last seen whole, and the TLS settings made from them.

//! What users of the gateway live through, told against the real binary.
//!
//! One file per theme; the actors are in `support`. The gateway is started as systemd starts it:
//! it is given its sockets and says when it is ready, so no story needs a fixed port or a sleep to
//! begin with. What a backend received decides, in bytes, not the status code alone.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on must stop")]
#![allow(clippy::disallowed_methods, reason = "the stories run outside the gateway and its clock")]

mod acme;
mod forwarded;
mod grpc;
mod redirect;
mod reload;
mod routing;
mod support;
mod tls;
mod upgrade;

//! The service manager: readiness, status, watchdog, inherited sockets, and the memory limit.
//!
//! Everything here is a no-op without a service manager, so a gateway started by hand runs the same
//! code. Only the protocols are implemented; neither systemd itself nor a library of it is needed.
//!
//! Left out on purpose: the descriptor store and `MAINPID=` handover. A restart loses nothing
//! because the sockets belong to the service manager.

mod memory;
mod notify;
mod sockets;

pub(crate) use memory::Memory;
pub(crate) use notify::{Notify, watchdog_interval};
pub(crate) use sockets::{ForAnother, Handed, Inherited, inherited};

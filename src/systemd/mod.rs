//! The service manager: readiness, status, watchdog, sockets handed over, and the memory granted.
//!
//! Everything here is a no-op where no service manager is, so a gateway started by hand runs the
//! same code. Only the protocols are spoken; systemd itself is not needed, and no library of it.
//!
//! Absent on purpose: the descriptor store and `MAINPID=` handover. A restart loses nothing
//! because the sockets belong to the service manager.

mod memory;
mod notify;
mod sockets;

pub(crate) use memory::Memory;
pub(crate) use notify::{Notify, watchdog_interval};
pub(crate) use sockets::{ForAnother, Handed, Inherited, inherited};

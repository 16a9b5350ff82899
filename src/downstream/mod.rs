//! Downstream connections: their number, their state, and the state that all workers share.
//!
//! HTTP (`proxy`) and byte streams (`streams`) both use this module.

mod bind_counts;
mod client_stream;
pub(crate) mod coarse_timer;
mod connection_watch;
mod logged_endpoint;
mod open_connections;
mod parking;
mod process;
mod process_limits;
mod request_id;
mod session_key;
mod shortage;
mod task_waker;
pub(crate) mod tasks;
mod transfer;
mod two_way;

pub(crate) use bind_counts::BindCounts;
pub(crate) use client_stream::{ClientStream, Rewound};
pub(crate) use connection_watch::{
    Ending, GRACE, LINGER, Millis, OpenExchange, SILENCE, Signal, Watch,
};
pub(crate) use logged_endpoint::logged_endpoint;
pub(crate) use open_connections::{
    Assignment, Connections, PeerNetwork, Registration, WorkerConnections,
};
pub(crate) use process::Process;
pub(crate) use process_limits::ProcessLimits;
pub(crate) use request_id::new_request_id;
pub(crate) use session_key::{KEY_LENGTH, SessionKey};
pub(crate) use shortage::{BYTES_A_CONNECTION, Shortage};
pub(crate) use transfer::{CarriedBytes, silence};
pub(crate) use two_way::{BrokenEnd, Progress, TwoWay};

//! Background tasks: work that a snapshot needs and that belongs to no request.
//!
//! [`Tasks`] owns them all. When a snapshot is published it starts the tasks that the snapshot names
//! and that do not run yet; a task that is described as before goes on undisturbed. The tasks share
//! one thread with a runtime and a pool of upstream connections of its own, so none of them delays a
//! request; the first snapshot that names a task starts that thread.
//!
//! A task ends with the last snapshot that needs it. It holds nothing that belongs to a snapshot, but
//! a queue's receiver or a `Weak`, and returns once that has no other end and what was queued is done:
//! requests that began under an older snapshot may still queue work. When the process ends, every task
//! is told to finish.
//!
//! To add a kind of task (health probes, JWKS): a variant of [`Task`] and of its [`Description`], and
//! the arms that the compiler asks for.

mod owner;
mod task;

pub(crate) use owner::Tasks;

//! Background tasks: work for a snapshot that is independent of single requests.
//!
//! [`Tasks`] owns all tasks. When a snapshot is published, it starts the tasks of the snapshot that
//! do not run yet; a task with an equal description continues undisturbed. The tasks share one
//! thread, which has its own runtime and its own pool of upstream connections, so they do not delay
//! requests. The thread starts with the first task.
//!
//! A task ends after the last snapshot that needs it. It holds no part of a snapshot except a
//! queue's receiver or a `Weak`; it returns when the other end is dropped and all queued work is
//! done, since requests that began under an older snapshot may still queue work. When the process
//! ends, all tasks are signalled to finish.
//!
//! To add a kind of task (JWKS), add a variant of [`Task`](task::Task) and of its
//! [`Description`](task::Description), and the match arms that the compiler then requires.

mod owner;
mod task;

pub(crate) use owner::Tasks;
